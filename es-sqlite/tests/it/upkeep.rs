//! Maintenance between two jobs of the writer: the size of the `-wal` file stays bounded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use es_framework::{ExpectedVersion, ModelError, ReadModel};
use es_sqlite::{Durability, SqliteModel, SqliteStore};

use crate::support::{all, child, event, folder, id, in_child, sql, write};

/// The maximum size of the file: it is emptied at 64 MiB, and a little more is written until then. On a machine that is
/// busy with other things, the readers may exceed the patience once: then it is emptied at twice that size.
const BOUND: u64 = 160 << 20;
/// The total amount written.
const WRITTEN: usize = 300;

/// How long each reader keeps its transaction open.
const HELD: Duration = Duration::from_millis(20);

/// The process of the tests below: three readers, one of which always has started before the last one has ended.
#[test]
fn a_process_whose_readers_overlap() {
    let Some(path) = in_child() else { return };
    // Until its input is closed by the process that started it, or that process has ended.
    let ended = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        for n in 0..3 {
            let (path, ended) = (path.clone(), Arc::clone(&ended));
            scope.spawn(move || read_and_hold(&path, n, &ended));
        }
        let stop = path.with_extension("stop");
        while !stop.exists() && path.exists() {
            thread::sleep(Duration::from_millis(5));
        }
        ended.store(true, Ordering::Relaxed);
    });
}

fn read_and_hold(path: &Path, n: u32, ended: &AtomicBool) {
    let connection = sql(path);
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    thread::sleep(HELD * n / 3);
    while !ended.load(Ordering::Relaxed) {
        connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
        thread::sleep(HELD);
        connection.execute_batch("COMMIT").unwrap();
    }
}

/// The largest size of the `-wal` file, sampled continuously.
struct Largest {
    bytes: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Largest {
    fn of(path: &Path) -> Self {
        let largest = Self { bytes: Arc::default(), ended: Arc::default() };
        let wal = PathBuf::from(format!("{}-wal", path.display()));
        let (bytes, ended) = (Arc::clone(&largest.bytes), Arc::clone(&largest.ended));
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                bytes.fetch_max(fs::metadata(&wal).map_or(0, |wal| wal.len()), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        largest
    }
}

impl Drop for Largest {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` while two other processes read a database with overlapping readers, and returns the largest size of its
/// `-wal` file.
async fn beside_readers(path: &Path, work: impl Future<Output = ()>) -> u64 {
    let mut children: Vec<_> = (0..2).map(|_| child("upkeep::a_process_whose_readers_overlap", path)).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let largest = Largest::of(path);
    work.await;
    fs::write(path.with_extension("stop"), "").unwrap();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    largest.bytes.load(Ordering::Relaxed)
}

/// SQLite restarts the file once nobody reads it, which never happens while other processes always do: writing 360 MB
/// made a file of up to 360 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wal_file_is_bounded_beside_readers_of_other_processes_that_overlap() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let largest = beside_readers(&path, async {
        for _ in 0..WRITTEN {
            store.stream(id("s-1")).write(event("x".repeat(1 << 20)), ExpectedVersion::Any).await.unwrap();
        }
    });
    let largest = largest.await;
    assert!(largest < BOUND, "{} MiB", largest >> 20);
    assert!(largest > 32 << 20, "the readers did not overlap: {} MiB", largest >> 20);
    assert_eq!(all(&store).await.len(), WRITTEN + 1);
    store.close().await.unwrap();
}

/// Rebuilding a read model writes a lot and appends nothing; the file was not checked then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wal_file_is_bounded_while_read_models_are_written() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let own = path.with_file_name("model.db");
    let own = (SqliteModel::open(&own).await.unwrap(), own);
    for (model, path) in [(store.read_model(), path.clone()), own] {
        rebuild(&model, "CREATE TABLE model (x)").await;
        let largest = beside_readers(&path, async {
            for _ in 0..WRITTEN {
                rebuild(&model, "INSERT INTO model VALUES (zeroblob(1048576))").await;
            }
        });
        let largest = largest.await;
        assert!(largest < BOUND, "{} MiB", largest >> 20);
        assert!(largest > 32 << 20, "the readers did not overlap: {} MiB", largest >> 20);
        model.close().await.unwrap();
    }
    store.close().await.unwrap();
}

async fn rebuild(model: &SqliteModel, statement: &'static str) {
    model.transact(move |tx| tx.execute_batch(statement).map_err(ModelError::failed)).await.unwrap();
}

/// For a reader that stays, the writer waits once per further 64 MiB, for half a second, and the space it holds is
/// freed once it is gone.
#[tokio::test]
async fn a_long_reader_is_waited_for_seldom_and_the_file_shrinks_after_it() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    let bytes = || fs::metadata(&wal).unwrap().len();
    let reader = sql(&path);
    reader.execute_batch("BEGIN; SELECT count(*) FROM es_event").unwrap();
    let mut slow = 0;
    while bytes() < 150 << 20 {
        let begun = Instant::now();
        store.stream(id("s-1")).write(event("x".repeat(1 << 20)), ExpectedVersion::Any).await.unwrap();
        slow += usize::from(begun.elapsed() >= Duration::from_millis(400));
    }
    assert!(slow <= 4, "waited {slow} times");
    reader.execute_batch("COMMIT").unwrap();
    while bytes() > 64 << 20 {
        assert!(bytes() < 256 << 20);
        store.stream(id("s-1")).write(event("x".repeat(1 << 20)), ExpectedVersion::Any).await.unwrap();
    }
    store.close().await.unwrap();
}
