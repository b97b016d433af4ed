//! Event sourcing for Rust.
#![doc = ""]

pub mod store;

pub use store::*;
