//! H: read models in SQLite, in a file of their own and in the log's file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use es_conformance::bank::AccountEvent;
use es_framework::engine::PAGE_EVENTS;
use es_framework::{
    BoxError, CandidateEvent, ConsumerState, DecodeError, EncodeError, Event, EventType, ExpectedVersion, Filter,
    ModelError, Position, Projection, Projector, ReadModel as _, Recorded, RunError, Store, StoredEvent,
};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{Durability, SqliteModel, SqliteStore, SqliteTx};

use crate::support::folder;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One row per account: its balance and the number of its events.
#[derive(Debug, Default, Clone)]
struct Balances {
    /// The amount at which the projector fails; at twice this amount it panics.
    refuses: Arc<AtomicU64>,
}

impl Projector for Balances {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "balances";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch(
            "-- Made at the first start.
             CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, cents INTEGER, events INTEGER);
             CREATE INDEX IF NOT EXISTS balances_by_cents ON balances (cents);",
        )
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let cents = match event.event() {
            AccountEvent::Opened { .. } => 0,
            AccountEvent::Deposited { cents } => cents.cast_signed(),
            AccountEvent::Withdrawn { cents } => -cents.cast_signed(),
        };
        tx.execute(
            "INSERT INTO balances VALUES (?1, ?2, 1)
             ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents, events = events + 1",
            params![event.aggregate_id(), cents],
        )?;
        let refuses = self.refuses.load(Ordering::SeqCst).cast_signed();
        if refuses != 0 && cents == refuses {
            return Err(rusqlite::Error::InvalidQuery);
        }
        assert!(refuses == 0 || cents != 2 * refuses, "the projector breaks");
        Ok(())
    }
}

pub(crate) async fn deposit(store: &Store, account: &str, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().unwrap()).collect::<Vec<_>>();
    store.open_stream(format!("account-{account}")).unwrap().write(events, ExpectedVersion::Any).await.unwrap().position
}

async fn balances(model: &SqliteModel) -> BTreeMap<String, (i64, i64)> {
    let read = |connection: &rusqlite::Connection| {
        let mut statement = connection.prepare_cached("SELECT account, cents, events FROM balances")?;
        statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
    };
    model.query(read).await.unwrap()
}

/// The same scenario for each place where a read model can live.
async fn rows_and_checkpoint_commit_together(store: &SqliteStore, model: SqliteModel) {
    let balances_projector = Balances::default();
    let first = deposit(store, "alice", [1, 2, 3]).await;
    let running = Projection::new(store, balances_projector.clone(), model.clone()).start().await.unwrap();
    running.wait_for(first, PATIENCE).await.unwrap();
    assert_eq!(balances(&model).await["alice"], (6, 3));

    // An error stops it right before the event: rows and checkpoint are those of the events before. No append is
    // affected.
    balances_projector.refuses.store(13, Ordering::SeqCst);
    deposit(store, "alice", [4, 13, 5]).await;
    let failed = running.finished().await.unwrap_err();
    assert!(
        matches!(&*failed, RunError::Model(ModelError::Refused { position, .. }) if position.get() == 5),
        "{failed:?}"
    );
    assert_eq!(balances(&model).await["alice"], (10, 4));

    // So does a panic, at 14 here.
    let bad = deposit(store, "alice", [14]).await;
    balances_projector.refuses.store(7, Ordering::SeqCst);
    let running = Projection::new(store, balances_projector.clone(), model.clone()).start().await.unwrap();
    assert_eq!(running.position().get(), 4);
    let failed = running.finished().await.unwrap_err();
    let panicked_at = |error: &RunError| match error {
        RunError::Model(ModelError::Panicked { position, .. }) => *position,
        _ => None,
    };
    assert_eq!(panicked_at(&failed), Some(bad), "{failed:?}");
    assert_eq!(balances(&model).await["alice"], (28, 6));

    // Once the cause is gone it continues, and each event has taken effect once.
    balances_projector.refuses.store(0, Ordering::SeqCst);
    let running = Projection::new(store, balances_projector, model.clone()).start().await.unwrap();
    running.wait_for(bad, PATIENCE).await.unwrap();
    let live = deposit(store, "bob", [100]).await;
    running.wait_for(live, PATIENCE).await.unwrap();
    assert_eq!(running.status().state, ConsumerState::Live);
    assert_eq!(balances(&model).await, [("alice".into(), (42, 7)), ("bob".into(), (100, 1))].into());
    assert_eq!(running.stop().await.unwrap(), live);
}

#[tokio::test]
async fn h1_rows_and_checkpoint_commit_together_in_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    let model = SqliteModel::open(folder.path().join("balances.db")).await.unwrap();
    rows_and_checkpoint_commit_together(&store, model.clone()).await;
    model.close().await.unwrap();
    store.close().await.unwrap();
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left.len(), 2, "no -wal and no -shm stays: {left:?}");
}

#[tokio::test]
async fn h1_rows_and_checkpoint_commit_together_in_the_logs_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    rows_and_checkpoint_commit_together(&store, store.read_model()).await;
    store.close().await.unwrap();
    let store = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    assert_eq!(balances(&store.read_model()).await["bob"], (100, 1));
    store.close().await.unwrap();
}

#[tokio::test]
async fn h1_rows_and_checkpoint_commit_together_in_memory() {
    let store = SqliteStore::in_memory().await.unwrap();
    rows_and_checkpoint_commit_together(&store, SqliteModel::in_memory().await.unwrap()).await;
    let store = SqliteStore::in_memory().await.unwrap();
    rows_and_checkpoint_commit_together(&store, store.read_model()).await;
}

#[tokio::test]
async fn h2_a_runner_that_finds_its_checkpoint_moved_stops() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("log.db")).await.unwrap();
    let path = folder.path().join("balances.db");
    let models = [SqliteModel::open(&path).await.unwrap(), SqliteModel::open(&path).await.unwrap()];
    let first = Projection::new(&store, Balances::default(), models[0].clone()).start().await.unwrap();
    let second = Projection::new(&store, Balances::default(), models[1].clone()).start().await.unwrap();
    let position = deposit(&store, "alice", [1]).await;
    let (one, other) = tokio::join!(first.wait_for(position, PATIENCE), second.wait_for(position, PATIENCE));
    assert!(one.is_ok() != other.is_ok(), "one of the two goes on: {one:?}, {other:?}");
    let (ahead, behind) = if one.is_ok() { (first, second) } else { (second, first) };
    let error = behind.finished().await.unwrap_err();
    assert!(matches!(&*error, RunError::Model(ModelError::TakenOver { .. })), "{error:?}");
    let position = deposit(&store, "alice", [1]).await;
    ahead.wait_for(position, PATIENCE).await.unwrap();
    assert_eq!(balances(&models[0]).await["alice"], (2, 2));
}

/// Runs the projection over a log until it has processed everything.
async fn catch_up(log: &Path, model: &Path) -> Result<Position, RunError> {
    let store = SqliteStore::open(log).await.unwrap();
    let model = SqliteModel::open(model).await.unwrap();
    let reached = Projection::new(&store, Balances::default(), model.clone()).catch_up().await;
    model.close().await.unwrap();
    store.close().await.unwrap();
    reached
}

async fn write_to(log: &Path, account: &str, cents: impl IntoIterator<Item = u64>) {
    let store = SqliteStore::open(log).await.unwrap();
    deposit(&store, account, cents).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn h1_a_log_that_was_rewound_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let [log, model, backup, other] =
        ["log.db", "model.db", "backup.db", "other.db"].map(|name| folder.path().join(name));
    write_to(&log, "alice", [1, 2]).await;
    std::fs::copy(&log, &backup).unwrap();
    write_to(&log, "alice", [3]).await;
    assert_eq!(catch_up(&log, &model).await.unwrap().get(), 3);
    let rewound = |reached: Result<Position, RunError>, reason: &str| match reached {
        Err(RunError::LogRewound { position, reason: said, .. }) => {
            assert_eq!(position.get(), 3);
            assert!(said.contains(reason), "{said}");
        }
        other => panic!("{other:?}"),
    };
    // An earlier backup was restored: the log is shorter.
    std::fs::copy(&backup, &log).unwrap();
    rewound(catch_up(&log, &model).await, "ends at position 2");
    // It grew again, with other events.
    write_to(&log, "bob", [4, 5]).await;
    rewound(catch_up(&log, &model).await, "another");
    // It is a different store altogether.
    write_to(&other, "alice", [1, 2, 3]).await;
    rewound(catch_up(&other, &model).await, "store");
}

/// Events that record how far decoding got.
#[derive(Debug)]
struct Seen(AccountEvent);

static DECODED: AtomicU64 = AtomicU64::new(0);

impl Event for Seen {
    fn names() -> Vec<&'static str> {
        AccountEvent::names()
    }
    fn event_types() -> Vec<Arc<EventType>> {
        AccountEvent::event_types()
    }
    fn encode(&self) -> Result<CandidateEvent, EncodeError> {
        self.0.encode()
    }
    fn decode(stored: &StoredEvent) -> Result<Self, DecodeError> {
        DECODED.fetch_max(stored.position.get(), Ordering::SeqCst);
        AccountEvent::decode(stored).map(Self)
    }
}

/// Where a projector signals that it waits, until it may continue.
struct Gate {
    waits: mpsc::Sender<()>,
    may_go_on: Mutex<mpsc::Receiver<()>>,
}

impl Gate {
    fn new() -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((waits, waiting), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
        (Self { waits, may_go_on: Mutex::new(may_go_on) }, waiting, go_on)
    }

    fn pass(&self) -> Result<(), BoxError> {
        self.waits.send(())?;
        Ok(self.may_go_on.lock().unwrap().recv_timeout(PATIENCE)?)
    }
}

/// Records each event and the checkpoint it finds; at an amount of 7 it waits until it may continue, and at 13 it
/// fails.
struct Slow {
    gate: Gate,
}

impl Projector for Slow {
    type Event = Seen;
    type Model = SqliteModel;
    type Error = BoxError;
    const NAME: &'static str = "slow";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), BoxError> {
        Ok(tx.execute_batch("CREATE TABLE IF NOT EXISTS seen (position INTEGER PRIMARY KEY, checkpoint INTEGER)")?)
    }

    fn project(&self, event: &Recorded<Seen>, tx: &mut SqliteTx<'_>) -> Result<(), BoxError> {
        let position = event.position().get();
        let decoded = DECODED.load(Ordering::SeqCst);
        assert!(decoded <= position + 2 * PAGE_EVENTS as u64, "{decoded} are decoded at {position}");
        match event.event().0 {
            AccountEvent::Deposited { cents: 7 } => {
                self.gate.pass()?;
            }
            AccountEvent::Deposited { cents: 13 } => return Err("thirteen".into()),
            _ => {}
        }
        let insert = "INSERT INTO seen VALUES (?1, (SELECT position FROM projection_checkpoints))";
        tx.execute(insert, [event.position().as_i64()])?;
        Ok(())
    }
}

/// Creates a slow projector, with the channels for its signals and for letting it continue.
fn slow() -> (Slow, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (gate, waiting, go_on) = Gate::new();
    (Slow { gate }, waiting, go_on)
}

pub(crate) async fn number(model: &SqliteModel, sql: &'static str) -> u64 {
    let number = model.query(move |connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)));
    number.await.unwrap().cast_unsigned()
}

async fn decoded_beyond(position: u64) {
    let decoded = async {
        while DECODED.load(Ordering::SeqCst) <= position {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, decoded).await.expect("the next batch is decoded meanwhile");
}

/// For a projection that has caught up, everything written during a transaction shares the next one.
async fn live_events_share_a_transaction() {
    let store = SqliteStore::in_memory().await.unwrap();
    let model = SqliteModel::in_memory().await.unwrap();
    let (projector, waiting, go_on) = slow();
    let running = Projection::new(&store, projector, model.clone()).start().await.unwrap();
    let first = deposit(&store, "alice", [1]).await;
    running.wait_for(first, PATIENCE).await.unwrap();
    deposit(&store, "alice", [7]).await;
    tokio::task::spawn_blocking(move || waiting.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    let mut last = Position::ZERO;
    for _ in 0..50 {
        last = deposit(&store, "alice", [1]).await;
    }
    go_on.send(()).unwrap();
    running.wait_for(last, PATIENCE).await.unwrap();
    assert_eq!(number(&model, "SELECT count(DISTINCT checkpoint) FROM seen WHERE position > 2").await, 1);
    running.stop().await.unwrap();
}

/// While a batch of the history is processed the next one is decoded, and no more than that. Stopping and failing are
/// unaffected by it. It is all in one test, because a single counter counts what is decoded.
#[tokio::test]
async fn h6_what_is_decoded_ahead_takes_no_effect() {
    live_events_share_a_transaction().await;

    let page = PAGE_EVENTS as u64;
    let store = SqliteStore::in_memory().await.unwrap();
    let model = SqliteModel::in_memory().await.unwrap();
    let seen = "SELECT count(*) FROM seen";
    deposit(&store, "alice", [7].into_iter().chain(vec![1; 4 * PAGE_EVENTS])).await;
    let (projector, _waiting, go_on) = slow();
    let running = Projection::new(&store, projector, model.clone()).start().await.unwrap();
    decoded_beyond(page).await;
    // Stopped while the first batch is in progress, and the second one is decoded.
    let (stopped, ()) = tokio::join!(running.stop(), async { go_on.send(()).unwrap() });
    assert_eq!((stopped.unwrap().get(), number(&model, seen).await), (page, page));

    // The error of a batch comes before that of the one ahead, which cannot be decoded.
    let bad = deposit(&store, "alice", vec![1; PAGE_EVENTS - 3].into_iter().chain([7, 13, 1])).await.get() - 1;
    let unreadable = CandidateEvent::new("account.deposited", "no such payload, and far too long for one").unwrap();
    store.open_stream("account-alice").unwrap().write(unreadable, ExpectedVersion::Any).await.unwrap();
    let (projector, _waiting, go_on) = slow();
    let running = Projection::new(&store, projector, model.clone()).start().await.unwrap();
    decoded_beyond(bad + 1).await;
    // Once more when those before it are processed again.
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    let error = running.finished().await.unwrap_err();
    let RunError::Model(ModelError::Refused { position, .. }) = &*error else { panic!("{error:?}") };
    assert_eq!((position.get(), running.position().get()), (bad, bad - 1));
    assert_eq!(number(&model, seen).await, bad - 1);
}

const CHILD: &str = "ES_SQLITE_READ_MODEL_CHILD";

/// Not a fact of its own: the process that the next test kills. Without the variable it does nothing.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the parent waits for a word")]
async fn child_that_projects_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let folder = Path::new(&folder);
    let store = SqliteStore::open(folder.join("log.db")).await.unwrap();
    let model = SqliteModel::open(folder.join("model.db")).await.unwrap();
    let running = Projection::new(&store, Balances::default(), model).start().await.unwrap();
    println!("projecting");
    running.finished().await.unwrap();
}

/// A projecting process is killed at random moments; in the end every event has taken effect exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h1_a_killed_projection_has_applied_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.db");
    let store = SqliteStore::builder().durability(Durability::Normal).open(&log).await.unwrap();
    let accounts = ["a", "b", "c"];
    let mut written = 0;
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "read_models::child_that_projects_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("projecting")));
        for account in accounts {
            deposit(&store, account, vec![1; 700]).await;
            written += 700;
        }
        // Anywhere between "not started" and "everything processed".
        tokio::time::sleep(Duration::from_millis(round * 2)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    store.close().await.unwrap();
    assert_eq!(catch_up(&log, &folder.path().join("model.db")).await.unwrap().get(), written);
    let model = SqliteModel::open(folder.path().join("model.db")).await.unwrap();
    let each = (i64::try_from(written).unwrap() / 3, i64::try_from(written).unwrap() / 3);
    assert_eq!(balances(&model).await, accounts.map(|account| (account.to_owned(), each)).into());
}

/// Signals when it is at position 10, and waits there until it may continue.
struct Held {
    gate: Gate,
}

impl Projector for Held {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = BoxError;
    const NAME: &'static str = "held";

    fn project(&self, event: &Recorded<AccountEvent>, _: &mut SqliteTx<'_>) -> Result<(), BoxError> {
        if event.position() == Position::new(10) {
            self.gate.pass()?;
        }
        Ok(())
    }
}

/// Another process writes to other categories while the projection catches up, and the notifier learns of it late:
/// nothing wakes the projection for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h3_a_projection_of_one_category_is_live_beside_writes_to_others() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().poll_interval(Duration::from_millis(300)).open(&path).await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    let deposits: Vec<_> = (0..6_500).map(|cents| AccountEvent::Deposited { cents }.encode().unwrap()).collect();
    store.open_stream("account-a").unwrap().write(deposits, ExpectedVersion::Any).await.unwrap();
    let (gate, waiting, go_on) = Gate::new();
    let projection = Projection::new(&store, Held { gate }, SqliteModel::in_memory().await.unwrap());
    let running = projection.filter(Filter::new().category("account")).start().await.unwrap();
    // The first page has arrived, with the head at which the catch-up ends, and the last has not.
    tokio::task::spawn_blocking(move || waiting.recv_timeout(PATIENCE)).await.unwrap().unwrap();
    other
        .open_stream("noise-1")
        .unwrap()
        .write(CandidateEvent::new("noise", "").unwrap(), ExpectedVersion::Any)
        .await
        .unwrap();
    go_on.send(()).unwrap();
    let live = async {
        while running.status().state != ConsumerState::Live {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, live).await.expect("it has caught up");
    running.stop().await.unwrap();
    store.close().await.unwrap();
    other.close().await.unwrap();
}

/// A panic payload can panic again when dropped, which ended the connection's thread.
#[tokio::test]
async fn a_panic_whose_payload_panics_too_leaves_the_model_usable() {
    struct PanicsToo;
    impl Drop for PanicsToo {
        fn drop(&mut self) {
            panic!("as it is dropped");
        }
    }
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for model in [SqliteModel::in_memory().await.unwrap(), store.read_model()] {
        let panicked = model.transact(|_| -> Result<(), ModelError> { std::panic::panic_any(PanicsToo) }).await;
        assert!(matches!(panicked, Err(ModelError::Panicked { .. })), "{panicked:?}");
        model.query(|_| -> rusqlite::Result<()> { std::panic::panic_any(PanicsToo) }).await.unwrap_err();
        let made = model.transact(|tx| tx.execute_batch("CREATE TABLE mine (x)").map_err(ModelError::failed)).await;
        made.unwrap();
        assert_eq!(number(&model, "SELECT count(*) FROM mine").await, 0);
    }
    store.close().await.unwrap();
}
