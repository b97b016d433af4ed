//! Compiles the code of the guide.

#[doc = include_str!("../../docs/postgres.md")]
mod postgres {}
