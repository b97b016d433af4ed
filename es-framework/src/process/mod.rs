//! Process managers: events of several aggregates become commands to others.

mod actions;
mod command;
mod error;
mod instances;
mod manager;
mod process;
mod reacting;
mod rejection;
mod schedule;
mod step;

pub use actions::{Actions, Issuing};
pub use command::Sendable;
pub use error::ProcessError;
pub use manager::{Correlation, ProcessManager, Timeout};
pub use process::{Instance, Process};
pub use rejection::{OnRejection, Rejected};
