//! Reading: the connections of the readers, and pages in SQL.

pub(crate) mod page;
pub(crate) mod pool;
pub(crate) mod reader;
mod wanted;
