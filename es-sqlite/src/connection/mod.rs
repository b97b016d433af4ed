//! One connection: how it is opened, on which thread it runs, how it waits for others, what its errors mean.

pub(crate) mod busy;
pub(crate) mod errors;
pub(crate) mod file;
pub(crate) mod open;
pub(crate) mod worker;
