//! Notices the writes of other processes.

pub(crate) mod listener;
