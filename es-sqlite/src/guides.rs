//! The code of the README and of the guides, as tests: they show the typed layer over this engine.

#[doc = include_str!("../../README.md")]
mod readme {}

#[doc = include_str!("../../docs/getting-started.md")]
mod getting_started {}

#[doc = include_str!("../../docs/concepts.md")]
mod concepts {}

#[doc = include_str!("../../docs/boundaries.md")]
mod boundaries {}

#[doc = include_str!("../../docs/reactors.md")]
mod reactors {}

#[doc = include_str!("../../docs/schema-evolution.md")]
mod schema_evolution {}

#[doc = include_str!("../../docs/testing.md")]
mod testing {}
