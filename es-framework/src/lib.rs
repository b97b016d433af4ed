//! Event sourcing for Rust: typed aggregates and projections over a durable stream store.
//!
//! It is *not* a server, a message broker or an ORM, and it has no effects on other systems. This crate holds the typed
//! layer, the contract of the log and an engine in memory; the engine to keep data with is `es-sqlite`.
//!
//! ```
//! use es_framework::{Aggregate, Apply, Context, Envelope, Event, ExecuteError, Handle, MemoryStore, Repository};
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
//!
//! impl Handle<Deposit> for Account {
//!     type Error = std::convert::Infallible;
//!
//!     fn handle(&self, command: &Deposit, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Self::Error> {
//!         Ok(vec![AccountEvent::Deposited { cents: command.0 }])
//!     }
//! }
//!
//! struct Withdraw(u64);
//!
//! impl Handle<Withdraw> for Account {
//!     type Error = TooLittle;
//!
//!     fn handle(&self, command: &Withdraw, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, TooLittle> {
//!         if self.cents < command.0 {
//!             return Err(TooLittle(self.cents));
//!         }
//!         Ok(vec![AccountEvent::Withdrawn { cents: command.0 }])
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
//! | say what happened | [`Event`](derive@Event), [`Recorded`], [`Envelope`] |
//! | fold it into state | [`Aggregate`](derive@Aggregate), [`Apply`] |
//! | decide | [`Handle`], [`Context`] |
//! | load and execute | [`Repository`], [`Execute`], [`Receipt`], [`Folded`] |
//! | say where a command comes from | [`Provenance`] |
//! | save state | [`Snapshots`], [`SnapshotPolicy`], [`Progress`] |
//! | turn values into bytes | [`Codec`], `Bincode`, `Json`, [`Shape`] |
//! | build read models | [`Projector`], [`Projection`], [`Running`], [`StateModel`] |
//! | keep read models elsewhere | [`ReadModel`], [`Checkpoint`], [`Step`] |
//! | open a store, use streams | [`Store`], [`Stream`], [`MemoryStore`] |
//! | write | [`CandidateEvent`], [`ExpectedVersion`], [`Append`], [`Appended`], [`Limits`] |
//! | write once | [`EventId`], [`CommandKey`], [`Outcome`] |
//! | read | [`Reader`], [`Reading`], [`StoredEvent`], [`Filter`], [`AsOf`] |
//! | watch | [`Watcher`], [`Watch`] |
//! | know where an event stands | [`Version`], [`Position`], [`Place`], [`Timestamp`] |
//! | know what went wrong | [`ErrorKind`], [`AppendError`], [`StoreError`], [`ExecuteError`], [`RunError`] |
//! | write an engine | [`Engine`], [`judge`](judge()), [`Notifier`] |
//!
//! Begin with [`Repository`] for the typed layer, with [`Store`] for the log alone, and with [`Projection`] for read models.
//! The guides are in the repository's `docs` folder.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `bincode` (default) | the codec `Bincode`, the default of events and snapshots |
//! | `json` | the codec `Json`, for people who want to read payloads |
//!
//! A feature adds API and never changes behaviour: without `bincode`, what names no codec does not compile.

mod domain;
mod log;
mod projection;

// The ground floor: the log.
pub use log::*;

/// What tools ask of a store: lists of what is in it, and whether all of it is whole.
pub mod inspect {
    pub use crate::log::inspect::*;
}

// The upper floor: the typed layer and what is built from it.
pub use domain::*;
pub use projection::*;

#[doc(hidden)]
pub mod __private {
    pub use crate::domain::payload::*;
}
