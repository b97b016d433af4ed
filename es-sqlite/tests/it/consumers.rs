//! Consumers with every kind of read model of this engine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use es_conformance::ledger::{Ledger, Row};
use es_conformance::{Fixture, Setup, Shared};
use es_framework::{BoxError, Cleared, StateModel, StateTx, Store, StoreId};
use es_sqlite::{Durability, SqliteModel, SqliteStore, SqliteTx};
use tempfile::TempDir;

/// Stores in files.
struct Files {
    folder: TempDir,
    opened: Mutex<HashMap<StoreId, (SqliteStore, PathBuf)>>,
    models: AtomicU64,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), opened: Mutex::default(), models: AtomicU64::new(0) }
    }

    async fn open(&self, setup: Setup) -> Store {
        let count = self.opened.lock().unwrap_or_else(PoisonError::into_inner).len();
        let path = self.folder.path().join(format!("{count}.db"));
        // Flushes guard against power losses, which no test here causes.
        let builder = SqliteStore::builder().durability(Durability::Normal).limits(setup.limits).clock(setup.clock);
        let store = builder.open(&path).await.unwrap();
        let handle = Store::from(store.clone());
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.id(), (store, path));
        handle
    }

    fn of(&self, store: &Store) -> (SqliteStore, PathBuf) {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)[&store.id()].clone()
    }

    async fn second(&self, store: &Store) -> Store {
        let builder = SqliteStore::builder().durability(Durability::Normal).create(false);
        builder.open(self.of(store).1).await.unwrap().into()
    }
}

macro_rules! fixture {
    ($name:ident) => {
        struct $name(Files);

        impl $name {
            fn new() -> Self {
                Self(Files::new())
            }
        }

        impl Fixture for $name {
            async fn open_with(&self, setup: Setup) -> Store {
                self.0.open(setup).await
            }
        }

        impl Shared for $name {
            async fn second(&self, store: &Store) -> Store {
                self.0.second(store).await
            }
        }
    };
}

fixture!(InOwnFile);
fixture!(InLogsFile);
fixture!(StateOnFile);

fn write(tx: &mut SqliteTx<'_>, row: &Row) -> Result<(), BoxError> {
    let numbers = [row.position, row.cents].map(u64::cast_signed);
    tx.execute(
        "INSERT INTO entry (position, account, cents) VALUES (?1, ?2, ?3)",
        (numbers[0], &row.account, numbers[1]),
    )?;
    Ok(())
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER NOT NULL, account TEXT NOT NULL, cents INTEGER NOT NULL)";

async fn rows(model: &SqliteModel) -> Vec<Row> {
    let rows = model.query(|connection| {
        if !connection.table_exists(None, "entry")? {
            return Ok(Vec::new());
        }
        let mut find = connection.prepare("SELECT position, account, cents FROM entry ORDER BY id")?;
        let rows = find.query_map([], |row| {
            let (position, cents): (i64, i64) = (row.get(0)?, row.get(2)?);
            Ok(Row { position: position.cast_unsigned(), account: row.get(1)?, cents: cents.cast_unsigned() })
        })?;
        rows.collect()
    });
    rows.await.unwrap()
}

macro_rules! tables {
    ($fixture:ty, $model:expr) => {
        impl Ledger for $fixture {
            type Model = SqliteModel;

            async fn model(&self, store: &Store) -> SqliteModel {
                $model(&self.0, store).await
            }

            fn prepare(tx: &mut SqliteTx<'_>) -> Result<(), BoxError> {
                Ok(tx.execute_batch(CREATE)?)
            }

            fn write(tx: &mut SqliteTx<'_>, row: Row) -> Result<(), BoxError> {
                write(tx, &row)
            }

            fn clear(tx: &mut SqliteTx<'_>) -> Result<Cleared, BoxError> {
                tx.execute("DELETE FROM entry", [])?;
                Ok(Cleared::All)
            }

            async fn rows(&self, model: &SqliteModel) -> Vec<Row> {
                rows(model).await
            }
        }
    };
}

tables!(InOwnFile, async |files: &Files, _: &Store| {
    let model = files.models.fetch_add(1, Ordering::SeqCst);
    SqliteModel::open(files.folder.path().join(format!("model-{model}.db"))).await.unwrap()
});
tables!(InLogsFile, async |files: &Files, store: &Store| files.of(store).0.read_model());

impl Ledger for StateOnFile {
    type Model = StateModel<Vec<Row>>;

    async fn model(&self, store: &Store) -> Self::Model {
        StateModel::new(store)
    }

    async fn after_death(&self, store: &Store, model: Self::Model) -> Self::Model {
        drop(model);
        StateModel::new(store)
    }

    fn prepare(_: &mut StateTx<'_, Vec<Row>>) -> Result<(), BoxError> {
        Ok(())
    }

    fn write(rows: &mut StateTx<'_, Vec<Row>>, row: Row) -> Result<(), BoxError> {
        rows.push(row);
        Ok(())
    }

    fn clear(_: &mut StateTx<'_, Vec<Row>>) -> Result<Cleared, BoxError> {
        Ok(Cleared::Nothing)
    }

    async fn rows(&self, model: &Self::Model) -> Vec<Row> {
        model.read(Clone::clone)
    }
}

mod in_own_file {
    use super::InOwnFile;
    es_conformance::conformance_consumers!(InOwnFile::new());
    es_conformance::conformance_consumers_shared!(InOwnFile::new());
}

mod in_logs_file {
    use super::InLogsFile;
    es_conformance::conformance_consumers!(InLogsFile::new());
    es_conformance::conformance_consumers_shared!(InLogsFile::new());
}

mod state_on_file {
    use super::StateOnFile;
    es_conformance::conformance_consumers!(StateOnFile::new());
    es_conformance::conformance_consumers_shared!(StateOnFile::new());
}
