//! Read models in the log's file, written in the transactions of appends.

use std::any::Any;

use es_framework::{InlineModel, ModelError, Store};
use tokio_rusqlite::rusqlite::Connection;

use crate::model::rules::Home;
use crate::model::{Location, SqliteModel, SqliteTx, project};

/// Only for a model in the log's file, or in the memory of a store in memory: [`SqliteStore::read_model`].
///
/// A violated constraint that ends the transaction (`ON CONFLICT ROLLBACK`) or that SQLite checks only at its end
/// (`DEFERRABLE INITIALLY DEFERRED`) makes the append fail with
/// [`StoreError::Internal`](es_framework::StoreError::Internal) instead of
/// [`AppendError::Refused`](es_framework::AppendError::Refused); nothing of it is written either.
///
/// [`SqliteStore::read_model`]: crate::SqliteStore::read_model
impl InlineModel for SqliteModel {
    fn check_inline(&self, store: &Store) -> Result<(), ModelError> {
        match &self.location {
            Location::InLog(engine) if engine.store_id() == store.id() => Ok(()),
            Location::InLog(engine) => {
                let reason = format!("the model is in the file of store {}, the events in another", engine.store_id());
                Err(ModelError::not_allowed(reason))
            }
            Location::Own(_) => {
                let reason = "the model is in a file of its own, which has transactions of its own; use \
                              `SqliteStore::read_model` for an inline projection";
                Err(ModelError::not_allowed(reason))
            }
        }
    }

    fn within<T, F>(&self, transaction: &dyn Any, body: F) -> Result<T, ModelError>
    where
        F: for<'t> FnOnce(&mut SqliteTx<'t>) -> Result<T, ModelError>,
    {
        let Some(connection) = transaction.downcast_ref::<Connection>() else {
            return Err(ModelError::not_allowed("the events are written by another engine than SQLite's"));
        };
        project(connection, Home::Log, body)
    }
}
