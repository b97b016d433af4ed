//! A3, A9, B2: what happens to groups of writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use es_framework::{
    Append, AppendError, CandidateEvent, CellError, CellKey, Clock, EventId, ExpectedVersion, ModelError,
    ReadModel as _, StoreError, SystemClock, Timestamp,
};
use es_sqlite::SqliteStore;
use es_sqlite::rusqlite::Connection;

use crate::support::{event, folder, id, sql, write};

/// Thousands of callers repeat what they wrote, all at once: each gets its first outcome, and nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_a_flood_of_retries_is_known() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for round in 0..2 {
        let writes: Vec<_> = (0..2_500)
            .map(|n| {
                let event = event("x").with_id(EventId::text(format!("id-{n}")).unwrap());
                let stream = store.stream(id(&format!("s-{}", n % 100)));
                tokio::spawn(async move { stream.write(event, ExpectedVersion::Any).await })
            })
            .collect();
        for write in writes {
            assert_eq!(write.await.unwrap().unwrap().was_known(), round == 1);
        }
        // New events are still written in between.
        write(&store, "new-1", "y").await;
    }
    assert_eq!(store.all().read().collect().await.unwrap().len(), 2_502);
    store.close().await.unwrap();
}

/// A row inserted by someone else where the next event belongs is reported as damage; it ends neither the writer nor
/// the process.
#[tokio::test]
async fn f4_a_place_that_is_taken_is_damage() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..3 {
        write(&store, &format!("s-{n}"), "x").await;
    }
    let plain = Connection::open(&path).unwrap();
    plain.execute("UPDATE es_event SET position = 9223372036854775807 WHERE position = 3", []).unwrap();
    for _ in 0..3 {
        let error = store.stream(id("s-0")).write(event("y"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::Corrupt { .. })), "{error:?}");
    }
    plain.execute("UPDATE es_event SET position = 3 WHERE position = 9223372036854775807", []).unwrap();
    write(&store, "s-0", "y").await;
    store.close().await.unwrap();
}

/// A write waits for other processes for no longer than its own timeout, however many wait before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_a_write_is_busy_after_its_own_time() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().write_timeout(Duration::from_millis(400)).open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let plain = Connection::open(&path).unwrap();
    plain.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let large = "x".repeat(8 << 20);
    let writes: Vec<_> = (0..6)
        .map(|n| {
            let stream = store.stream(id("s-1"));
            let event = event(if n < 5 { large.as_str() } else { "y" });
            tokio::spawn(async move { stream.write(event, ExpectedVersion::Any).await })
        })
        .collect();
    for write in writes {
        let error = write.await.unwrap().unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::Busy { .. })), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_millis(1_600), "{:?}, six waits one after the other", begun.elapsed());
    plain.execute_batch("COMMIT").unwrap();
    write(&store, "s-1", "y").await;
    store.close().await.unwrap();
}

/// Events without any bytes use memory, too, and so count against the queue.
#[tokio::test]
async fn a9_empty_events_fill_the_queue() {
    let (_folder, path) = folder();
    let store = Arc::new(SqliteStore::builder().queue(4_096, 1 << 20).open(&path).await.unwrap());
    let plain = Connection::open(&path).unwrap();
    plain.execute_batch("BEGIN IMMEDIATE").unwrap();
    let many = || Append::to(id("s-1"), ExpectedVersion::Any, vec![event(""); 5_000]).fail_when_full();
    let first = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.append(many()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = store.append(many()).await;
    let third = store.append(many()).await;
    assert!([second, third].iter().any(|answer| matches!(answer, Err(AppendError::Overloaded))));
    plain.execute_batch("COMMIT").unwrap();
    first.await.unwrap().unwrap();
    store.close().await.unwrap();
}

/// When SQLite rolls a read model's transaction back by itself, nothing after it persists, whatever the projector
/// ignores.
#[tokio::test]
async fn h1_nothing_stays_of_a_transaction_that_sqlite_ended() {
    let model = es_sqlite::SqliteModel::in_memory().await.unwrap();
    let table = "CREATE TABLE t (n INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)";
    model.transact(move |tx| tx.execute_batch(table).map_err(ModelError::failed)).await.unwrap();
    let ended = model.transact(|tx| {
        for n in [1, 2, 2, 3] {
            let _ignored = tx.execute("INSERT INTO t VALUES (?1)", [n]);
        }
        Ok(())
    });
    ended.await.unwrap_err();
    let count =
        model.query(|connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)));
    assert_eq!(count.await.unwrap(), 0);
}

/// A long reader costs writers little, however large the write-ahead log grows meanwhile.
#[tokio::test]
async fn a9_a_long_reader_does_not_hold_writers_up() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().durability(es_sqlite::Durability::Normal).open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let plain = Connection::open(&path).unwrap();
    plain.execute_batch("BEGIN; SELECT count(*) FROM es_event").unwrap();
    for _ in 0..40 {
        store.stream(id("s-1")).write(event("x".repeat(2 << 20)), ExpectedVersion::Any).await.unwrap();
    }
    let begun = Instant::now();
    for _ in 0..640 {
        write(&store, "s-1", "x").await;
    }
    // Ten checks of a log that cannot be emptied, which took 0.2 seconds each when each waited for the reader.
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    plain.execute_batch("COMMIT").unwrap();
    store.close().await.unwrap();
}

#[derive(Debug, Default)]
struct Breaks {
    calls: AtomicUsize,
}

impl Clock for Breaks {
    fn now(&self) -> Timestamp {
        assert_ne!(self.calls.fetch_add(1, Ordering::SeqCst), 1, "the clock breaks once, at the second write");
        SystemClock.now()
    }
}

/// The second joins the group while the first one's transaction waits to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_write_that_panics_takes_no_other_down_and_is_tried_alone() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().clock(Arc::new(Breaks::default())).open(&path).await.unwrap();
    let other = sql(&path);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut writes = Vec::new();
    for n in 0..2 {
        let stream = store.stream(id(&format!("s-{n}")));
        writes.push(tokio::spawn(async move { stream.write(event("x"), ExpectedVersion::Any).await }));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    other.execute_batch("COMMIT").unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(store.all().read().collect().await.unwrap().len(), 2);
    store.close().await.unwrap();
}

/// Each handle remembers the number of the last stream it created. After the other one has created one, too, that
/// number is taken, which was reported as damage.
#[tokio::test]
async fn f1_two_handles_that_make_streams_and_types_in_turns() {
    let (_folder, path) = folder();
    let handles = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    for n in 0..12 {
        let store = &handles[n % 2];
        let [new, old] = [n, n / 2].map(|n| CandidateEvent::new(format!("type-{n}"), "x").unwrap());
        store.stream(id(&format!("s-{n}"))).write(new, ExpectedVersion::NoStream).await.unwrap();
        // And one more in a stream that the other may have created.
        store.stream(id(&format!("s-{}", n / 2))).write(old, ExpectedVersion::StreamExists).await.unwrap();
        // Two new ones at once.
        let two = Append::to(id(&format!("t-{n}")), ExpectedVersion::NoStream, event("y"));
        store.append(two.and(id(&format!("u-{n}")), ExpectedVersion::NoStream, event("y"))).await.unwrap();
    }
    for store in &handles {
        assert_eq!(store.all().read().collect().await.unwrap().len(), 48);
        assert_eq!(store.stream(id("s-0")).version().await.unwrap(), 3);
        store.close().await.unwrap();
    }
}

/// Everything accepted is written before the store is closed, of whatever kind it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_closing_waits_for_what_was_accepted() {
    for in_memory in [false, true] {
        let (_folder, path) = folder();
        let store = if in_memory { SqliteStore::in_memory().await } else { SqliteStore::open(&path).await }.unwrap();
        write(&store, "s-1", "x").await;
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let holding = tokio::spawn({
            let store = store.clone();
            async move { store.transact(move |_| held.recv()).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut writes: Vec<_> = (0..20)
            .map(|n| {
                let stream = store.stream(id(&format!("w-{n}")));
                tokio::spawn(async move { stream.write(event("x"), ExpectedVersion::NoStream).await.map(drop) })
            })
            .collect();
        let cell = store.clone();
        writes.push(tokio::spawn(async move {
            let key = CellKey::new("cell").unwrap();
            cell.set_cell(&key, 0, Some("x".into())).await.map_err(|error| AppendError::Store(errors(error)))?;
            Ok(())
        }));
        let model = store.read_model();
        writes.push(tokio::spawn(async move {
            model.transact(|tx| tx.execute_batch("CREATE TABLE t (x)").map_err(ModelError::failed)).await.unwrap();
            Ok(())
        }));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.close().await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!closing.is_finished());
        let late = store.stream(id("late-1")).write(event("x"), ExpectedVersion::Any).await;
        assert!(matches!(late, Err(AppendError::Store(StoreError::Closed))), "{late:?}");
        hold.send(()).unwrap();
        holding.await.unwrap().unwrap();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        closing.await.unwrap().unwrap();
        if !in_memory {
            let store = SqliteStore::open(&path).await.unwrap();
            assert_eq!(store.all().read().collect().await.unwrap().len(), 21);
            assert!(store.cell(&CellKey::new("cell").unwrap()).await.unwrap().is_some());
            store.close().await.unwrap();
            let table = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
            assert_eq!(sql(&path).query_row(table, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        }
    }
}

/// A job between two groups takes a place in the queue, and gives it back.
#[tokio::test]
async fn a9_read_models_give_their_places_in_the_queue_back() {
    for in_memory in [false, true] {
        let (_folder, path) = folder();
        let builder = SqliteStore::builder().queue(2, 2_048);
        let store = if in_memory { builder.in_memory().await } else { builder.open(&path).await }.unwrap();
        let model = store.read_model();
        let many = async {
            for n in 0..10 {
                model.transact(|_| Ok(())).await.unwrap();
                model.transact(|_| Err::<(), _>(ModelError::failed("on purpose"))).await.unwrap_err();
                write(&store, &format!("s-{n}"), "x").await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), many).await.expect("a place is given back");
        store.close().await.unwrap();
    }
}

fn errors(error: CellError) -> StoreError {
    match error {
        CellError::Store(error) => error,
        error => panic!("{error}"),
    }
}
