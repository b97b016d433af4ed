//! The upper floor: the domain.

mod aggregate;
mod cache;
mod codec;
mod event;
mod execute;
pub(crate) mod payload;
mod provenance;
mod repository;
mod same_state;
mod scenario;
mod shape;
mod snapshots;
mod state;
mod typed_read;
mod value_fingerprint;

#[doc = include_str!("aggregate.md")]
pub use es_derive::Aggregate;
#[doc = include_str!("event.md")]
pub use es_derive::Event;

pub use aggregate::{Aggregate, Apply, Context, Handle};
#[cfg(feature = "bincode")]
pub use codec::Bincode;
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError};
pub use event::{DecodeError, EncodeError, Envelope, Event, Recorded};
pub use execute::{Execute, ExecuteError, KeyError, Receipt};
pub use provenance::Provenance;
pub use repository::{Folded, LoadError, Repository, RepositoryMetrics};
pub use scenario::Scenario;
pub use shape::Shape;
pub use state::{Progress, SnapshotPolicy, Snapshots, StateError};

/// For tools: what a store holds, readable without the Rust types that wrote it.
pub mod inspect {
    pub use super::shape::{InvalidShape, PayloadError, PayloadJson, StoredShape, payload_to_json};
}
