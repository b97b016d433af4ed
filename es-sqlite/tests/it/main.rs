//! What the SQLite engine promises, alone and beyond the contract.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, as inside a test"
)]

mod conformance;
mod damage;
mod files;
mod load;
mod processes;
mod read_models;
mod support;
mod verify;
mod writer;
