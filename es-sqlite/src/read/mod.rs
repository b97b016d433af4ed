//! Reading: the reader connections, and pages in SQL.

mod by_postings;
mod line;
pub(crate) mod page;
pub(crate) mod pool;
mod scan;
mod wanted;
