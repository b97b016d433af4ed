//! The SQLite engine of `es_framework`: one file, several processes, nothing to install.
//!
//! It is *not* a place for domain types, and it shares no connection with the caller. The file format is documented in
//! `docs/file-format.md`, and what survives which failure in `docs/durability.md`.
//!
//! ```
//! use es_framework::{CandidateEvent, ExpectedVersion};
//! use es_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("bank.db");
//! let store = SqliteStore::open(&path).await?;
//! let account = store.open_stream("account-alice")?;
//! account.write(CandidateEvent::new("deposited", "500")?, ExpectedVersion::NoStream).await?;
//! assert_eq!(account.read().collect().await?.len(), 1);
//! store.close().await?;
//! # Ok(()) }
//! ```
//!
//! An application that links SQLite by other means (sqlx's driver, another version of rusqlite) cannot also link this
//! crate: both declare `links = "sqlite3"`.

mod builder;
mod connection;
mod engine;
mod error;
#[cfg(doctest)]
mod guides;
mod inspect;
mod model;
mod opening;
mod options;
mod others;
mod read;
mod store;
mod tables;
mod write;

pub use builder::Builder;
pub use error::OpenError;
#[doc(hidden)]
pub use model::file::SqliteFile;
pub use model::{Columns, Key, Rows, SqliteModel, SqliteTx, Sums};
pub use options::Durability;
pub use store::SqliteStore;
/// The rusqlite version that this crate links; write projectors and queries with it.
pub use tokio_rusqlite::rusqlite;
#[doc(hidden)]
pub use write::transact::TransactError;
