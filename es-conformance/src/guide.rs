#![doc = include_str!("guide.md")]
//! ```rust,ignore
#![doc = include_str!("../examples/an_engine/engine.rs")]
//! ```
