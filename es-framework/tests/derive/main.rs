//! What the derives promise, one test a fact.

mod aggregate;
#[cfg(all(feature = "bincode", feature = "json"))]
mod codecs;
mod command;
mod commands;
#[cfg(feature = "bincode")]
mod damaged;
mod events;
#[cfg(feature = "bincode")]
mod from_macros;
mod generics;
mod lints;
mod names;
mod renamed;
mod serde_attributes;
mod support;
mod tags;
mod ui;
#[cfg(feature = "bincode")]
mod variants;
