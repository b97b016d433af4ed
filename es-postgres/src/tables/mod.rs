//! The tables: their definitions, and what a row of each means.

pub(crate) mod cells;
pub(crate) mod commands;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod queries;
pub(crate) mod row_sum;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod snapshots;
pub(crate) mod statements;
pub(crate) mod streams;
