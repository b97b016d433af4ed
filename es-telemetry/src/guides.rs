//! The code of the guide about consumers, as tests.

#[doc = include_str!("../../docs/consumers.md")]
mod consumers {}
