//! What the derives promise, one test a fact.

mod aggregate;
#[cfg(all(feature = "bincode", feature = "json"))]
mod codecs;
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
