//! The upper layer: the domain.

mod aggregate;
mod cache;
mod canonical;
mod codec;
mod command;
mod commands_enum;
mod decide;
mod decision;
mod event;
mod execute;
mod fold;
mod into_decision;
pub(crate) mod payload;
mod provenance;
mod repository;
mod same_state;
mod saving;
mod scenario;
mod shape;
mod snapshots;
mod state;
mod tagging;
mod turns;
mod typed_read;
mod typed_watch;
mod typed_write;
mod value_fingerprint;
mod view;

#[doc = include_str!("aggregate.md")]
pub use es_derive::Aggregate;
#[doc = include_str!("command.md")]
pub use es_derive::Command;
#[doc = include_str!("event.md")]
pub use es_derive::Event;
#[doc = include_str!("view.md")]
pub use es_derive::View;
#[doc = include_str!("commands.md")]
pub use es_derive::commands;

pub use aggregate::{Aggregate, Apply, Context, Handle, HandledBy, State};
pub use codec::{Bincode, Codec, CodecError, Json};
pub use command::Command;
pub use decision::{
    Boundary, Current, Decide, DecideContext, Decided, Decision, DecisionError, DecisionScenario, Events, EventsError,
    Over, States,
};
pub(crate) use event::decode as decode_event;
pub use event::{DecodeError, EncodeError, Envelope, Event, NamesStream, Recorded};
pub(crate) use execute::fingerprint as command_fingerprint;
pub use execute::{Execute, ExecuteError, KeyError, Receipt};
pub use fold::FoldPanic;
pub use into_decision::IntoDecision;
pub use provenance::Provenance;
pub use repository::{Folded, LoadError, Repository, RepositoryBuilder, RepositoryMetrics};
pub use scenario::Scenario;
pub use shape::Shape;
pub use state::{Progress, SnapshotPolicy, Snapshots, StateError};
pub use typed_read::{TypedReader, TypedReading};
pub use typed_watch::{TypedWatch, TypedWatchBuilder};
pub use typed_write::WriteEventsError;
pub(crate) use typed_write::read_back;
pub use view::{View, ViewOf};

/// For tools: what a store holds, readable without the Rust types that wrote it.
pub(crate) mod inspect {
    pub use super::shape::{InvalidShape, PayloadError, PayloadJson, StoredShape, payload_to_json};
}
