//! Writing: what the writer knows, what it asks for, and how a group of appends is judged and committed.

mod ask;
mod draft;
mod herald;
mod memory;
pub(crate) mod writer;
