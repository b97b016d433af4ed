//! H4, H16: read models in SQLite that are built anew while the old ones answer.

use std::path::Path;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use es_conformance::bank::AccountEvent;
use es_framework::{
    ConsumerState, ModelError, OnChange, Position, Projection, Projector, Recorded, RunError, Running, Store,
};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx};

use crate::read_models::{PATIENCE, deposit};
use crate::support::folder;

/// A row an account: with version `V`, each deposit of one cent counts as `V`. Version 3 has another column.
#[derive(Debug, Default, Clone)]
struct Counts<const V: u32> {
    projected: Arc<AtomicU64>,
    /// The number of events after which it is stuck until it is 0 again.
    stuck_after: Arc<AtomicU64>,
}

impl<const V: u32> Projector for Counts<V> {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "counts";
    const VERSION: u32 = if V == 3 { 1 } else { V };

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let more = if V == 3 { ", more INTEGER DEFAULT 7" } else { "" };
        tx.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS counts (account TEXT PRIMARY KEY, cents INTEGER, events INTEGER{more});
             CREATE INDEX IF NOT EXISTS counts_by_cents ON counts (cents);"
        ))
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let projected = self.projected.fetch_add(1, Ordering::SeqCst) + 1;
        while self.stuck_after.load(Ordering::SeqCst) != 0 && projected >= self.stuck_after.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        tx.execute(
            "INSERT INTO counts (account, cents, events) VALUES (?1, ?2, 1)
             ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents, events = events + 1",
            params![event.aggregate_id(), V],
        )
        .map(drop)
    }

    fn clear(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<es_framework::Cleared> {
        tx.execute_batch("DROP TABLE IF EXISTS counts")?;
        Ok(es_framework::Cleared::All)
    }
}

/// The number of events, and by how much each counts; the latter must be the same for all rows.
async fn counts(model: &SqliteModel) -> (i64, f64) {
    let read = |connection: &rusqlite::Connection| {
        let sql = "SELECT sum(events), min(1.0 * cents / events), max(1.0 * cents / events) FROM counts";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get::<_, f64>(1)?, row.get::<_, f64>(2)?)))
    };
    let (events, least, most) = model.query(read).await.unwrap();
    assert!((least - most).abs() < 1e-9, "rows of two generations: {least} and {most}");
    (events, most)
}

fn counting<const V: u32>(store: &SqliteStore, model: &SqliteModel) -> Projection<Counts<V>> {
    Projection::new(store, Counts::default(), model.clone())
}

async fn fill(store: &Store, events: usize) -> Position {
    let mut last = Position::ZERO;
    for account in ["a", "b", "c"] {
        last = deposit(store, account, vec![1; events / 3]).await;
    }
    last
}

async fn until(what: &str, running: &Running, holds: impl Fn(&es_framework::Status) -> bool) {
    for _ in 0..30_000 {
        if holds(&running.status()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}: {:?}", running.status());
}

fn left_over(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("-rebuild-")).collect()
}

/// The old model answers and goes on while a new one is built, readers see one or the other, and the running projection
/// goes on with the new one.
async fn a_rebuild_is_seen_all_at_once(store: SqliteStore, model: SqliteModel) {
    fill(&store, 3_000).await;
    let live = counting::<1>(&store, &model).start().await.unwrap();
    live.wait_for(store.head(), PATIENCE).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut written = 0;
            while !done.load(Ordering::SeqCst) {
                deposit(&store, "d", [1]).await;
                written += 1;
            }
            written
        })
    };
    let reader = {
        let (model, done) = (model.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut before = 0;
            while !done.load(Ordering::SeqCst) {
                let (events, by) = counts(&model).await;
                assert!(events >= before, "it went back from {before} to {events}");
                assert!((by - 1.0).abs() < 1e-9, "the same projector builds the same");
                before = events;
            }
        })
    };
    for _ in 0..3 {
        let rebuild = counting::<1>(&store, &model).rebuild().await.unwrap();
        let position = tokio::time::timeout(PATIENCE, rebuild.finished()).await.unwrap().unwrap();
        assert!(position >= Position::new(3_000));
        assert_eq!(rebuild.status().state, ConsumerState::Stopped);
    }
    done.store(true, Ordering::SeqCst);
    let written: i64 = writer.await.unwrap();
    reader.await.unwrap();
    live.wait_for(store.head(), PATIENCE).await.unwrap();
    assert_eq!(counts(&model).await.0, 3_000 + written, "each event took effect once");
    live.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_rebuild_is_seen_all_at_once_in_a_file_of_its_own() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
    a_rebuild_is_seen_all_at_once(store, model).await;
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_rebuild_is_seen_all_at_once_in_the_logs_file() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = store.read_model();
    a_rebuild_is_seen_all_at_once(store, model).await;
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_rebuild_is_seen_all_at_once_in_memory() {
    let store = SqliteStore::in_memory().await.unwrap();
    a_rebuild_is_seen_all_at_once(store, SqliteModel::in_memory().await.unwrap()).await;
    let store = SqliteStore::in_memory().await.unwrap();
    let model = store.read_model();
    a_rebuild_is_seen_all_at_once(store, model).await;
}

/// A changed projector is noticed: by its version, or by its tables. By default it does not start, and nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h16_a_changed_projector_is_refused() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
    fill(&store, 300).await;
    counting::<1>(&store, &model).catch_up().await.unwrap();
    for _ in 0..2 {
        let refused = counting::<2>(&store, &model).catch_up().await.unwrap_err();
        assert!(matches!(&refused, RunError::ProjectorChanged { .. }), "{refused:?}");
        let refused = counting::<3>(&store, &model).start().await.unwrap_err();
        assert!(matches!(&refused, RunError::ProjectorChanged { .. }), "{refused:?}");
    }
    assert_eq!(counts(&model).await, (300, 1.0));
    // The one that has built it still may.
    fill(&store, 30).await;
    counting::<1>(&store, &model).catch_up().await.unwrap();
    assert_eq!(counts(&model).await, (330, 1.0));
}

/// Beside the old one, or in place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h16_a_changed_projector_builds_its_read_model_anew() {
    for on_change in [OnChange::Beside, OnChange::InPlace] {
        let (folder, _) = folder();
        let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
        let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
        let last = fill(&store, 3_000).await;
        counting::<1>(&store, &model).catch_up().await.unwrap();
        let changed = Counts::<2>::default();
        changed.stuck_after.store(1_500, Ordering::SeqCst);
        let running = Projection::new(&store, changed.clone(), model.clone()).on_change(on_change);
        let running = running.start().await.unwrap();
        until("it is on its way", &running, |_| changed.projected.load(Ordering::SeqCst) >= 1_500).await;
        if on_change == OnChange::Beside {
            assert_eq!(running.status().state, ConsumerState::Rebuilding);
            assert_eq!(running.position(), Position::ZERO, "nobody can see it yet");
            assert_eq!(counts(&model).await, (3_000, 1.0), "the old one answers");
            // An older build of the program still runs somewhere.
            let last = deposit(&store, "d", [1, 1, 1]).await;
            assert_eq!(counting::<1>(&store, &model).catch_up().await.unwrap(), last);
            assert_eq!(counts(&model).await, (3_003, 1.0));
        }
        changed.stuck_after.store(0, Ordering::SeqCst);
        running.wait_for(last, PATIENCE).await.unwrap();
        let last = deposit(&store, "d", [1]).await;
        running.wait_for(last, PATIENCE).await.unwrap();
        let events = if on_change == OnChange::Beside { 3_004 } else { 3_001 };
        assert_eq!(counts(&model).await, (events, 2.0));
        until("it is live", &running, |status| status.state == ConsumerState::Live).await;
        running.stop().await.unwrap();
        // It is the one that has built it now.
        counting::<2>(&store, &model).catch_up().await.unwrap();
        let refused = counting::<1>(&store, &model).catch_up().await.unwrap_err();
        assert!(matches!(&refused, RunError::ProjectorChanged { .. }), "{refused:?}");
        counting::<3>(&store, &model).on_change(on_change).catch_up().await.unwrap();
        let more = model
            .query(|connection| connection.query_row("SELECT sum(more) FROM counts", [], |row| row.get::<_, i64>(0)));
        assert_eq!(more.await.unwrap(), 7 * 4);
        assert_eq!(left_over(folder.path()), Vec::<String>::new());
    }
}

/// A running projection of the old version ends when the read model was built anew by the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h16_an_old_version_ends_once_a_new_one_has_replaced_its_read_model() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
    let last = fill(&store, 300).await;
    let old = counting::<1>(&store, &model).start().await.unwrap();
    old.wait_for(last, PATIENCE).await.unwrap();
    counting::<2>(&store, &model).rebuild().await.unwrap().finished().await.unwrap();
    deposit(&store, "a", [1]).await;
    let ended = tokio::time::timeout(PATIENCE, old.finished()).await.unwrap().unwrap_err();
    assert!(matches!(&*ended, RunError::ProjectorChanged { .. }), "{ended:?}");
    assert_eq!(counts(&model).await, (300, 2.0));
}

/// A rebuild that was stopped goes on where it was, and a rebuild by another version does not go on with its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_rebuild_goes_on_where_it_was() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
    fill(&store, 9_000).await;
    counting::<1>(&store, &model).catch_up().await.unwrap();
    let projector = Counts::<1>::default();
    projector.stuck_after.store(4_500, Ordering::SeqCst);
    let rebuild = Projection::new(&store, projector.clone(), model.clone()).rebuild().await.unwrap();
    until("it is on its way", &rebuild, |status| status.rebuilt >= Some(Position::new(3_000))).await;
    assert_eq!(rebuild.status().state, ConsumerState::Rebuilding);
    projector.stuck_after.store(0, Ordering::SeqCst);
    rebuild.stop().await.unwrap();
    let before = projector.projected.load(Ordering::SeqCst);
    if counts(&model).await.0 == 9_000 && before < 9_000 {
        assert!(!left_over(folder.path()).is_empty(), "it is kept");
        let rebuild = Projection::new(&store, projector.clone(), model.clone()).rebuild().await.unwrap();
        rebuild.finished().await.unwrap();
        assert_eq!(projector.projected.load(Ordering::SeqCst), 9_000, "no event was projected twice");
    }
    assert_eq!(counts(&model).await, (9_000, 1.0));

    // Of another version: from the beginning.
    let other = Counts::<1>::default();
    other.stuck_after.store(1_500, Ordering::SeqCst);
    let rebuild = Projection::new(&store, other.clone(), model.clone()).rebuild().await.unwrap();
    until("it is on its way", &rebuild, |_| other.projected.load(Ordering::SeqCst) >= 1_500).await;
    other.stuck_after.store(0, Ordering::SeqCst);
    rebuild.stop().await.unwrap();
    counting::<2>(&store, &model).rebuild().await.unwrap().finished().await.unwrap();
    assert_eq!(counts(&model).await, (9_000, 2.0));
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

/// Polls a future this many times at most.
async fn polled<F: Future + Send>(times: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (std::pin::pin!(future), times);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Cut off at every place where it waits, a rebuild by a new version ends with what a fold from the beginning gives; until
/// then readers see the old rows, and from then on the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_rebuild_that_is_cut_off_anywhere_ends_the_same() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    fill(&store, 3_000).await;
    for polls in 1..60 {
        let path = folder.path().join(format!("counts-{polls}.db"));
        let model = SqliteModel::open(&path).await.unwrap();
        counting::<1>(&store, &model).catch_up().await.unwrap();
        let mut attempts = 0;
        loop {
            attempts += 1;
            assert!(attempts < 200, "it gets on");
            let run = counting::<2>(&store, &model).on_change(OnChange::Beside).catch_up();
            // A little further each time, so that every attempt gets on.
            let ended = polled(polls + attempts / 2, run).await;
            let (events, by) = counts(&model).await;
            assert!(events >= 3_000, "the old rows, or the new ones");
            if let Some(ended) = ended {
                // What was cut off may still be under way, and is then ahead.
                match ended {
                    Ok(_) => {
                        assert!((by - 2.0).abs() < 1e-9, "the new rows");
                        break;
                    }
                    Err(RunError::Model(ModelError::TakenOver { .. } | ModelError::Rebuilt { .. })) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        let last = deposit(&store, "a", [1]).await;
        assert_eq!(counting::<2>(&store, &model).catch_up().await.unwrap(), last);
        assert_eq!(counts(&model).await.0 % 3_000, i64::try_from(polls).unwrap(), "each event once");
        model.close().await.unwrap();
    }
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

/// A rebuild whose files are left over after the replacement, because the process was killed right then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_what_is_left_of_a_rebuild_is_removed() {
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("counts.db")).await.unwrap();
    fill(&store, 300).await;
    let projector = Counts::<1>::default();
    projector.stuck_after.store(100, Ordering::SeqCst);
    let rebuild = Projection::new(&store, projector.clone(), model.clone()).rebuild().await.unwrap();
    until("it is on its way", &rebuild, |_| projector.projected.load(Ordering::SeqCst) >= 100).await;
    let names = left_over(folder.path());
    let file = names.iter().find(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).unwrap().clone();
    projector.stuck_after.store(0, Ordering::SeqCst);
    rebuild.finished().await.unwrap();
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
    std::fs::write(folder.path().join(&file), "").unwrap();
    counting::<1>(&store, &model).catch_up().await.unwrap();
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
    assert_eq!(counts(&model).await, (300, 1.0));
}

/// Nothing is built beside a model that cannot be: the error says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h4_a_virtual_table_is_refused_before_anything_is_replaced() {
    struct Words;
    impl Projector for Words {
        type Event = AccountEvent;
        type Model = SqliteModel;
        type Error = rusqlite::Error;
        const NAME: &'static str = "words";
        fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
            tx.execute_batch("CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (t)")
        }
        fn project(&self, _: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
            tx.execute("INSERT INTO words VALUES ('word')", []).map(drop)
        }
    }
    let (folder, _) = folder();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("words.db")).await.unwrap();
    fill(&store, 30).await;
    Projection::new(&store, Words, model.clone()).catch_up().await.unwrap();
    let rebuild = Projection::new(&store, Words, model.clone()).rebuild().await.unwrap();
    let refused = rebuild.finished().await.unwrap_err();
    assert!(matches!(&*refused, RunError::Model(ModelError::NotAllowed { .. })), "{refused:?}");
    let found =
        model.query(|connection| connection.query_row("SELECT count(*) FROM words", [], |row| row.get::<_, i64>(0)));
    assert_eq!(found.await.unwrap(), 30);
}
