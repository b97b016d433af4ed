//! Connections: how they are made, what is prepared on them, and what their errors mean.

pub(crate) mod connect;
pub(crate) mod errors;
pub(crate) mod session;
pub(crate) mod values;
