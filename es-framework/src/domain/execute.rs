//! Executing one command.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tracing::Instrument;

use super::aggregate::{Aggregate, Handle};
use super::canonical::canonical;
use super::command::Command;
use super::decide::Decision;
use super::event::{DecodeError, EncodeError};
use super::fold::FoldPanic;
use super::provenance::Provenance;
use super::repository::{LoadError, Repository};
use crate::log::{
    AppendError, BoxError, CommandKey, Conflict, ErrorKind, ExpectedVersion, Fingerprint, InvalidMetadata, InvalidName,
    KeyedCommand, Position, StreamId, Timestamp, Version, check_name,
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
/// # #[derive(Serialize, Command)] #[es(name = "account.deposit")] struct Deposit { cents: u64 }
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
    provenance: Option<Provenance>,
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

/// A command that was not executed: rejected by the domain, lost to other writers, or failed. Nothing was written, but for
/// [`Self::WrittenUnfoldable`].
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
        /// How often the command was tried, this time included.
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
    /// An event on which `apply` or the event's decoding panics was not written, for its aggregate could never be loaded
    /// again.
    #[error("an event that could never be folded was not written")]
    Unfoldable(#[source] FoldPanic),
    /// The events *were* written, and `apply` panicked on one of them, although it had not on the same event with a guess
    /// of its position and time. The aggregate cannot be loaded until `apply` is mended.
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

impl<'r, A: Aggregate, C> Execute<'r, A, C> {
    pub(super) fn new(repository: &'r Repository<A>, id: A::Id, command: C) -> Self {
        Self { repository, id, command, key: None, provenance: None, expected: ExpectedVersion::Any }
    }

    /// Executes the command at most once under this key, which is unique in the store: again, it writes nothing and
    /// returns what it returned first. Rejections are not remembered.
    ///
    /// The store keeps the command's [name](Command::NAME) and fingerprint with the key, and the key with another
    /// fingerprint is refused. The fingerprint is made of the aggregate's stream, the command's name and its data as serde
    /// sees it. These changes to a command keep it: another name of the Rust type, another order of fields or variants, a
    /// wider integer, a newtype around a value. Everything else makes another command, `None` instead of `Some(None)` too,
    /// or a field that was added. The order of a map's entries makes no difference; a set that has no order of its own,
    /// such as `HashSet`, serializes as a sequence in an order that differs by chance: use `BTreeSet`.
    ///
    /// A type that has a form for people (`is_human_readable`), such as an address, is taken in that form.
    pub fn key<K>(mut self, key: K) -> Self
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Command + Serialize,
    {
        self.key = Some(self.command_under(key));
        self
    }

    fn command_under<K>(&self, key: K) -> Result<KeyedCommand, KeyError>
    where
        K: TryInto<CommandKey>,
        InvalidName: From<K::Error>,
        C: Command + Serialize,
    {
        let key = key.try_into().map_err(InvalidName::from)?;
        check_name("command name", C::NAME)?;
        let fingerprint = fingerprint(&A::stream_id(&self.id)?, &self.command)?;
        Ok(KeyedCommand::new(key, fingerprint).named(C::NAME))
    }

    /// Executes the command only on the version that whoever sends it has seen, as `If-Match` does in HTTP, or only on an
    /// aggregate that is new or that exists. Otherwise it is an [`ExecuteError::Conflict`], without another try.
    pub fn expecting(mut self, expected: impl Into<ExpectedVersion>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says where the command comes from. It is written as metadata beside each of its events, with the command's
    /// [name](Command::NAME) under the key [`Provenance::COMMAND`], so that the log says which command wrote an event.
    /// [`Provenance::new`] writes the name alone.
    pub fn provenance(mut self, provenance: Provenance) -> Self
    where
        C: Command,
    {
        self.provenance = Some(provenance.with(Provenance::COMMAND, C::NAME));
        self
    }
}

/// What tells a command from every other one.
fn fingerprint<C: Command + Serialize>(stream: &StreamId, command: &C) -> Result<Fingerprint, KeyError> {
    let refused = |error| KeyError::Fingerprint { source: Box::new(error) };
    canonical(&(stream, C::NAME, command)).map(|bytes| Fingerprint::of(&bytes)).map_err(refused)
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

impl<A, C> Execute<'_, A, C>
where
    A: Handle<C>,
    C: Send + Sync,
{
    async fn run(self) -> Result<Receipt<A>, ExecuteError<A::Error>> {
        let Self { repository, id, command, key, provenance, expected } = self;
        let stream = A::stream_id(&id).map_err(LoadError::from)?;
        let mut decision = Decision::new(&repository.inner, &stream, &id, &command);
        decision.key = key.transpose()?;
        decision.metadata = provenance.map_or(Ok(None), |provenance| provenance.to_metadata())?;
        decision.expected = expected;
        decision.execute().await
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
