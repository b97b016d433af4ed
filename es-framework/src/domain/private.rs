//! What generated code calls; not for people.

pub use serde;
