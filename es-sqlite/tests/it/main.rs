//! What the SQLite engine promises, alone and beyond the contract.

mod conformance;
