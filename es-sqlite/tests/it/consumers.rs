//! Consumers with every kind of read model of this engine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use es_conformance::bank::AccountEvent;
use es_conformance::ledger::{Entries, Faulty, Ledger, Row, deposit, entries};
use es_conformance::support::PATIENCE;
use es_conformance::{Fixture, Setup, Shared};
use es_framework::{
    Backoff, BoxError, Category, Cleared, ConsumerState, Policy, Position, Projection, Projector, Recorded, StateModel,
    StateTx, Store, StoreId,
};
use es_sqlite::{Durability, SqliteModel, SqliteStore, SqliteTx};
use tempfile::TempDir;

use crate::support::{on_writer, sql};

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

/// A full disk is the read model's outage, whatever the projector makes of its error: it uses up no event's attempts, and
/// the consumer goes on when there is room.
#[tokio::test]
async fn h3_a_full_disk_is_no_failure_of_an_event() {
    struct Large;

    impl Projector for Large {
        type Event = AccountEvent;
        type Model = SqliteModel;
        type Error = String;
        const NAME: &'static str = "large";

        fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), String> {
            tx.execute_batch("CREATE TABLE IF NOT EXISTS large (x)").map_err(|error| error.to_string())
        }

        fn project(&self, _: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> Result<(), String> {
            let done = tx.execute("INSERT INTO large VALUES (zeroblob(100000))", []);
            done.map(drop).map_err(|error| format!("wrapped as a text: {error}"))
        }
    }

    let files = Files::new();
    let store = files.open(Setup::default()).await;
    let log = files.of(&store).0;
    let mut policy = Policy::stop_at_once();
    policy.outage = Backoff::new(1, Duration::from_millis(5), Duration::from_millis(5));
    let projection = Projection::new(&store, Large, log.read_model()).policy(policy);
    let running = projection.start().await.unwrap();
    deposit(&store, "account-a", [1]).await;
    running.reached(Position::new(1), PATIENCE).await.unwrap();
    let pages = "SELECT page_count FROM pragma_page_count()";
    let limit = |pages: i64| format!("PRAGMA max_page_count = {pages}");
    on_writer(&log, move |connection| {
        let pages: i64 = connection.query_row(pages, [], |row| row.get(0))?;
        connection.query_row(&limit(pages + 8), [], |row| row.get::<_, i64>(0))
    })
    .await;
    let last = deposit(&store, "account-a", [2]).await;
    while running.status().state != ConsumerState::Waiting {
        assert!(!running.status().state.is_over(), "{:?}", running.status());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let failure = running.status().last_failure.unwrap();
    assert_eq!((failure.category, failure.position), (Category::ReadModel, None));
    assert!(failure.error.contains("the disk is full"), "{failure:?}");
    on_writer(&log, |connection| {
        connection.query_row("PRAGMA max_page_count = 1000000", [], |row| row.get::<_, i64>(0))
    })
    .await;
    running.reached(last, PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let model = log.read_model();
    let count =
        model.query(|connection| connection.query_row("SELECT count(*) FROM large", [], |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 2_i64);
}

/// The table of an earlier release is taken over: the projection goes on where it was.
#[tokio::test]
async fn h1_checkpoints_of_an_earlier_release_are_taken_over() {
    let files = InOwnFile::new();
    let store = files.open().await;
    let last = deposit(&store, "account-a", [1, 2, 3]).await;
    let path = files.0.folder.path().join("earlier.db");
    let event = &store.all().read().collect().await.unwrap()[1];
    let plain = sql(&path);
    plain
        .execute_batch(
            "CREATE TABLE projection_checkpoints (
                name TEXT PRIMARY KEY, store BLOB NOT NULL, position INTEGER NOT NULL,
                checksum INTEGER NOT NULL, events INTEGER NOT NULL
            ) WITHOUT ROWID",
        )
        .unwrap();
    let insert = "INSERT INTO projection_checkpoints VALUES ('entries', ?1, 2, ?2, 2), ('other', ?1, 1, 7, 1)";
    plain.execute(insert, (store.id().to_bytes(), event.checksum)).unwrap();
    drop(plain);
    let model = Faulty::new(SqliteModel::open(&path).await.unwrap());
    let running = entries(&store, &Entries::<InOwnFile>::new(), &model, Policy::default()).start().await.unwrap();
    assert!(running.position() >= Position::new(2));
    running.reached(last, PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    assert_eq!(rows(&model.inner).await.into_iter().map(|row| row.position).collect::<Vec<_>>(), [3]);
    let checkpoints = model.inner.query(|connection| {
        let mut find =
            connection.prepare("SELECT name, position, checksum, term, events FROM projection_checkpoints")?;
        let rows = find.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(3)?, row.get::<_, i64>(4)?))
        })?;
        rows.collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(checkpoints.await.unwrap(), [("entries".to_owned(), 3, 0, 3), ("other".to_owned(), 1, 0, 1)]);
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
