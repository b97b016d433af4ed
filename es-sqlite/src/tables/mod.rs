//! The tables: their schema, and one file for each.

pub(crate) mod cells;
pub(crate) mod commands;
pub(crate) mod interned;
pub(crate) mod log;
pub(crate) mod meta;
pub(crate) mod postings;
pub(crate) mod row_sum;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod snapshots;
pub(crate) mod stream_index;
pub(crate) mod streams;
pub(crate) mod tags;
