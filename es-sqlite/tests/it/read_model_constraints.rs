//! Constraints of a read model's own tables that SQLite checks when the transaction ends, and the event that violates
//! them.

use es_conformance::bank::AccountEvent;
use es_framework::engine::PAGE_EVENTS;
use es_framework::{
    BoxError, ErrorKind, Event, ExpectedVersion, ModelError, Position, Projection, Projector, ReadModel as _, Recorded,
    RunError, Store,
};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx, rusqlite};

use crate::read_models::PATIENCE;
use crate::support::folder;

/// A row for each account and each deposit, which refers to its account, in whichever order they come.
struct Ledger;

impl Projector for Ledger {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = BoxError;
    const NAME: &'static str = "ledger";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), BoxError> {
        Ok(tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY);
             CREATE TABLE IF NOT EXISTS deposit (
                position INTEGER PRIMARY KEY ON CONFLICT ROLLBACK,
                account TEXT REFERENCES account (name) DEFERRABLE INITIALLY DEFERRED
             )",
        )?)
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> Result<(), BoxError> {
        let (account, position) = (event.aggregate_id(), event.position().as_i64());
        match event.event() {
            AccountEvent::Opened { .. } => {
                tx.execute("INSERT INTO account VALUES (?1)", [account])?;
            }
            AccountEvent::Deposited { cents: 7 } => {
                // Ends the transaction, and is ignored.
                tx.execute("INSERT INTO deposit VALUES (?1, NULL)", [position])?;
                let _passed_over = tx.execute("INSERT INTO deposit VALUES (?1, NULL)", [position]);
            }
            AccountEvent::Deposited { cents: 13 } => return Err("thirteen".into()),
            AccountEvent::Deposited { .. } => {
                tx.execute("INSERT INTO deposit VALUES (?1, ?2)", (position, account))?;
            }
            AccountEvent::Withdrawn { .. } => {}
        }
        Ok(())
    }
}

async fn write(store: &Store, account: &str, event: AccountEvent) -> Position {
    let stream = store.open_stream(format!("account-{account}")).unwrap();
    stream.write(event.encode().unwrap(), ExpectedVersion::Any).await.unwrap().position
}

async fn open(store: &Store, account: &str) -> Position {
    write(store, account, AccountEvent::Opened { owner: "she".to_owned() }).await
}

async fn deposit(store: &Store, account: &str, cents: u64) -> Position {
    write(store, account, AccountEvent::Deposited { cents }).await
}

/// Returns the number of accounts, of deposits and the position of the checkpoint.
async fn found(model: &SqliteModel) -> (i64, i64, i64) {
    let found = model.query(|connection| {
        connection.query_row(
            "SELECT (SELECT count(*) FROM account), (SELECT count(*) FROM deposit),
                coalesce((SELECT position FROM projection_checkpoints), 0)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    });
    found.await.unwrap()
}

/// Runs the projection until it fails, and returns the position in the error, its message and what was stored before
/// it.
async fn refused(store: &SqliteStore, model: &SqliteModel) -> (Position, String, (i64, i64, i64)) {
    let error = Projection::new(store, Ledger, model.clone()).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Caller, "{error:?}");
    let RunError::Model(ModelError::Refused { position, source }) = error else { panic!("{error:?}") };
    (position, source.to_string(), found(model).await)
}

async fn places() -> Vec<(tempfile::TempDir, SqliteStore, SqliteModel)> {
    let mut places = Vec::new();
    for own in [false, true] {
        let (folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        let model =
            if own { SqliteModel::open(folder.path().join("own.db")).await.unwrap() } else { store.read_model() };
        places.push((folder, store, model));
    }
    places
}

/// A deposit whose account is never opened was reported as "stored data is damaged", and rolled the whole batch back at
/// each start.
#[tokio::test]
async fn a_deferred_foreign_key_that_breaks_is_the_error_of_the_event_that_breaks_it() {
    for (_folder, store, model) in places().await {
        open(&store, "a").await;
        deposit(&store, "a", 1).await;
        // Within a batch a child may come before its parent.
        deposit(&store, "b", 1).await;
        deposit(&store, "c", 1).await;
        open(&store, "c").await;
        open(&store, "b").await;
        deposit(&store, "b", 1).await;
        let orphan = deposit(&store, "nobody", 1).await;
        deposit(&store, "d", 1).await;
        open(&store, "d").await;
        let (position, said, stands) = refused(&store, &model).await;
        assert_eq!((position, stands), (orphan, (3, 4, 7)));
        assert!(said.contains("FOREIGN KEY"), "{said}");
        // After a restart it reports the same, immediately.
        let (position, _, stands) = refused(&store, &model).await;
        assert_eq!((position, stands), (orphan, (3, 4, 7)));
        // The log is unaffected, and once the parent exists the projection continues.
        open(&store, "nobody").await;
        let last = deposit(&store, "a", 1).await;
        let reached = Projection::new(&store, Ledger, model.clone()).catch_up().await.unwrap();
        assert_eq!((reached, found(&model).await), (last, (5, 7, last.as_i64())));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_live_event_that_breaks_a_deferred_foreign_key_is_named() {
    for (_folder, store, model) in places().await {
        let running = Projection::new(&store, Ledger, model.clone()).start().await.unwrap();
        let good = open(&store, "a").await;
        running.wait_for(good, PATIENCE).await.unwrap();
        let orphan = deposit(&store, "nobody", 1).await;
        let error = running.finished().await.unwrap_err();
        assert!(
            matches!(&*error, RunError::Model(ModelError::Refused { position, .. }) if *position == orphan),
            "{error:?}"
        );
        assert_eq!((running.position(), found(&model).await), (good, (1, 0, 1)));
    }
}

/// The error that occurs first is not always that of the first event.
#[tokio::test]
async fn the_first_event_that_cannot_be_committed_is_named() {
    // The orphan comes before an event that the projector rejects, and before one after which SQLite has no transaction
    // any more.
    for later in [13, 7] {
        for (_folder, store, model) in places().await {
            open(&store, "a").await;
            let orphan = deposit(&store, "nobody", 1).await;
            deposit(&store, "a", 1).await;
            deposit(&store, "a", later).await;
            deposit(&store, "a", 1).await;
            let (position, _, stands) = refused(&store, &model).await;
            assert_eq!((position, stands), (orphan, (1, 0, 1)), "{later}");
        }
    }
}

/// An event ignores an error with which SQLite ended the transaction: the next one fails, and is not to blame.
#[tokio::test]
async fn the_event_that_ended_the_transaction_is_named() {
    for after in [0, 1, 3] {
        for (_folder, store, model) in places().await {
            open(&store, "a").await;
            deposit(&store, "a", 1).await;
            let ends = deposit(&store, "a", 7).await;
            for _ in 0..after {
                deposit(&store, "a", 1).await;
            }
            let (position, said, stands) = refused(&store, &model).await;
            assert_eq!((position, stands), (ends, (1, 1, 2)));
            assert!(said.contains("rolled the transaction back"), "{said}");
        }
    }
}

/// Anywhere in a whole page, including its ends.
#[tokio::test]
async fn the_event_is_found_in_a_large_batch() {
    // All ranges that start with the event are tried, so its place determines how long this takes.
    for (all, place) in [(40, 0), (40, 1), (PAGE_EVENTS, 800), (PAGE_EVENTS, PAGE_EVENTS - 1)] {
        let store = SqliteStore::in_memory().await.unwrap();
        let model = SqliteModel::in_memory().await.unwrap();
        let stream = store.open_stream("account-a").unwrap();
        let event = |n: usize| match n {
            0 => AccountEvent::Opened { owner: "she".to_owned() },
            _ => AccountEvent::Deposited { cents: 1 },
        };
        let many = |range: std::ops::Range<usize>| range.map(|n| event(n).encode().unwrap()).collect::<Vec<_>>();
        if place > 0 {
            stream.write(many(0..place), ExpectedVersion::Any).await.unwrap();
        }
        let orphan = deposit(&store, "nobody", 1).await;
        // Opens the accounts not opened yet, so that everything that follows could be committed.
        stream.write(many(usize::from(place > 0)..all), ExpectedVersion::Any).await.unwrap();
        let (position, _, (.., checkpoint)) = refused(&store, &model).await;
        assert_eq!((position, checkpoint), (orphan, orphan.as_i64() - 1));
    }
}

struct Unready;

impl Projector for Unready {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "unready";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch(
            "CREATE TABLE a (x PRIMARY KEY); CREATE TABLE b (x REFERENCES a DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO b VALUES (1)",
        )
    }

    fn project(&self, _: &Recorded<AccountEvent>, _: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_prepare_writes_and_cannot_be_committed_is_its_error() {
    for (_folder, store, model) in places().await {
        let error = Projection::new(&store, Unready, model.clone()).catch_up().await.unwrap_err();
        assert!(matches!(&error, RunError::Model(ModelError::Prepare { .. })), "{error:?}");
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('a', 'b')";
        let tables = model.query(|connection| connection.query_row(tables, [], |row| row.get::<_, i64>(0)));
        assert_eq!(tables.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_transaction_of_ones_own_says_that_it_cannot_be_committed() {
    for (_folder, store, model) in places().await {
        let broken = model.transact(|tx| Unready.prepare(tx).map_err(ModelError::failed)).await.unwrap_err();
        assert!(matches!(broken, ModelError::CommitRefused { .. }), "{broken:?}");
        assert_eq!(broken.kind(), ErrorKind::Caller);
        assert!(broken.to_string().contains("FOREIGN KEY"), "{broken}");
        open(&store, "a").await;
    }
}
