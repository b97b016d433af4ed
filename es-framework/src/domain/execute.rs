//! Executing one command.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tracing::Instrument;

use super::aggregate::{Aggregate, Context, Handle};
use super::cache::Base;
use super::event::{DecodeError, EncodeError, Event};
use super::provenance::Provenance;
use super::repository::{Inner, LoadError, Repository};
use crate::log::{
    Append, AppendError, Appended, CandidateEvent, CommandKey, Conflict, ErrorKind, EventId, ExpectedVersion,
    Fingerprint, InvalidMetadata, InvalidName, KeyedCommand, Metadata, Position, StoredEvent, StreamId, Timestamp,
    Version,
};

/// A command that is about to be executed; await it.
///
/// ```
/// # use es_framework::*;
/// # use serde::Serialize;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
/// #     let AccountEvent::Deposited { cents } = event; self.cents += cents; } }
/// # #[derive(Serialize)] struct Deposit { cents: u64 }
/// # impl Handle<Deposit> for Account { type Error = std::convert::Infallible;
/// #     fn handle(&self, command: &Deposit, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Self::Error> {
/// #         Ok(vec![AccountEvent::Deposited { cents: command.cents }]) } }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let accounts = Repository::<Account>::new(&MemoryStore::new());
/// for _ in 0..2 {
///     // The same key again writes nothing and answers what the first one answered.
///     let receipt = accounts
///         .execute("alice", Deposit { cents: 500 })
///         .key("payment-17")
///         .provenance(Provenance::new().actor("alice"))
///         .await?;
///     assert_eq!(receipt.state.cents, 500);
/// }
/// # Ok(()) }
/// ```
#[must_use = "a command is executed when it is awaited"]
pub struct Execute<'r, A: Aggregate, C> {
    repository: &'r Repository<A>,
    id: A::Id,
    command: C,
    key: Option<Result<KeyedCommand, KeyError>>,
    provenance: Provenance,
    expected: ExpectedVersion,
}

/// What a command did.
pub struct Receipt<A> {
    /// The state after it.
    pub state: Arc<A>,
    /// The version of the aggregate after it.
    pub version: Version,
    /// The position of its last event; without events, the head of the log when it was decided. A projection that has
    /// reached it has seen everything the command did.
    pub position: Position,
    /// The time of its last event; without events, the time it was decided.
    pub time: Timestamp,
    /// How many events it wrote.
    pub events: usize,
    /// Whether the command had been executed before, under the same key, and nothing was written now.
    pub was_known: bool,
}

impl<A: fmt::Debug> fmt::Debug for Receipt<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("state", &self.state)
            .field("version", &self.version)
            .field("position", &self.position)
            .field("time", &self.time)
            .field("events", &self.events)
            .field("was_known", &self.was_known)
            .finish()
    }
}

/// A command that was not executed: rejected by the domain, lost to other writers, or failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E: std::error::Error + 'static> {
    /// The aggregate rejected the command.
    #[error(transparent)]
    Rejected(E),
    /// Other writers were faster each time: try again later, or make the aggregate smaller. Or the version was not the one
    /// the caller [expected](Execute::expecting): load, and ask whoever sent the command.
    #[error("{conflict}, after {tries} tries")]
    Conflict {
        /// How often the command was decided.
        tries: u32,
        /// The last conflict.
        conflict: Conflict,
    },
    /// The aggregate could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An event was encoded to something that cannot be decoded again, so it was not written: mend its serde attributes or
    /// choose another codec.
    #[error("an event that could never be read again was not written")]
    Unreadable(#[source] DecodeError),
    /// The events could not be written.
    #[error(transparent)]
    Append(AppendError),
    /// The command's key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The provenance cannot be written as metadata.
    #[error(transparent)]
    Provenance(#[from] InvalidMetadata),
}

impl<E: std::error::Error + 'static> ExecuteError<E> {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) | Self::Key(_) | Self::Provenance(_) | Self::Encode(_) | Self::Unreadable(_) => {
                ErrorKind::Caller
            }
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Load(error) => error.kind(),
            Self::Append(error) => error.kind(),
        }
    }

    /// The domain's rejection, if that is what it is.
    pub fn rejection(&self) -> Option<&E> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }
}

/// A command key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is no valid name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The command cannot be written as JSON, from which its fingerprint is made.
    #[error("a command with a key must serialize to JSON, for its fingerprint")]
    Fingerprint {
        /// What the serializer said.
        source: serde_json::Error,
    },
}

impl<'r, A: Aggregate, C> Execute<'r, A, C> {
    pub(super) fn new(repository: &'r Repository<A>, id: A::Id, command: C) -> Self {
        let (provenance, expected) = (Provenance::new(), ExpectedVersion::Any);
        Self { repository, id, command, key: None, provenance, expected }
    }

    /// Executes the command at most once under this key, which is unique in the store: again, it writes nothing and
    /// answers what it answered first. Rejections are not remembered.
    ///
    /// The command's fingerprint (of the aggregate's stream and the command as JSON) is remembered with the key; the key
    /// with another fingerprint is refused. A set without an order of its own, such as `HashSet`, makes a fingerprint that
    /// differs by chance: use `BTreeSet`.
    pub fn key<K>(mut self, key: K) -> Self
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Serialize,
    {
        self.key = Some(self.command_under(key));
        self
    }

    fn command_under<K>(&self, key: K) -> Result<KeyedCommand, KeyError>
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Serialize,
    {
        let key = key.try_into().map_err(InvalidName::from)?;
        let stream = A::stream_id(&self.id)?;
        // As a value, whose objects are sorted: a `HashMap` writes its entries in another order each time.
        let command = serde_json::to_value(&self.command).map_err(|source| KeyError::Fingerprint { source })?;
        Ok(KeyedCommand::new(key, Fingerprint::of(format!("{stream}\n{command}").as_bytes())))
    }

    /// Executes the command only on the version that whoever sends it has seen, as `If-Match` does in HTTP, or only on an
    /// aggregate that is new or that exists. Otherwise it is an [`ExecuteError::Conflict`], without another try.
    pub fn expecting(mut self, expected: impl Into<ExpectedVersion>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says where the command comes from; it is written as metadata beside each of its events.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }
}

impl<'r, A, C> IntoFuture for Execute<'r, A, C>
where
    A: Handle<C>,
    C: Send + Sync + 'r,
{
    type Output = Result<Receipt<A>, ExecuteError<A::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'r>>;

    fn into_future(self) -> Self::IntoFuture {
        let span = tracing::debug_span!("execute", aggregate = A::CATEGORY, id = %self.id);
        Box::pin(self.run().instrument(span))
    }
}

/// What a decision led to.
enum Step<A> {
    Done(Receipt<A>),
    /// The state was not the newest; decide again.
    Again(Conflict),
}

impl<A, C> Execute<'_, A, C>
where
    A: Handle<C>,
    C: Send + Sync,
{
    async fn run(self) -> Result<Receipt<A>, ExecuteError<A::Error>> {
        let Self { repository, id, command, key, provenance, expected } = self;
        let inner = &repository.inner;
        let stream = A::stream_id(&id).map_err(LoadError::from)?;
        let decision = Decision {
            inner,
            stream: &stream,
            id: &id,
            command: &command,
            key: key.transpose()?,
            metadata: provenance.to_metadata()?,
            expected,
        };
        let slot = inner.slot(&stream);
        let mut slot = slot.lock().await;
        inner.count_cache(slot.is_some());
        // Taken out while it changes, so that a dropped or failed command leaves no half-changed state behind.
        let (mut base, mut fresh) = match slot.take() {
            Some(base) => (base, false),
            None => (inner.load(&stream, None).await?, true),
        };
        let mut tries = 1;
        loop {
            let step = match decision.decide(&mut base, fresh).await {
                Ok(step) => step,
                Err(error) => {
                    // Every error comes before the state is changed, so it can be used again.
                    *slot = Some(base);
                    return Err(error);
                }
            };
            match step {
                Step::Done(receipt) => {
                    inner.save_if_due(&stream, &base);
                    *slot = Some(base);
                    return Ok(receipt);
                }
                Step::Again(conflict) if tries >= inner.tries => {
                    return Err(ExecuteError::Conflict { tries, conflict });
                }
                Step::Again(_) => {
                    tries += 1;
                    inner.count_conflict();
                    inner.refresh(&stream, &mut base).await?;
                    fresh = true;
                }
            }
        }
    }
}

struct Decision<'a, A: Aggregate, C> {
    inner: &'a Arc<Inner<A>>,
    stream: &'a StreamId,
    id: &'a A::Id,
    command: &'a C,
    key: Option<KeyedCommand>,
    metadata: Option<Metadata>,
    expected: ExpectedVersion,
}

impl<A, C> Decision<'_, A, C>
where
    A: Handle<C>,
    C: Send + Sync,
{
    async fn decide(&self, base: &mut Base<A>, fresh: bool) -> Result<Step<A>, ExecuteError<A::Error>> {
        if !self.expected.holds(base.version) {
            if let Some(receipt) = self.executed_before(base).await? {
                return Ok(Step::Done(receipt));
            }
            let conflict = Conflict::new(self.stream.clone(), self.expected, base.version);
            return if fresh { Err(ExecuteError::Conflict { tries: 1, conflict }) } else { Ok(Step::Again(conflict)) };
        }
        let context = Context::new(self.id, base.version, self.inner.store.now());
        let events = match base.state.handle(self.command, &context) {
            Ok(events) => events,
            Err(rejection) => {
                // It may be rejected only because it was executed before: then the first outcome is the answer.
                if let Some(receipt) = self.executed_before(base).await? {
                    return Ok(Step::Done(receipt));
                }
                if fresh {
                    return Err(ExecuteError::Rejected(rejection));
                }
                return match self.append(base.version, Vec::new(), None).await? {
                    Ok(_) => Err(ExecuteError::Rejected(rejection)),
                    Err(conflict) => Ok(Step::Again(conflict)),
                };
            }
        };
        let candidates = events
            .iter()
            .map(|event| Ok(event.encode()?.with_metadata(self.metadata.clone())))
            .collect::<Result<Vec<_>, EncodeError>>()?;
        // What is applied now is what will be read back later, and what could not be read back is never written.
        let events = candidates.iter().map(|candidate| self.read_back(candidate)).collect::<Result<Vec<_>, _>>()?;
        let appended = match self.append(base.version, candidates.clone(), self.key.clone()).await? {
            Ok(appended) => appended,
            Err(conflict) => return Ok(Step::Again(conflict)),
        };
        if appended.was_known() {
            return Ok(Step::Done(self.first_outcome(base, &appended).await?));
        }
        let store = self.inner.store.id();
        let count = candidates.len() as u64;
        let (version, last) = (base.version, appended.position.get());
        // The positions of one append are one block that ends at its last position.
        let written = events.iter().zip(&candidates).zip(1..).map(|((event, candidate), n)| {
            let position = Position::new(last + n - count);
            let stored =
                StoredEvent::new(store, self.stream.clone(), version.plus(n), position, appended.time, candidate);
            (event, stored)
        });
        base.apply_written(written);
        Ok(Step::Done(Receipt {
            state: Arc::clone(&base.state),
            version: base.version,
            position: appended.position,
            time: appended.time,
            events: events.len(),
            was_known: false,
        }))
    }

    fn read_back(&self, candidate: &CandidateEvent) -> Result<A::Event, ExecuteError<A::Error>> {
        let (id, event_type) = (EventId::derived(self.inner.store.id(), Position::ZERO), candidate.event_type());
        let stored = StoredEvent::from_stored(
            self.stream.clone(),
            Version::ZERO,
            Position::ZERO,
            Timestamp::default(),
            id,
            Arc::clone(event_type),
            candidate.payload().clone(),
            None,
            0,
        );
        A::Event::decode(&stored).map_err(ExecuteError::Unreadable)
    }

    async fn append(
        &self,
        version: Version,
        events: Vec<CandidateEvent>,
        key: Option<KeyedCommand>,
    ) -> Result<Result<Appended, Conflict>, ExecuteError<A::Error>> {
        let mut append = Append::to(self.stream.clone(), ExpectedVersion::Exact(version), events);
        append.command = key;
        match self.inner.store.append(append).await {
            Ok(appended) => Ok(Ok(appended)),
            Err(AppendError::Conflict { mut conflicts }) if conflicts.len() == 1 => Ok(Err(conflicts.remove(0))),
            Err(error) => Err(ExecuteError::Append(error)),
        }
    }

    /// The first outcome of the command, if its key is known.
    async fn executed_before(&self, base: &mut Base<A>) -> Result<Option<Receipt<A>>, ExecuteError<A::Error>> {
        let Some(command) = &self.key else { return Ok(None) };
        let record = self.inner.store.command(&command.key).await.map_err(LoadError::from)?;
        match record {
            None => Ok(None),
            Some(record) if record.command.fingerprint != command.fingerprint => {
                Err(ExecuteError::Append(AppendError::CommandKeyReused { key: command.key.clone() }))
            }
            Some(record) => self.first_outcome(base, &record.appended).await.map(Some),
        }
    }

    async fn first_outcome(
        &self,
        base: &mut Base<A>,
        appended: &Appended,
    ) -> Result<Receipt<A>, ExecuteError<A::Error>> {
        let version = appended.version();
        let state = if version == base.version {
            Arc::clone(&base.state)
        } else {
            self.inner.load(self.stream, Some(version)).await?.state
        };
        Ok(Receipt {
            state,
            version,
            position: appended.position,
            time: appended.time,
            events: appended.streams.first().map_or(0, |stream| stream.written),
            was_known: true,
        })
    }
}

impl<A: Aggregate, C: fmt::Debug> fmt::Debug for Execute<'_, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execute")
            .field("aggregate", &A::CATEGORY)
            .field("id", &self.id.to_string())
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}
