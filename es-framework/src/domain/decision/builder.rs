//! A decision that is about to be made, its receipt and its errors.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::Serialize;
use tracing::Instrument;

use super::super::aggregate::{Aggregate, Apply, OfQuery};
use super::super::canonical::canonical;
use super::super::command::Command;
use super::super::commands_enum::Content;
use super::super::event::DecodeError;
use super::super::execute::KeyError;
use super::super::fold::FoldPanic;
use super::super::provenance::Provenance;
use super::super::repository::LoadError;
use super::super::view::{View, ViewOf};
use super::Decide;
use super::current::Current;
use super::events::EventsError;
use super::part::{Boxed, Part};
use super::run::Run;
use crate::log::{
    AppendError, Appended, CommandKey, Conflict, ErrorKind, ExpectedVersion, Fingerprint, InvalidMetadata, InvalidName,
    KeyedCommand, Position, Store, StreamAppended, StreamId, Timestamp, Version, check_name,
};

/// The default maximum number of times a decision is made.
const TRIES: u32 = 10;

impl Store {
    /// Makes a [decision](Decide) over several aggregates and views: reads what it names, lets it decide, and writes its
    /// events if nothing that it read has changed.
    ///
    /// Await it directly, or configure it first: [`Decision::key`], [`Decision::provenance`], [`Decision::tries`].
    ///
    /// The states of aggregates come from the cache of their newest [`Repository`](crate::Repository) on this store, if
    /// there is one, and what a decision reads and writes is kept there; views are cached with the store. A cached state
    /// is never trusted: what was read is checked when the events are written.
    ///
    /// # Errors
    ///
    /// [`DecisionError`] keeps rejections, conflicts and failures apart.
    ///
    /// # Panics
    ///
    /// If `over`, `decide` or the `Serialize` of an event panics; nothing was written then. A panic in `apply` or while
    /// decoding an event is returned as an error instead.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, either all events of the decision are written or none. Give it a key to be able to
    /// retry it. A future that was polled once and is then kept without being polled does not block other decisions, and
    /// one of them may finish the work it began.
    pub fn decide<'d, D: Decide + 'd>(&self, decision: D) -> Decision<'d, D> {
        let store = self.clone();
        let asked = Asked { store, decision, key: None, provenance: None, expected: Vec::new(), tries: TRIES };
        Decision { asked: Some(asked), running: None }
    }

    /// Reads a view as it is now.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Event)] #[es(name = "subscribed", stream = "course-{course}")] struct Subscribed { #[es(tag)] course: String }
    /// # #[derive(Debug, Default, Clone, View)] #[es(event = Subscribed, tags(course))] struct Seats { taken: u32 }
    /// # impl Apply for Seats { fn apply(&mut self, _: &Subscribed, _: Envelope<'_>) { self.taken += 1; } }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryStore::new();
    /// let seats = store.view(Seats::of("db-101")).await?;
    /// assert_eq!(seats.taken, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`] if an event cannot be decoded or folded, or the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed.
    pub async fn view<V: View<Kind = OfQuery> + Apply>(&self, view: ViewOf<V>) -> Result<Current<V>, LoadError> {
        let part = Part::new(view, Some(self))?;
        part.read().await
    }
}

/// A decision to make; await it.
///
/// ```
/// # use es_framework::*;
/// # use serde::Serialize;
/// # #[derive(Event)] #[es(name = "user.registered", stream = "user-{name}")] struct Registered { #[es(tag = "user")] name: String }
/// # #[derive(Debug, Default, Clone, View)] #[es(event = Registered, tags(user))] struct Name { taken: bool }
/// # impl Apply for Name { fn apply(&mut self, _: &Registered, _: Envelope<'_>) { self.taken = true; } }
/// # #[derive(Debug, thiserror::Error)] #[error("the name is taken")] struct Taken;
/// #[derive(Serialize, Command)]
/// #[es(name = "user.register")]
/// struct Register {
///     name: String,
/// }
///
/// impl Decide for Register {
///     type Over = Name;
///     type Error = Taken;
///
///     fn over(&self) -> Boundary<Self> {
///         Name::of(&self.name)
///     }
///
///     fn decide(&self, name: States<'_, Self>, _: &DecideContext) -> Result<Events, Taken> {
///         if name.taken { Err(Taken) } else { Ok(Registered { name: self.name.clone() }.into()) }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = MemoryStore::new();
/// for _ in 0..2 {
///     // The second call with the same key writes nothing and returns what the first one returned.
///     let decided = store
///         .decide(Register { name: "ann".into() })
///         .key("form-17")
///         .provenance(Provenance::new().actor("ann"))
///         .await?;
///     assert_eq!(decided.version_of("user-ann"), Some(Version::new(1)));
/// }
/// # Ok(()) }
/// ```
#[must_use = "a decision is made when it is awaited: `.decide(…).await`"]
pub struct Decision<'d, D: Decide> {
    /// The request, until the first poll.
    asked: Option<Asked<D>>,
    running: Option<Boxed<'d, Result<Decided, DecisionError<D::Error>>>>,
}

/// A decision with its options.
struct Asked<D> {
    store: Store,
    decision: D,
    key: Option<Result<KeyedCommand, KeyError>>,
    provenance: Option<Provenance>,
    expected: Vec<(Result<StreamId, InvalidName>, ExpectedVersion)>,
    tries: u32,
}

/// The outcome of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// What it did to each stream that it wrote, in the order of its events. Streams of aggregates that it only read
    /// follow, with nothing written.
    pub streams: Vec<StreamAppended>,
    /// The position of its last event; without events, the head of the log when it was decided. A projection that has
    /// reached it has processed everything the decision did.
    pub position: Position,
    /// The time of its events; without events, the time it was decided.
    pub time: Timestamp,
    /// The number of events it wrote.
    pub events: usize,
    /// Whether the decision had already been made under the same key, so that nothing was written now.
    pub was_known: bool,
}

impl Decided {
    pub(super) fn new(appended: Appended) -> Self {
        Self {
            position: appended.position,
            time: appended.time,
            events: appended.streams.iter().map(|stream| stream.written).sum(),
            was_known: appended.was_known(),
            streams: appended.streams,
        }
    }

    /// The version after the decision of a stream that it wrote, or whose aggregate it read.
    pub fn version_of(&self, stream: impl AsRef<str>) -> Option<Version> {
        let stream = stream.as_ref();
        self.streams.iter().find(|appended| appended.stream == *stream).map(|appended| appended.last)
    }
}

/// A decision that was not made: rejected by the domain, lost to other writers, or failed. Nothing was written, except
/// for [`Self::WrittenUnfoldable`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecisionError<E: std::error::Error + 'static> {
    /// The decision was rejected by its own [`decide`](Decide::decide).
    #[error(transparent)]
    Rejected(E),
    /// Other writers were faster each time: try again later, or read less. Or an aggregate was not at the version that
    /// the caller [expected](Decision::expecting): load it, and let the sender of the decision decide.
    #[error("{}, after {tries} tries", listed(conflicts))]
    Conflict {
        /// How many times it was decided.
        tries: u32,
        /// What had changed the last time.
        conflicts: Vec<Conflict>,
    },
    /// A state could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event could not be encoded, or has no valid stream.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// An encoded event could not be decoded, so it was not written: fix its serde attributes or choose another codec.
    /// Or an aggregate that was read does not know the event that was about to be written to its stream.
    #[error("an event that could never be read again was not written")]
    Unreadable(#[source] DecodeError),
    /// An event on which `apply` or decoding panics was not written, because its state could never be loaded again.
    #[error("an event that could never be folded was not written")]
    Unfoldable(#[source] FoldPanic),
    /// The events *were* written, but `apply` panicked on one of them, although it had not panicked on the same event
    /// with a guessed position and time. The state cannot be loaded until `apply` is fixed.
    #[error("the events up to position {position} were written, but cannot be folded")]
    WrittenUnfoldable {
        /// The position of the last event.
        position: Position,
        /// What panicked.
        source: FoldPanic,
    },
    /// The events could not be written.
    #[error(transparent)]
    Append(AppendError),
    /// The decision's key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The provenance cannot be written as metadata.
    #[error(transparent)]
    Provenance(#[from] InvalidMetadata),
}

fn listed(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl<E: std::error::Error + 'static> DecisionError<E> {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_)
            | Self::Key(_)
            | Self::Provenance(_)
            | Self::Events(_)
            | Self::Unreadable(_)
            | Self::Unfoldable(_) => ErrorKind::Caller,
            Self::WrittenUnfoldable { .. } => ErrorKind::Data,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Load(error) => error.kind(),
            Self::Append(error) => error.kind(),
        }
    }

    /// The domain's rejection, if this is one.
    pub fn rejection(&self) -> Option<&E> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

impl<D: Decide> Decision<'_, D> {
    fn with(mut self, change: impl FnOnce(&mut Asked<D>)) -> Self {
        if let Some(asked) = &mut self.asked {
            change(asked);
        }
        self
    }

    /// Makes the decision at most once under this key, which is unique in the store: a repeated decision writes nothing
    /// and returns what the first one returned, although its own events match what it reads now. Rejections are not
    /// remembered.
    ///
    /// The store keeps the [name](Command::NAME) and the fingerprint of the decision with the key, and refuses the key
    /// with another fingerprint. The fingerprint covers the name and the data as serde sees it, as for
    /// [`Execute::key`](crate::Execute::key).
    pub fn key<K>(self, key: K) -> Self
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        D: Command + Serialize,
    {
        self.with(|asked| asked.key = Some(keyed(key, &asked.decision)))
    }

    /// Sets where the decision comes from. It is written as the metadata of each of its events, with the
    /// [name](Command::NAME) of the decision under the key [`Provenance::COMMAND`].
    pub fn provenance(self, provenance: Provenance) -> Self
    where
        D: Command,
    {
        self.with(|asked| asked.provenance = Some(provenance.with(Provenance::COMMAND, asked.decision.name())))
    }

    /// Makes the decision only on the version of an aggregate that its sender has seen, like `If-Match` in HTTP, or only
    /// if the aggregate is new or exists. Otherwise it fails with [`DecisionError::Conflict`], without another try. The
    /// aggregate need not be one that the decision reads.
    ///
    /// ```no_run
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account;
    /// # async fn transfer(store: Store, transfer: impl Decide) {
    /// let decided = store.decide(transfer).expecting::<Account>("alice", Version::new(7)).await;
    /// # }
    /// ```
    pub fn expecting<A: Aggregate>(self, id: impl Into<A::Id>, expected: impl Into<ExpectedVersion>) -> Self {
        let stream = A::stream_id(&id.into());
        self.with(|asked| {
            asked.expected.retain(|(other, _)| *other != stream);
            asked.expected.push((stream, expected.into()));
        })
    }

    /// The maximum number of times it is decided while other writers are faster; at least 1, and 10 by default.
    pub fn tries(self, tries: u32) -> Self {
        self.with(|asked| asked.tries = tries.max(1))
    }
}

fn keyed<D, K>(key: K, decision: &D) -> Result<KeyedCommand, KeyError>
where
    K: TryInto<CommandKey>,
    InvalidName: From<K::Error>,
    D: Command + Serialize,
{
    let key = key.try_into().map_err(InvalidName::from)?;
    let name = decision.name();
    check_name("command name", name)?;
    let refused = |error| KeyError::Fingerprint { source: Box::new(error) };
    let fingerprint = canonical(&(name, Content(decision))).map(|bytes| Fingerprint::of(&bytes)).map_err(refused)?;
    Ok(KeyedCommand::new(key, fingerprint).named(name))
}

impl<D: Decide> Asked<D> {
    async fn run(self) -> Result<Decided, DecisionError<D::Error>> {
        let Self { store, decision, key, provenance, expected, tries } = self;
        let mut run = Run::new(&store, &decision, tries)?;
        for (stream, expected) in expected {
            run.expected.push((stream.map_err(LoadError::from)?, expected));
        }
        run.key = key.transpose()?;
        run.metadata = provenance.map_or(Ok(None), |provenance| provenance.to_metadata())?;
        run.run().await
    }
}

/// Nothing is borrowed from the future itself.
impl<D: Decide> Unpin for Decision<'_, D> {}

/// A future rather than [`IntoFuture`], so that the compiler can report a missing `.await`, and so that `join!` accepts
/// it.
impl<'d, D: Decide + 'd> Future for Decision<'d, D> {
    type Output = Result<Decided, DecisionError<D::Error>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(asked) = this.asked.take() {
            let span = tracing::debug_span!("decide", decision = std::any::type_name::<D>());
            this.running = Some(Box::pin(asked.run().instrument(span)));
        }
        let Some(running) = &mut this.running else { return Poll::Pending };
        let outcome = ready!(running.as_mut().poll(context));
        this.running = None;
        Poll::Ready(outcome)
    }
}

impl<D: Decide + fmt::Debug> fmt::Debug for Decision<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut decision = f.debug_struct("Decision");
        if let Some(asked) = &self.asked {
            decision.field("decision", &asked.decision);
        }
        decision.finish_non_exhaustive()
    }
}
