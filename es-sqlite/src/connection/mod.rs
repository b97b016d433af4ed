//! One connection: which thread it runs on, how it waits for others, and what its errors mean.

pub(crate) mod busy;
pub(crate) mod errors;
pub(crate) mod worker;
