//! What other processes write, noticed.

pub(crate) mod poller;
pub(crate) mod wal_hint;
