//! Reading: the connections that read, and pages as SQL.

pub(crate) mod page;
pub(crate) mod pool;
