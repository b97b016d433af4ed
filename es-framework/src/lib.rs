//! Event sourcing for Rust: typed aggregates and projections over a durable stream store.
//!
//! It is *not* a server, a message broker or an ORM, and has effects on other systems only through your own reactors.
//! This crate contains the typed layer, the contract of the log and an in-memory engine; the engine for data that must
//! last is `es-sqlite`.
//!
//! ```
//! use es_framework::{Aggregate, Apply, Envelope, Event, ExecuteError, MemoryStore, Repository, commands};
//!
//! #[derive(Debug, Clone, Event)]
//! enum AccountEvent {
//!     #[es(name = "account.deposited")]
//!     Deposited { cents: u64 },
//!     #[es(name = "account.withdrawn")]
//!     Withdrawn { cents: u64 },
//! }
//!
//! #[derive(Debug, Default, Clone, Aggregate)]
//! #[es(category = "account", event = AccountEvent)]
//! struct Account {
//!     cents: u64,
//! }
//!
//! impl Apply for Account {
//!     fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
//!         match event {
//!             AccountEvent::Deposited { cents } => self.cents += cents,
//!             AccountEvent::Withdrawn { cents } => self.cents -= cents,
//!         }
//!     }
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("there are only {0} cents")]
//! struct TooLittle(u64);
//!
//! struct Deposit(u64);
//! struct Withdraw(u64);
//!
//! #[commands(error = TooLittle)]
//! impl Account {
//!     fn deposit(&self, command: &Deposit) -> AccountEvent {
//!         AccountEvent::Deposited { cents: command.0 }
//!     }
//!
//!     fn withdraw(&self, command: &Withdraw) -> Result<AccountEvent, TooLittle> {
//!         if self.cents < command.0 { Err(TooLittle(self.cents)) } else { Ok(AccountEvent::Withdrawn { cents: command.0 }) }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let accounts = Repository::<Account>::new(MemoryStore::new());
//! accounts.execute("alice", Deposit(500)).await?;
//! let receipt = accounts.execute("alice", Withdraw(200)).await?;
//! assert_eq!(receipt.state.cents, 300);
//!
//! let rejected = accounts.execute("alice", Withdraw(900)).await.unwrap_err();
//! assert!(matches!(rejected, ExecuteError::Rejected(TooLittle(300))));
//! # Ok(()) }
//! ```
//!
//! # By task
//!
//! | to … | see |
//! |---|---|
//! | define events | [`Event`](derive@Event), [`Recorded`], [`Envelope`] |
//! | fold events into state | [`Aggregate`](derive@Aggregate), [`Apply`] |
//! | decide on commands | [`commands`](macro@commands), [`Handle`], [`HandledBy`], [`IntoDecision`], [`Context`] |
//! | decide over several aggregates and views | [`Decide`], [`View`](derive@View), [`Events`], [`Current`], [`Decision`], [`Decided`] |
//! | load and execute | [`Repository`], [`Execute`], [`Receipt`], [`Folded`] |
//! | record where a command comes from | [`Provenance`] |
//! | save state | [`Snapshots`], [`SnapshotPolicy`], [`Progress`] |
//! | turn values into bytes | [`Codec`], `Bincode`, `Json`, [`Shape`] |
//! | build read models | [`Projector`], [`Projection`], [`Running`], [`StateModel`] |
//! | build them anew | [`Projection::rebuild`], [`Store::rebuilds`], [`OnChange`], [`RebuildProgress`] |
//! | build them in the transactions of appends | [`Projection::inline`], [`Inline`], [`InlineModel`] |
//! | keep read models elsewhere | [`ReadModel`], [`Batch`], [`CheckpointRecord`] |
//! | have effects outside the store | [`Reactor`], [`Reaction`], [`Effect`], [`EffectKey`] |
//! | let commands follow from events | [`ProcessManager`], [`Process`], [`Actions`], [`Correlation`], [`OnRejection`] |
//! | decide what a consumer does about failures | [`Policy`], [`Backoff`], [`Then`], [`Category`], [`ParkedEvent`] |
//! | watch and control consumers | [`Running`], [`Status`], [`ConsumerState`], [`Store::consumer`], [`StoredStatus`], [`Wished`] |
//! | run many consumers, or one in many processes | [`Store::consumers`], [`ConsumerSet`], [`Lease`], [`StartFrom`] |
//! | open a store, use streams | [`Store`], [`Stream`], [`MemoryStore`] |
//! | write | [`CandidateEvent`], [`IntoCandidates`], [`ExpectedVersion`], [`Append`], [`Appended`], [`Limits`] |
//! | tag events, and find them by tags | [`Tag`], [`Query`], [`Criterion`], [`Filter::query`] |
//! | write only if nothing that matters was written since | [`Append::unless`], [`AppendCondition`], [`Conflict`] |
//! | write idempotently | [`EventId`], [`CommandKey`], [`Outcome`] |
//! | read, watch and write typed events | [`TypedReader`], [`TypedReading`], [`TypedWatchBuilder`], [`TypedWatch`], [`WriteEventsError`] |
//! | read | [`Reader`], [`Reading`], [`StoredEvent`], [`Filter`], [`AsOf`] |
//! | watch | [`WatchBuilder`], [`Watch`] |
//! | locate an event | [`Version`], [`Position`], [`Place`], [`Timestamp`] |
//! | test decisions | [`Scenario`], [`DecisionScenario`] |
//! | handle errors | [`ErrorKind`], [`AppendError`], [`StoreError`], [`ExecuteError`], [`DecisionError`], [`RunError`] |
//! | measure and trace | [`Store::observe`], the module [`observe`] |
//! | read payloads without their Rust types | [`inspect`] |
//! | keep small values next to the log | [`Cell`], [`ListCells`], [`Append::set_cell`] |
//! | test what you build on it | `testing`, with the feature of that name |
//! | write an engine | [`Engine`], the module [`engine`] |
//!
//! Start with [`Repository`] for the typed layer, with [`Store`] for the log alone, and with [`Projection`] for read
//! models. The guides are in the repository's `docs` folder.
//!
//! # Runtime
//!
//! The futures of this crate run on any executor and do not use its timers. One thing needs [tokio]'s runtime:
//! [`Projection::start`] (like [`Reaction::start`] and [`Process::start`]), which spawns a task and returns
//! [`RunError::NoRuntime`] if no runtime is current. The timeout of [`Running::reached`] is real time on every executor,
//! even where tokio's time is paused.
//!
//! [tokio]: https://docs.rs/tokio
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `bincode` (default) | the codec `Bincode`, the default for events and snapshots |
//! | `json` | the codec `Json`, for human-readable payloads |
//! | `testing` | the module `testing`: a clock that is turned by hand, faults on purpose, the laws of projectors |
//!
//! A feature adds API and never changes behaviour: without `bincode`, a type that names no codec does not compile.

mod consumer;
mod domain;
pub mod engine;
mod log;
mod panics;
mod process;
mod projection;
mod reactor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// The store: handles, and the engine in memory.
pub use log::{Engine, MemoryStore, Store, Stream, StreamMetrics};
// Names and places.
pub use log::{
    CellKey, Clock, CommandKey, EventId, EventIdKind, InvalidName, MAX_NAME_BYTES, MAX_TAGS, Place, Position,
    ProjectionName, StoreId, StreamHead, StreamId, StreamState, SystemClock, Tag, Tags, Timestamp, Turned, Version,
};
// Writing.
pub use log::{
    Append, AppendCondition, Appended, CandidateEvent, CommandRecord, EventType, ExpectedVersion, Fingerprint,
    IntoCandidates, InvalidMetadata, KeyedCommand, Limits, MAX_CELLS, MAX_CONDITIONS, Metadata, Outcome,
    StreamAppended, StreamWrite, WhenFull,
};
// Reading and watching.
pub use log::{
    AsOf, Clause, EventHeader, Field, Filter, ListStreams, Path, Reader, Reading, Scalar, StoredEvent, StreamInfo,
    Watch, WatchBuilder,
};
// Queries over types and tags.
pub use log::{Criterion, InvalidQuery, MAX_CRITERIA, MAX_CRITERION_TYPES, Query};
// Small values stored next to the log.
pub use log::{Cell, CellWrite, ListCells, Mark, Snapshot};
// Errors of the log.
pub use log::{AppendError, BoxError, CellError, Conflict, ErrorKind, InvalidAppend, SnapshotError, StoreError};

// The typed layer: events, aggregates, commands.
pub use domain::{
    Aggregate, Apply, Bincode, Codec, CodecError, Command, Context, DecodeError, EncodeError, Envelope, Event, Execute,
    ExecuteError, FoldPanic, Folded, Handle, HandledBy, IntoDecision, Json, KeyError, LoadError, NamesStream, Progress,
    Provenance, Receipt, Recorded, Repository, RepositoryBuilder, RepositoryMetrics, Scenario, Shape, SnapshotPolicy,
    Snapshots, State, StateError, TypedReader, TypedReading, TypedWatch, TypedWatchBuilder, WriteEventsError, commands,
};

// Decisions over several aggregates and views.
pub use domain::{
    Boundary, Current, Decide, DecideContext, Decided, Decision, DecisionError, DecisionScenario, Events, EventsError,
    Over, States, View, ViewOf,
};

// Consumers of the log: what they do about failures, how they are watched and controlled.
pub use consumer::{
    Backoff, Category, Checkpoint, CheckpointRecord, ConsumerRef, ConsumerSet, ConsumerState, Consumers, ControlError,
    Failure, IllegalTransition, Lease, ModelError, ParkedEvent, ParkedFailure, Policy, ReactionError, RebuildProgress,
    Retried, RunError, Running, StartFrom, Startable, Status, StopError, StoredStatus, Then, WaitError, WishError,
    Wished,
};
// Effects outside the store.
pub use reactor::{Effect, EffectKey, Reaction, Reactor};
// Processes over several aggregates.
pub use process::{
    Actions, Correlation, Instance, Issuing, OnRejection, Process, ProcessError, ProcessManager, Rejected, Sendable,
    Timeout,
};
// Read models.
pub use projection::{
    Batch, Cleared, Inline, InlineModel, OnChange, Projected, Projection, Projector, ReadModel, Rebuilds, StateModel,
    StateTx,
};

/// For those who measure a store: what it tells an observer.
pub mod observe {
    pub use crate::log::observer::{
        AlreadyObserved, AppendOutcome, AppendReport, BatchBegins, BatchReport, CommitReport, ExecuteOutcome,
        ExecuteReport, FailureReport, LoadReport, Observer, ParkReport, PublishReport, SnapshotResult, TraceContext,
    };
}

/// For tools: what a store contains, whether it is intact, and payloads decoded without their Rust types.
pub mod inspect {
    pub use crate::domain::inspect::*;
    pub use crate::log::inspect::*;
}

#[doc(hidden)]
pub mod __private {
    pub use crate::domain::payload::*;
}
