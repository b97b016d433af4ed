//! Writing: what waits, groups of writes, and what becomes of each.

pub(crate) mod append;
pub(crate) mod insert_buffer;
pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod transact;
pub(crate) mod upkeep;
pub(crate) mod writer;
