//! What all consumers of the log share: a feed of decoded events, the loop that runs them, retries, states, handles.
//!
//! A kind of consumer implements [`Work`], which is what differs: where the checkpoint is kept, and what an event does.
//! Projections do so in the room `projection`.

mod checkpoint;
mod control;
mod error;
mod failure;
mod feed;
mod handle;
mod policy;
mod report;
mod run;
mod session;
mod start;
mod status;
mod timer;
mod work;

pub use checkpoint::{Checkpoint, CheckpointRecord};
pub use control::ControlError;
pub use error::{ModelError, ReactionError, RunError, WaitError};
pub use failure::{Category, Failure};
pub(crate) use feed::Events;
pub use handle::Running;
pub use policy::{Backoff, Policy, Then};
pub(crate) use start::{Consumer, catch_up, start};
pub use status::{ConsumerState, IllegalTransition, Status};
pub(crate) use timer::Timer;
pub(crate) use work::{Begun, Portion, Trouble, Work, position_of};
