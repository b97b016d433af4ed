//! Process managers: events of several aggregates become commands to others.

mod actions;
mod builder;
mod command;
mod error;
mod instances;
mod manager;
mod reacting;
mod rejection;
mod schedule;
mod step;

pub use actions::{Actions, Issuing};
pub use builder::{Instance, Process};
pub use command::Sendable;
pub use error::ProcessError;
pub use manager::{Correlation, ProcessManager, Timeout};
pub use rejection::{OnRejection, Rejected};
