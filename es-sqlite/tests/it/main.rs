//! What the SQLite engine guarantees, on its own and beyond the contract.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, as inside a test"
)]

mod audit;
mod columns;
mod conformance;
mod consumers;
mod cut_off;
mod damage;
mod errors;
mod files;
mod flips;
mod image;
mod inline;
mod laws;
mod load;
mod owners;
mod passing_over;
mod permissions;
mod places;
mod processes;
mod queries;
mod read_model_constraints;
mod read_model_rules;
mod read_model_statements;
mod read_models;
mod rebuilding;
mod remembered;
mod rooms;
mod structure;
mod support;
mod tag_damage;
mod tags;
mod upkeep;
mod verify;
mod writer;
