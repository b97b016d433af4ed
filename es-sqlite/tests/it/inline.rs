//! H15: inline projections into tables of the log's file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use es_conformance::bank::AccountEvent;
use es_framework::{
    Append, AppendError, Appended, CandidateEvent, CellKey, Event, EventId, ExpectedVersion, Inline, ModelError,
    Projection, Projector, Recorded, RunError, Store, StoreError,
};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx};

use crate::support::{all, folder, id};

const PATIENCE: Duration = Duration::from_secs(30);

/// One row per owner, each of whom may have one account, and one per event.
#[derive(Debug, Default, Clone)]
struct Owners {
    lenient: Arc<AtomicBool>,
}

impl Projector for Owners {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "owners";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY, account TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS seen (position INTEGER PRIMARY KEY, cents INTEGER);
             CREATE TABLE IF NOT EXISTS limits (
                 cents INTEGER REFERENCES allowed (cents) DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE IF NOT EXISTS allowed (cents INTEGER PRIMARY KEY)",
        )
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let position = event.position().as_i64();
        match event.event() {
            AccountEvent::Opened { owner } => {
                let known = if self.lenient.load(Ordering::SeqCst) { " ON CONFLICT DO NOTHING" } else { "" };
                tx.execute(
                    &format!("INSERT INTO owners VALUES (?1, ?2){known}"),
                    params![owner, event.aggregate_id()],
                )?;
                tx.execute("INSERT INTO seen VALUES (?1, 0)", [position])?;
            }
            AccountEvent::Deposited { cents } => {
                tx.execute("INSERT INTO seen VALUES (?1, ?2)", params![position, cents.cast_signed()])?;
                match cents {
                    // A constraint that is checked when the transaction ends.
                    77 => drop(tx.execute("INSERT INTO limits VALUES (77)", [])?),
                    // One whose violation ends the transaction.
                    88 => drop(tx.execute("INSERT OR ROLLBACK INTO seen VALUES (?1, 0)", [position])?),
                    99 => panic!("the projector breaks"),
                    _ => {}
                }
            }
            AccountEvent::Withdrawn { .. } => {}
        }
        Ok(())
    }
}

async fn inline(store: &SqliteStore, model: &SqliteModel) -> Inline<SqliteModel> {
    Projection::new(store, Owners::default(), model.clone()).inline().await.unwrap()
}

fn opened(owner: &str) -> CandidateEvent {
    AccountEvent::Opened { owner: owner.to_owned() }.encode().unwrap()
}

fn deposited(cents: u64) -> CandidateEvent {
    AccountEvent::Deposited { cents }.encode().unwrap()
}

async fn write(store: &Store, account: &str, event: CandidateEvent) -> Result<Appended, AppendError> {
    store.stream(id(account)).write(event, ExpectedVersion::Any).await
}

/// The positions of the events in the model, and the position and the number of events of its checkpoint.
async fn seen(model: &SqliteModel) -> (Vec<u64>, Option<(u64, u64)>) {
    let read = |connection: &rusqlite::Connection| {
        let mut seen = connection.prepare_cached("SELECT position FROM seen ORDER BY position")?;
        let seen = seen.query_map([], |row| row.get::<_, i64>(0))?.map(|at| at.map(i64::unsigned_abs));
        let at = "SELECT position, events FROM projection_checkpoints WHERE name = 'owners'";
        let at = connection
            .query_row(at, [], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs())));
        Ok((seen.collect::<rusqlite::Result<_>>()?, rusqlite::OptionalExtension::optional(at)?))
    };
    model.query(read).await.unwrap()
}

/// Each event took effect once, and the checkpoint is at the last.
async fn holds_the_log(store: &SqliteStore, model: &SqliteModel) {
    let positions: Vec<u64> = all(store).await.iter().map(|event| event.position.get()).collect();
    let at = (*positions.last().unwrap(), positions.len() as u64);
    assert_eq!(seen(model).await, (positions, Some(at)));
}

async fn rules_over_streams_hold(store: SqliteStore) {
    write(&store, "account-1", opened("ann")).await.unwrap();
    let model = store.read_model();
    let inline = inline(&store, &model).await;
    write(&store, "account-2", opened("bob")).await.unwrap();
    let refused = write(&store, "account-3", opened("ann")).await.unwrap_err();
    let AppendError::Refused { projection, source } = &refused else { panic!("{refused:?}") };
    assert_eq!(projection.as_str(), "owners");
    let Some(ModelError::Refused { position, source }) = source.downcast_ref() else { panic!("{source:?}") };
    assert_eq!(position.get(), 3);
    assert!(source.to_string().contains("UNIQUE constraint failed: owners.owner"), "{source}");
    let panicked = write(&store, "account-3", deposited(99)).await.unwrap_err();
    let AppendError::Refused { source, .. } = &panicked else { panic!("{panicked:?}") };
    assert!(matches!(source.downcast_ref(), Some(ModelError::Panicked { position: Some(_), .. })), "{source:?}");
    let many = Append::to(id("account-3"), ExpectedVersion::NoStream, vec![opened("eve"), opened("bob")]).set_cell(
        CellKey::new("cell").unwrap(),
        0,
        None,
    );
    assert!(matches!(store.append(many).await, Err(AppendError::Refused { .. })));
    assert!(!store.stream(id("account-3")).exists().await.unwrap());
    holds_the_log(&store, &model).await;
    // Of those that come at the same time, the first one wins.
    let racing = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let owner = format!("owner-{}", n % 4);
            write(&store, &format!("account-{}", 10 + n), opened(&owner)).await
        })
    });
    let racing: Vec<_> = racing.collect();
    let mut won = 0;
    for race in racing {
        match race.await.unwrap() {
            Ok(_) => won += 1,
            Err(AppendError::Refused { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((won, all(&store).await.len()), (4, 6));
    holds_the_log(&store, &model).await;
    inline.stop().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn h15_a_rule_over_streams_holds_in_a_file() {
    let (_folder, path) = folder();
    rules_over_streams_hold(SqliteStore::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn h15_a_rule_over_streams_holds_in_memory() {
    rules_over_streams_hold(SqliteStore::in_memory().await.unwrap()).await;
}

/// SQLite itself ends the transaction, or refuses to commit it: the others of the group are written all the same.
#[tokio::test]
async fn h15_what_ends_the_transaction_takes_no_other_append_down() {
    for bad in [77, 88] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        let model = store.read_model();
        let inline = inline(&store, &model).await;
        for round in 0..5 {
            let writes = (0..10).map(|n| {
                let store = store.clone();
                let cents = if n == round { bad } else { 1 };
                tokio::spawn(async move { (cents, write(&store, &format!("account-{n}"), deposited(cents)).await) })
            });
            for write in writes.collect::<Vec<_>>() {
                match write.await.unwrap() {
                    (1, result) => drop(result.unwrap()),
                    (_, Err(AppendError::Store(StoreError::Internal { source }))) => {
                        assert!(source.to_string().contains("ended it"), "{source}");
                    }
                    (_, other) => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(all(&store).await.len(), 45);
        holds_the_log(&store, &model).await;
        inline.stop().await.unwrap();
        store.close().await.unwrap();
    }
}

/// An id that turns out to be known makes the writer roll back its group and run it again.
#[tokio::test]
async fn h15_a_group_that_runs_twice_takes_effect_once() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let model = store.read_model();
    let inline = inline(&store, &model).await;
    let with_id = |n: u64| deposited(n).with_id(EventId::text(format!("id-{n}")).unwrap());
    for round in 0..20_u64 {
        let writes = (0..8).map(|n| {
            let store = store.clone();
            let event = with_id(if n == 3 { round / 2 } else { 10_000 + 10 * round + n });
            tokio::spawn(async move { write(&store, "account-1", event).await.unwrap() })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
    }
    assert_eq!(all(&store).await.len(), 10 + 20 * 7);
    holds_the_log(&store, &model).await;
    inline.stop().await.unwrap();
    store.close().await.unwrap();
}

/// Two handles on the file: both with the projection, one without it, or one that runs it asynchronously.
#[tokio::test]
async fn h15_several_handles_share_the_model() {
    let (_folder, path) = folder();
    let [ours, theirs] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let model = ours.read_model();
    for round in 0..4 {
        let first = inline(&ours, &model).await;
        let second = if round % 2 == 0 { Some(inline(&theirs, &theirs.read_model()).await) } else { None };
        let writers = [(&ours, "ours"), (&theirs, "theirs")].map(|(store, who)| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    write(&store, &format!("account-{who}"), deposited(n)).await.unwrap();
                }
            })
        });
        for writer in writers {
            writer.await.unwrap();
        }
        write(&ours, "account-ours", deposited(1)).await.unwrap();
        holds_the_log(&ours, &model).await;
        first.stop().await.unwrap();
        drop(second);
        let running = Projection::new(&theirs, Owners::default(), theirs.read_model()).start().await.unwrap();
        let position = write(&ours, "account-ours", deposited(1)).await.unwrap().position;
        running.wait_for(position, PATIENCE).await.unwrap();
        running.stop().await.unwrap();
        holds_the_log(&ours, &model).await;
    }
    ours.close().await.unwrap();
    theirs.close().await.unwrap();
}

#[tokio::test]
async fn h15_a_model_in_a_file_of_its_own_cannot_be_inline() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for model in
        [SqliteModel::in_memory().await.unwrap(), SqliteModel::open(folder.path().join("own.db")).await.unwrap()]
    {
        let refused = Projection::new(&store, Owners::default(), model).inline().await;
        assert!(matches!(refused, Err(RunError::Model(ModelError::NotAllowed { .. }))));
    }
    // Tables of another file.
    let other = SqliteStore::in_memory().await.unwrap();
    let refused = Projection::new(&store, Owners::default(), other.read_model()).inline().await;
    assert!(matches!(refused, Err(RunError::Model(ModelError::NotAllowed { .. }))));
    write(&store, "account-1", deposited(99)).await.unwrap();
    store.close().await.unwrap();
}

/// The process is gone with the projection inline, and what it had committed is there with its effects.
#[tokio::test]
async fn h15_events_and_effects_are_there_after_a_crash() {
    let (_folder, path) = folder();
    let mut child = crate::support::child("inline::a_process_that_is_killed", &path);
    while !path.with_extension("done").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let model = store.read_model();
    assert!(all(&store).await.len() >= 50);
    holds_the_log(&store, &model).await;
    drop(inline(&store, &model).await);
    holds_the_log(&store, &model).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_killed() {
    let Some(path) = crate::support::in_child() else { return };
    let store = SqliteStore::open(&path).await.unwrap();
    let _inline = inline(&store, &store.read_model()).await;
    for n in 0.. {
        write(&store, &format!("account-{}", n % 7), deposited(1)).await.unwrap();
        if n == 50 {
            std::fs::write(path.with_extension("done"), "").unwrap();
        }
    }
}
