//! Writing: the queue, groups of writes, and the result of each write.

pub(crate) mod append;
mod conditions;
mod inline;
pub(crate) mod insert_buffer;
pub(crate) mod memory;
pub(crate) mod queue;
pub(crate) mod transact;
pub(crate) mod upkeep;
pub(crate) mod writer;
