//! The schema of a store: its name, and the statements that create it.

use es_framework::{StoreError, StoreId};

use crate::connection::errors::Failure;
use crate::connection::session::Session;
use crate::error::OpenError;
use crate::tables::log::writer_sum;

/// The format this release writes.
pub(crate) const FORMAT: u32 = 1;

/// The statements that create a store.
const FORMAT_1: &str = include_str!("schema.sql");

/// The name of a schema, as it is written in statements.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    name: String,
}

impl Schema {
    /// Checks a name. Longer ones would be cut off by the server, so that two of them could mean the same schema.
    pub(crate) fn new(name: &str) -> Result<Self, OpenError> {
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            return Err(OpenError::InvalidSchema { schema: name.to_owned() });
        }
        Ok(Self { name: name.to_owned() })
    }

    /// Replaces `{es}` in a statement.
    pub(crate) fn qualify(&self, sql: &str) -> String {
        sql.replace("{es}", &self.quoted())
    }

    /// The script that creates a store with this id, and changes nothing if there is one.
    pub(crate) fn script(&self, store: StoreId) -> String {
        let writer_sum = writer_sum(store, FORMAT.cast_signed(), 0, None, None, "").stored();
        let names = FORMAT_1
            .replace("{name}", &literal(&self.name))
            .replace("{lock}", &LOCK.to_string())
            .replace("{format}", &FORMAT.to_string())
            .replace("{store_id}", &store.to_string())
            .replace("{writer_sum}", &writer_sum.to_string());
        self.qualify(&names)
    }

    fn quoted(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }
}

/// The key of the advisory lock under which stores are created: `ESLG` twice. It is held for a moment only.
const LOCK: i64 = 0x4553_4C47_4553_4C47;

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether there is a store in the schema, or at least its first table.
pub(crate) async fn exists(session: &Session, schema: &Schema) -> Result<bool, StoreError> {
    let sql = format!("SELECT to_regclass({}) IS NOT NULL", literal(&format!("{}.es_writer", schema.quoted())));
    let rows = session.once(&sql, &[], &[]).await.map_err(Failure::into_store)?;
    let exists = rows.first().map(|row| row.try_get(0)).transpose();
    Ok(exists.map_err(|error| Failure::from(error).into_store())?.unwrap_or(false))
}

/// Creates the store, unless another process just did.
pub(crate) async fn create(session: &Session, schema: &Schema, name: &str) -> Result<(), OpenError> {
    match session.batch(&schema.script(StoreId::random())).await {
        Ok(()) => Ok(()),
        Err(Failure::Refused(StoreError::Internal { source })) if source.to_string().contains("42P07") => {
            let reason = format!("it has a table of a store's, but no store: {source}");
            Err(OpenError::NotAStore { schema: name.to_owned(), reason })
        }
        Err(failure) => Err(failure.into_store().into()),
    }
}
