//! Detecting the writes of other processes.

pub(crate) mod alarm;
mod pace;
pub(crate) mod poller;
mod wal_events;
mod wal_hint;
