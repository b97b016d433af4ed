//! H10, H11: processes that fight for one projection over one store file, are killed, or frozen and continued after
//! their lease has run out. What each event did is in the read model, one row each time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use es_conformance::bank::AccountEvent;
use es_framework::{Lease, ModelError, Projection, Projector, Recorded, RunError, Running};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{Durability, SqliteModel, SqliteStore, SqliteTx};

use crate::read_models::{PATIENCE, deposit};
use crate::support::{all, command, folder, in_child, say};

const PARTITIONS: &str = "ES_SQLITE_TEST_PARTITIONS";
const LASTS: &str = "ES_SQLITE_TEST_LASTS";

/// Notes what it has done, and in which process. Nothing in the table keeps it from doing so twice.
struct Noting;

impl Projector for Noting {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "noting";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS effect
               (n INTEGER PRIMARY KEY, position INTEGER, stream TEXT, version INTEGER, process INTEGER)",
        )
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let (position, version) = (event.position().get().cast_signed(), event.version().get().cast_signed());
        tx.execute(
            "INSERT INTO effect (position, stream, version, process) VALUES (?1, ?2, ?3, ?4)",
            params![position, event.stream().as_str(), version, std::process::id()],
        )
        .map(drop)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Effect {
    position: u64,
    stream: String,
    version: u64,
    process: u32,
}

fn model_of(store: &Path) -> PathBuf {
    store.with_file_name("model.db")
}

fn stop_of(store: &Path) -> PathBuf {
    store.with_file_name("stop")
}

/// All of them, in the order in which they were committed.
async fn effects(model: &SqliteModel) -> Vec<Effect> {
    let look = |connection: &rusqlite::Connection| {
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'effect'";
        if connection.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Vec::new());
        }
        let mut rows = connection.prepare("SELECT position, stream, version, process FROM effect ORDER BY n")?;
        let effect = |row: &rusqlite::Row<'_>| {
            let number = |index| row.get(index).map(i64::cast_unsigned);
            Ok(Effect { position: number(0)?, stream: row.get(1)?, version: number(2)?, process: row.get(3)? })
        };
        rows.query_map([], effect)?.collect()
    };
    model.query(look).await.unwrap()
}

async fn until(what: &str, model: &SqliteModel, holds: impl Fn(&[Effect]) -> bool) -> Vec<Effect> {
    let begun = Instant::now();
    loop {
        let effects = effects(model).await;
        if holds(&effects) {
            return effects;
        }
        let last = effects.last();
        assert!(begun.elapsed() < PATIENCE, "{what}: {} effects, the last is {last:?}", effects.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each event of the log took effect once, and those of each stream in order.
async fn check(store: &SqliteStore, model: &SqliteModel, in_order: bool) {
    let mut effects = effects(model).await;
    let fold: Vec<(u64, String, u64)> = all(store)
        .await
        .into_iter()
        .map(|event| (event.position.get(), event.stream.to_string(), event.version.get()))
        .collect();
    if !in_order {
        let mut streams: Vec<(&str, u64)> = effects.iter().map(|at| (at.stream.as_str(), at.version)).collect();
        // The order within each is kept.
        streams.sort_by_key(|(stream, _)| *stream);
        assert!(streams.is_sorted(), "the events of a stream in order");
        effects.sort_by_key(|effect| effect.position);
    }
    let effects: Vec<_> = effects.into_iter().map(|at| (at.position, at.stream, at.version)).collect();
    let first = effects.iter().zip(&fold).position(|(effect, event)| effect != event);
    assert_eq!(first, None, "{:?}", first.map(|at| (&effects[at], &fold[at])));
    assert_eq!(effects.len(), fold.len());
}

/// Not a test when it runs among all others: the process that the tests below start. It wants to run the projection, or
/// all of its partitions, until there is a file that says stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_wants_to_own() {
    let Some(path) = in_child() else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let (count, lasts) = (number(PARTITIONS), Duration::from_millis(number(LASTS).into()));
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let model = SqliteModel::open(model_of(&path)).await.unwrap();
    let stop = stop_of(&path);
    let runs = (0..count).map(|index| {
        let (store, model, stop) = (store.clone(), model.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.exists() {
                let whole = Projection::new(&store, Noting, model.clone()).lease(Lease::default().lasts(lasts));
                let mut partitions = whole.partitions(count).unwrap();
                let ended = match partitions.swap_remove(index as usize).start().await {
                    Ok(running) => until_stopped(&running, &stop).await.map_err(|error| format!("{error:?}")),
                    Err(error) => Err(error).or_else(taken_over).map_err(|error| format!("{error:?}")),
                };
                ended.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    store.close().await.unwrap();
}

async fn until_stopped(running: &Running, stop: &Path) -> Result<(), Arc<RunError>> {
    while !stop.exists() && !running.status().state.is_over() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match running.stop().await {
        Err(error) if taken_over_by(&error) => Ok(()),
        ended => ended.map(drop),
    }
}

/// What may happen while processes with different numbers of partitions run.
fn taken_over_by(error: &RunError) -> bool {
    matches!(error, RunError::Model(ModelError::TakenOver { .. }))
}

fn taken_over(error: RunError) -> Result<(), RunError> {
    if taken_over_by(&error) { Ok(()) } else { Err(error) }
}

/// A process that wants to own; killed when it is dropped.
struct Owner(Child);

impl Owner {
    fn start(path: &Path, partitions: u32, lasts: u32) -> Self {
        let mut command = command("owners::a_process_that_wants_to_own", path);
        command.env(PARTITIONS, partitions.to_string()).env(LASTS, lasts.to_string());
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn has(&self, effect: &Effect) -> bool {
        effect.process == self.0.id()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn ended_well(path: &Path, owners: Vec<Owner>) {
    std::fs::write(stop_of(path), "").unwrap();
    for mut owner in owners {
        assert!(owner.0.wait().unwrap().success(), "a process failed");
    }
}

/// The owner is frozen until its lease has run out and the other one has taken over. Continued, it commits nothing more;
/// once the other is killed, it takes over.
async fn a_frozen_owner_commits_nothing_more(partitions: u32) {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let model = SqliteModel::open(model_of(&path)).await.unwrap();
    let accounts: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let write = async || {
        for account in &accounts {
            deposit(&store, account, [1, 2]).await;
        }
        usize::try_from(store.all().metrics().await.unwrap().position.get()).unwrap()
    };
    let mut events = write().await;
    let first = Owner::start(&path, partitions, 300);
    until("the first one owns it", &model, |effects| effects.len() == events).await;
    // It keeps what it has, however busy the machine is.
    let mut second = Owner::start(&path, partitions, 3_000);
    tokio::time::sleep(Duration::from_millis(300)).await;
    loop {
        first.signal("STOP");
        // It may be about to write to the store.
        if let Ok(written) = tokio::time::timeout(Duration::from_secs(2), write()).await {
            events = written;
            break;
        }
        first.signal("CONT");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = until("the second one takes over", &model, |effects| effects.len() == events).await;
    assert!(second.has(before.last().unwrap()));
    first.signal("CONT");
    for _ in 0..5 {
        events = write().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let after = until("the second one goes on", &model, |effects| effects.len() >= events).await;
    assert!(after[before.len()..].iter().all(|effect| second.has(effect)), "of the one that has the lease");
    second.kill();
    events = write().await;
    let last = until("the first one takes over", &model, |effects| effects.len() >= events).await;
    assert!(first.has(last.last().unwrap()));
    ended_well(&path, vec![first]);
    check(&store, &model, partitions == 1).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h10_a_frozen_owner_commits_nothing_more() {
    a_frozen_owner_commits_nothing_more(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h11_a_frozen_owner_of_partitions_commits_nothing_more() {
    a_frozen_owner_commits_nothing_more(3).await;
}

/// Four processes, some of which are killed and some frozen for longer than their lease lasts, at whatever they are doing,
/// while events are written.
async fn each_event_takes_effect_once(partitions: [u32; 4]) {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let model = SqliteModel::open(model_of(&path)).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            for n in 0.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                deposit(&store, &(n % 23).to_string(), [1, 2, 3]).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let start = |index: usize| Owner::start(&path, partitions[index], 300);
    let mut owners: Vec<Owner> = (0..4).map(start).collect();
    let some = |effects: &[Effect]| effects.len() > 20;
    until("somebody begins", &model, some).await;
    for round in 0..8 {
        // Who has committed last, if it is still there.
        let last = effects(&model).await.pop();
        let owner = last.and_then(|last| owners.iter().position(|owner| owner.has(&last)));
        let victim = owner.unwrap_or(round % 4);
        if round % 2 == 0 {
            owners[victim].signal("STOP");
            tokio::time::sleep(Duration::from_millis(650)).await;
            owners[victim].signal("CONT");
        } else {
            owners[victim].kill();
            owners[victim] = start(victim);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    done.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    // A lease is of an index, whatever the number: of 2, 3 and 4 partitions, those that hold one may leave out a slot, for
    // as long as the numbers differ. So the last ones that are started agree.
    for index in 0..3 {
        if partitions[index] != partitions[3] {
            owners[index].kill();
            owners[index] = Owner::start(&path, partitions[3], 300);
        }
    }
    let events = all(&store).await.len();
    let effects = until("all is applied", &model, |effects| effects.len() >= events).await;
    ended_well(&path, owners);
    check(&store, &model, partitions == [1; 4]).await;
    let processes: BTreeSet<u32> = effects.iter().map(|effect| effect.process).collect();
    say(&format!("{events} events took effect once, in {} processes with {partitions:?} partitions", processes.len()));
    assert!(processes.len() > 1, "one process did it all");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h10_each_event_takes_effect_once_while_owners_are_killed_and_frozen() {
    each_event_takes_effect_once([1; 4]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h11_each_event_takes_effect_once_while_owners_with_other_numbers_of_partitions_are_killed_and_frozen() {
    each_event_takes_effect_once([2, 3, 4, 3]).await;
}
