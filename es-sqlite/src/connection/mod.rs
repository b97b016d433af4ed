//! One connection: on which thread it runs, how it waits for other processes, what its errors mean.

pub(crate) mod busy;
pub(crate) mod errors;
pub(crate) mod worker;
