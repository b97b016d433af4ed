//! What the derives promise, one test a fact.

mod aggregate;
mod events;
mod support;
mod variants;
