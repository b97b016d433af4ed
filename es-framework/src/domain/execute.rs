//! Executing one command.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Instant;

use serde::Serialize;
use tracing::Instrument;

use super::aggregate::{Aggregate, Apply, Context, HandledBy, State};
use super::canonical::canonical;
use super::command::Command;
use super::commands_enum::Content;
use super::decide::{Decision, Seen};
use super::event::{DecodeError, EncodeError};
use super::fold::FoldPanic;
use super::provenance::Provenance;
use super::repository::{LoadError, Repository};
use crate::log::observer::{ExecuteOutcome, ExecuteReport};
use crate::log::{
    AppendError, BoxError, CommandKey, Conflict, ErrorKind, ExpectedVersion, Fingerprint, InvalidMetadata, InvalidName,
    KeyedCommand, Position, StreamId, Timestamp, Version, check_name,
};

/// A command to execute; await it.
///
/// ```
/// # use es_framework::*;
/// # use serde::Serialize;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
/// #     let AccountEvent::Deposited { cents } = event; self.cents += cents; } }
/// # #[derive(Serialize, Command)] #[es(name = "account.deposit")] struct Deposit { cents: u64 }
/// # #[commands] impl Account { fn deposit(&self, command: &Deposit) -> AccountEvent {
/// #     AccountEvent::Deposited { cents: command.cents } } }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let accounts = Repository::<Account>::new(&MemoryStore::new());
/// for _ in 0..2 {
///     // The second call with the same key writes nothing and returns what the first one returned.
///     let receipt = accounts
///         .execute("alice", Deposit { cents: 500 })
///         .key("payment-17")
///         .provenance(Provenance::new().actor("alice"))
///         .await?;
///     assert_eq!(receipt.state.cents, 500);
/// }
/// # Ok(()) }
/// ```
#[must_use = "a command is executed when it is awaited: `.execute(…).await`"]
pub struct Execute<'r, A: Aggregate, C, E: std::error::Error + 'static, S: ?Sized = ()> {
    /// The request, until the first poll.
    asked: Option<Asked<'r, A, C, E, S>>,
    running: Option<Running<'r, A, E>>,
}

type Running<'r, A, E> = Pin<Box<dyn Future<Output = Result<Receipt<A>, ExecuteError<E>>> + Send + 'r>>;

/// A command with its options.
struct Asked<'r, A: Aggregate, C, E, S: ?Sized> {
    repository: &'r Repository<A>,
    id: A::Id,
    command: C,
    services: &'r S,
    /// [`HandledBy::decided_by`].
    decided_by: DecidedBy<A, C, E, S>,
    key: Option<Result<KeyedCommand, KeyError>>,
    provenance: Option<Provenance>,
    expected: ExpectedVersion,
}

type DecidedBy<A, C, E, S> = for<'c> fn(&'c C, &'c A, &'c Context<'_, A, S>) -> Result<Vec<<A as State>::Event>, E>;

/// The outcome of a command.
pub struct Receipt<A> {
    /// The state after it.
    pub state: Arc<A>,
    /// The version of the aggregate after it.
    pub version: Version,
    /// The position of its last event; without events, the head of the log when it was decided. A projection that has
    /// reached it has processed everything the command did.
    pub position: Position,
    /// The time of its last event; without events, the time it was decided.
    pub time: Timestamp,
    /// The number of events it wrote.
    pub events: usize,
    /// Whether the command had already been executed under the same key, so that nothing was written now.
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

/// A command that was not executed: rejected by the domain, lost to other writers, or failed. Nothing was written,
/// except for [`Self::WrittenUnfoldable`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E: std::error::Error + 'static> {
    /// The aggregate rejected the command.
    #[error(transparent)]
    Rejected(E),
    /// Other writers were faster each time: try again later, or make the aggregate smaller. Or the version was not the
    /// one that the caller [expected](Execute::expecting): load the aggregate, and let the sender of the command
    /// decide.
    #[error("{conflict}, after {tries} tries")]
    Conflict {
        /// How many times the command was tried, this time included.
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
    /// An encoded event could not be decoded, so it was not written: fix its serde attributes or choose another codec.
    #[error("an event that could never be read again was not written")]
    Unreadable(#[source] DecodeError),
    /// An event on which `apply` or decoding panics was not written, because its aggregate could never be loaded again.
    #[error("an event that could never be folded was not written")]
    Unfoldable(#[source] FoldPanic),
    /// The events *were* written, but `apply` panicked on one of them, although it had not panicked on the same event
    /// with a guessed position and time. The aggregate cannot be loaded until `apply` is fixed.
    #[error("the events up to version {version} were written, but cannot be folded")]
    WrittenUnfoldable {
        /// The version of the last event.
        version: Version,
        /// The position of the last event.
        position: Position,
        /// What panicked.
        source: FoldPanic,
    },
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
            Self::Rejected(_)
            | Self::Key(_)
            | Self::Provenance(_)
            | Self::Encode(_)
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

/// A command key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key, or the command's stored name, is not a valid name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The command's own `Serialize` returned an error, so it has no fingerprint.
    #[error("a command with a key must serialize, for its fingerprint")]
    Fingerprint {
        /// The error of its `Serialize`.
        source: BoxError,
    },
}

impl<'r, A: Aggregate, C, E: std::error::Error + 'static, S: ?Sized> Execute<'r, A, C, E, S> {
    pub(super) fn new(repository: &'r Repository<A>, id: A::Id, command: C, services: &'r S) -> Self
    where
        C: HandledBy<A, S, Error = E>,
    {
        let asked = Asked {
            repository,
            id,
            command,
            services,
            decided_by: C::decided_by,
            key: None,
            provenance: None,
            expected: ExpectedVersion::Any,
        };
        Self { asked: Some(asked), running: None }
    }

    fn with(mut self, change: impl FnOnce(&mut Asked<'r, A, C, E, S>)) -> Self {
        if let Some(asked) = &mut self.asked {
            change(asked);
        }
        self
    }

    /// Executes the command at most once under this key, which is unique in the store: a repeated command writes
    /// nothing and returns what the first one returned. Rejections are not remembered.
    ///
    /// The store keeps the command's [name](Command::NAME) and fingerprint with the key, and refuses the key with
    /// another fingerprint. The fingerprint covers the aggregate's stream, the command's name and its data as serde
    /// sees it. These changes to a command keep it: renaming the Rust type, reordering fields or variants, widening an
    /// integer, wrapping a value in a newtype. Everything else makes it another command, including `None` instead of
    /// `Some(None)` and an added field. The order of a map's entries makes no difference. A set without an order of its
    /// own, such as `HashSet`, serializes as a sequence in random order: use `BTreeSet`.
    ///
    /// A type with a human-readable representation (`is_human_readable`), such as an address, is fingerprinted in that
    /// one.
    pub fn key<K>(self, key: K) -> Self
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Command + Serialize,
    {
        self.with(|asked| asked.key = Some(asked.command_under(key)))
    }

    /// Executes the command only on the version that its sender has seen, like `If-Match` in HTTP, or only on an
    /// aggregate that is new or that exists. Otherwise it fails with [`ExecuteError::Conflict`], without another try.
    pub fn expecting(self, expected: impl Into<ExpectedVersion>) -> Self {
        self.with(|asked| asked.expected = expected.into())
    }

    /// Sets where the command comes from. It is written as the metadata of each of its events, with the command's
    /// [name](Command::NAME) under the key [`Provenance::COMMAND`], so that the log shows which command wrote an event.
    /// [`Provenance::new`] writes only the name.
    pub fn provenance(self, provenance: Provenance) -> Self
    where
        C: Command,
    {
        self.with(|asked| asked.provenance = Some(provenance.with(Provenance::COMMAND, asked.command.name())))
    }
}

impl<A: Aggregate, C, E, S: ?Sized> Asked<'_, A, C, E, S> {
    fn command_under<K>(&self, key: K) -> Result<KeyedCommand, KeyError>
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Command + Serialize,
    {
        let key = key.try_into().map_err(InvalidName::from)?;
        let name = self.command.name();
        check_name("command name", name)?;
        let fingerprint = fingerprint(&A::stream_id(&self.id)?, &self.command)?;
        Ok(KeyedCommand::new(key, fingerprint).named(name))
    }
}

/// Distinguishes a command from every other one. An enum of commands counts as the command inside.
pub(crate) fn fingerprint<C: Command + Serialize>(stream: &StreamId, command: &C) -> Result<Fingerprint, KeyError> {
    let refused = |error| KeyError::Fingerprint { source: Box::new(error) };
    canonical(&(stream, command.name(), Content(command))).map(|bytes| Fingerprint::of(&bytes)).map_err(refused)
}

impl<'r, A, C, E, S> Asked<'r, A, C, E, S>
where
    A: Aggregate + Apply,
    C: Send + Sync + 'r,
    E: std::error::Error + Send + Sync + 'static,
    S: ?Sized + Sync,
{
    fn begin(self) -> Running<'r, A, E> {
        let span = tracing::debug_span!(
            "execute",
            otel.name = %format_args!("execute {}", A::CATEGORY),
            aggregate = A::CATEGORY,
            id = %self.id
        );
        Box::pin(self.run_observed().instrument(span))
    }

    async fn run_observed(self) -> Result<Receipt<A>, ExecuteError<E>> {
        let store = self.repository.store();
        let begun = store.observed().map(|_| Instant::now());
        let mut seen = Seen::default();
        let result = self.run(&mut seen).await;
        if let (Some(observed), Some(begun)) = (store.observed(), begun) {
            let report = ExecuteReport {
                category: A::CATEGORY,
                outcome: outcome_of(&result),
                events: result.as_ref().map_or(0, |receipt| if receipt.was_known { 0 } else { receipt.events }),
                conflicts: seen.conflicts,
                cached: seen.cached,
                duration: begun.elapsed(),
            };
            observed.tell(|observer| observer.executed(&report));
        }
        result
    }

    async fn run(self, seen: &mut Seen) -> Result<Receipt<A>, ExecuteError<E>> {
        let Self { repository, id, command, services, decided_by, key, provenance, expected } = self;
        let stream = A::stream_id(&id).map_err(LoadError::from)?;
        let decide =
            |state: &A, context: &Context<'_, A>| decided_by(&command, state, &context.with_services(services));
        let mut decision = Decision::new(&repository.inner, &stream, &id, &decide);
        decision.key = key.transpose()?;
        decision.metadata = provenance.map_or(Ok(None), |provenance| provenance.to_metadata())?;
        decision.expected = expected;
        let outcome = decision.execute().await;
        *seen = decision.seen;
        outcome
    }
}

fn outcome_of<A, E: std::error::Error + 'static>(result: &Result<Receipt<A>, ExecuteError<E>>) -> ExecuteOutcome {
    match result {
        Ok(receipt) if receipt.was_known => ExecuteOutcome::Known,
        Ok(_) => ExecuteOutcome::Executed,
        Err(ExecuteError::Rejected(_)) => ExecuteOutcome::Rejected,
        Err(error) if error.kind() == ErrorKind::Conflict => ExecuteOutcome::Conflict,
        Err(_) => ExecuteOutcome::Failed,
    }
}

/// Nothing is borrowed from the future itself.
impl<A: Aggregate, C, E: std::error::Error + 'static, S: ?Sized> Unpin for Execute<'_, A, C, E, S> {}

/// A future rather than [`IntoFuture`], so that the compiler can report a missing `.await`, and so that `join!` accepts
/// it.
impl<'r, A, C, E, S> Future for Execute<'r, A, C, E, S>
where
    A: Aggregate + Apply,
    C: Send + Sync + 'r,
    E: std::error::Error + Send + Sync + 'static,
    S: ?Sized + Sync,
{
    type Output = Result<Receipt<A>, ExecuteError<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(asked) = this.asked.take() {
            this.running = Some(asked.begin());
        }
        let Some(running) = &mut this.running else { return Poll::Pending };
        let outcome = ready!(running.as_mut().poll(context));
        this.running = None;
        Poll::Ready(outcome)
    }
}

impl<A: Aggregate, C: fmt::Debug, E: std::error::Error + 'static, S: ?Sized> fmt::Debug for Execute<'_, A, C, E, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut execute = f.debug_struct("Execute");
        execute.field("aggregate", &A::CATEGORY);
        if let Some(asked) = &self.asked {
            execute.field("id", &asked.id.to_string()).field("command", &asked.command);
        }
        execute.finish_non_exhaustive()
    }
}
