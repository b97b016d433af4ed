//! Detecting the writes of other processes.

pub(crate) mod poller;
pub(crate) mod wal_hint;
