//! The comparison of our engine with the physical limit and with other event stores: what the program `compare` is made of.
//!
//! Every measurement is one [`Spec`](spec::Spec), carried out by [`work::run`] in a process of its own, so that its peak
//! of memory is its own. [`rounds`] runs them in turns, [`report`] writes down what came out. See
//! `docs/benchmarks/README.md`.
#![expect(
    clippy::missing_errors_doc,
    reason = "parts of a program: the error is what the disk, SQLite or another process says, for a person to read"
)]

pub mod cases;
pub mod domain;
pub mod floor;
pub mod measure;
pub mod merged;
pub mod options;
pub mod peers;
pub mod report;
pub mod rounds;
pub mod spec;
pub mod work;

/// What a measurement fails with: for a person to read.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything in here that can fail.
pub type Result<T> = std::result::Result<T, Error>;
