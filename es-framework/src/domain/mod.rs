//! The upper floor: the domain.

mod aggregate;
mod cache;
mod canonical;
mod codec;
mod command;
mod decide;
mod event;
mod execute;
mod fold;
pub(crate) mod payload;
mod provenance;
mod repository;
mod saving;
mod scenario;
mod shape;
mod snapshots;
mod turns;
mod typed_read;

#[doc = include_str!("aggregate.md")]
pub use es_derive::Aggregate;
#[doc = include_str!("command.md")]
pub use es_derive::Command;
#[doc = include_str!("event.md")]
pub use es_derive::Event;

pub use aggregate::{Aggregate, Apply, Context, Handle, Progress, SnapshotPolicy, Snapshots};
#[cfg(feature = "bincode")]
pub use codec::Bincode;
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError};
pub use command::Command;
pub use event::{DecodeError, EncodeError, Envelope, Event, Recorded};
pub use execute::{Execute, ExecuteError, KeyError, Receipt};
pub use fold::FoldPanic;
pub use provenance::Provenance;
pub use repository::{Folded, LoadError, Repository, RepositoryBuilder, RepositoryMetrics};
pub use scenario::Scenario;
pub use shape::Shape;
