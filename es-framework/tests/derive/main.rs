//! What the derives promise, one test a fact.

mod aggregate;
mod events;
mod generics;
mod renamed;
mod support;
#[cfg(feature = "bincode")]
mod variants;
