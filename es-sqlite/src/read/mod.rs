//! Reading: the connections that read, and pages as SQL.

mod line;
pub(crate) mod page;
pub(crate) mod pool;
mod scan;
mod wanted;
