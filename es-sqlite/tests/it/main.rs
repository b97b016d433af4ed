//! What the SQLite engine promises, alone and beyond the contract.

mod conformance;
mod damage;
mod files;
mod load;
mod processes;
mod read_models;
mod support;
