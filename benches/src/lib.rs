//! The comparison of our engine with the physical limit and with other event stores: the library behind the program
//! `compare`.
//!
//! Every measurement is one [`Spec`](spec::Spec), carried out by [`work::run`] in a process of its own, so that its
//! peak memory is its own. [`rounds`] alternates them, [`report`] writes down the results. See
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

/// The error of a measurement, for people to read.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything in here that can fail.
pub type Result<T> = std::result::Result<T, Error>;
