#![doc = include_str!("guide.md")]
//! ```text
#![doc = include_str!("../examples/an_engine/engine.rs")]
//! ```
