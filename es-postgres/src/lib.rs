//! The PostgreSQL engine of `es_framework`: one log for several processes and machines.
//!
//! It is *not* a place for domain types, and it shares no connection with the caller. Tables, roles, options and what
//! survives which failure are documented in `docs/postgres.md`. PostgreSQL 14 or newer is needed.
//!
//! ```no_run
//! use es_framework::{CandidateEvent, ExpectedVersion};
//! use es_postgres::PostgresStore;
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::connect("postgres://bank@localhost/bank").await?;
//! let account = store.open_stream("account-alice")?;
//! account.write(CandidateEvent::new("deposited", "500")?, ExpectedVersion::NoStream).await?;
//! assert_eq!(account.read().collect().await?.len(), 1);
//! store.close().await?;
//! # Ok(()) }
//! ```

mod builder;
mod connection;
mod engine;
mod error;
#[cfg(doctest)]
mod guides;
mod options;
mod others;
mod read;
mod store;
mod tables;
mod write;

pub use builder::Builder;
pub use error::OpenError;
pub use options::Durability;
pub use store::PostgresStore;
