//! What is emitted, what is generated from the table, and what a trace of a story looks like.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails, as inside a test")]

mod bank;
mod emitted;
mod generated;
mod traces;
