//! What the SQLite engine promises, alone and beyond the contract.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, as inside a test"
)]

mod conformance;
mod cut_off;
mod damage;
mod errors;
mod files;
mod load;
mod permissions;
mod places;
mod processes;
mod read_models;
mod remembered;
mod support;
mod upkeep;
mod writer;
