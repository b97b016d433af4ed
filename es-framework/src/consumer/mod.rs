//! What all consumers of the log share: a feed of decoded events, the loop that runs them, retries, states, handles.
//!
//! A kind of consumer implements [`Work`], which is what differs: where the checkpoint is kept, and what an event does.
//! Projections do so in the room `projection`.

mod checkpoint;
mod control;
mod elsewhere;
mod error;
mod failure;
mod feed;
mod handle;
mod heartbeat;
mod lease;
mod observed;
mod parked;
mod policy;
mod report;
mod requests;
mod run;
mod sealed;
mod session;
mod set;
mod start;
mod status;
mod stored_status;
mod timer;
mod wish;
mod work;

pub use checkpoint::{Checkpoint, CheckpointRecord};
pub(crate) use control::StopSignal;
pub use control::{ControlError, Retried};
pub use elsewhere::{ConsumerRef, WishError, Wished};
pub use error::{ModelError, ReactionError, RunError, WaitError};
#[cfg(any(test, feature = "testing"))]
pub(crate) use failure::text_of;
pub use failure::{Category, Failure};
pub use handle::Running;
pub use lease::Lease;
pub(crate) use parked::{DROPPED, PARKED};
pub use parked::{ParkedEvent, ParkedFailure};
pub use policy::{Backoff, Policy, Then};
pub(crate) use sealed::{open as open_sealed, seal};
pub use set::{ConsumerSet, Consumers, Startable, StopError};
pub use start::StartFrom;
pub(crate) use start::{Consumer, catch_up, start};
pub use status::{ConsumerState, IllegalTransition, Status};
pub use stored_status::StoredStatus;
pub(crate) use timer::Timer;
pub(crate) use work::{AtHead, Begun, Portion, Trouble, Work, Write, checkpoint_at, position_of};

/// The key of the record with the token of the last wish that was carried out.
pub(crate) const ACKNOWLEDGED: &str = "acknowledged";
