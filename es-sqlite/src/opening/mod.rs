//! Opening a file: which one a path names, what it is, and the connections to it.

pub(crate) mod errors;
pub(crate) mod file;
pub(crate) mod open;
