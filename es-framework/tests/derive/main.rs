//! What the derives promise, one test a fact.

mod aggregate;
#[cfg(all(feature = "bincode", feature = "json"))]
mod codecs;
mod command;
#[cfg(feature = "bincode")]
mod damaged;
mod events;
mod generics;
mod renamed;
mod serde_attributes;
mod support;
mod ui;
#[cfg(feature = "bincode")]
mod variants;
