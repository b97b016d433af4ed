//! One connection: how it is opened, which thread it runs on, how it waits for others, and what its errors mean.

pub(crate) mod busy;
pub(crate) mod errors;
pub(crate) mod file;
pub(crate) mod open;
pub(crate) mod worker;
