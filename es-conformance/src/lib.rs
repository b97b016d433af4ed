//! The contract of an es-framework engine as tests: one public function per fact, named after the fact.
//!
//! The author of an engine writes a [`Fixture`] that opens stores, and one line per group of facts; `cargo test` then
//! lists every fact by name:
//!
//! ```
//! use es_conformance::{Fixture, Setup};
//! use es_framework::{MemoryStore, Store};
//!
//! struct Memory;
//!
//! impl Fixture for Memory {
//!     async fn open_with(&self, setup: Setup) -> Store {
//!         MemoryStore::with(setup.limits, setup.clock).into()
//!     }
//! }
//!
//! mod memory {
//!     use super::Memory;
//!     es_conformance::conformance!(Memory);
//! }
//! # fn main() {
//! #     es_conformance::run(es_conformance::writing::a2_any_holds_for_every_stream(&Memory));
//! # }
//! ```
//!
//! * [`conformance!`] contains what every engine must guarantee. Its argument is an expression that creates a new
//!   fixture for each test.
//! * [`conformance_durable!`] contains what must hold after a store was closed and opened again, for a fixture that is
//!   also [`Durable`].
//! * [`conformance_shared!`] contains what must hold while several processes have a store open, for a fixture that is
//!   also [`Shared`].
//! * [`conformance_consumers!`] contains what must hold for consumers with each kind of read model of an engine, for a
//!   fixture that is also a [`Ledger`](ledger::Ledger).
//! * [`conformance_inline!`] contains what must hold for inline projections, for engines with
//!   [`Engine::commit_hooks`](es_framework::Engine::commit_hooks); [`conformance_inline_durable!`] and
//!   [`conformance_inline_shared!`] add what depends on a reopening and on other processes.
//! * [`conformance_inspected!`] contains the queries of tools, for engines that can be inspected.
//!
//! [`guide`] explains how to write an engine from scratch.
//!
//! A fact starts with its letter and number in the specification: A writing, B idempotency, C reading, D watching, E
//! snapshots, F the store as a whole, G the typed layer, H projections, I tags, queries and
//! conditions. Nothing is skipped at run time: an engine
//! without a capability leaves out the macro of that group.
//!
//! This crate is not a benchmark, and does not deal with files, disks or power: what an engine guarantees beyond the
//! contract is up to its own tests.

#![expect(
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "a broken fact panics, that is how a test says so; a wrong index is a broken fact"
)]

pub mod aggregates;
pub mod bank;
pub mod batches;
pub mod boundaries;
pub mod commands;
pub mod concurrency;
pub mod conditions;
pub mod consumers;
pub mod contended;
pub mod deciders;
pub mod durable;
pub mod executors;
pub mod failing;
pub mod filters;
mod fixture;
pub mod folding;
pub mod guide;
pub mod idempotency;
pub mod inline;
pub mod inspected;
pub mod keys;
pub mod ledger;
pub mod limits;
mod macros;
pub mod meddling;
pub mod model;
pub mod paging;
pub mod panicking;
pub mod panics;
pub mod partitions;
pub mod passes;
pub mod processes;
pub mod projections;
pub mod queries;
pub mod reactors;
pub mod reading;
pub mod rebuilding;
pub mod saving;
pub mod school;
pub mod shared;
pub mod snapshots;
pub mod state_models;
mod states;
pub mod store;
pub mod strange_models;
pub mod support;
pub mod tag_model;
pub mod tags;
pub mod turns;
pub mod watched;
pub mod watching;
pub mod writing;

pub use fixture::{Durable, Fixture, Setup, Shared};
pub use support::run;
