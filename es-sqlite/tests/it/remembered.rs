//! What the writer remembers of the log, and what invalidates it: a rollback, another process.

use std::time::{Duration, Instant};

use es_framework::{Append, AppendError, CandidateEvent, ExpectedVersion, StoreError, Version};
use es_sqlite::SqliteStore;

use crate::support::{all, event, folder, id, on_writer, texts, write};

fn typed(event_type: &str, payload: &str) -> CandidateEvent {
    CandidateEvent::new(event_type, payload.to_owned()).unwrap()
}

/// A group that is rolled back created streams and types that no longer exist: their numbers are assigned again, to
/// different ones.
#[tokio::test]
async fn nothing_of_a_group_that_was_rolled_back_is_remembered() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-0", "0").await;
    let mut watch = store.all().watch().await.unwrap();
    let pages = on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 10), [], |row| row.get::<_, i64>(0))
    })
    .await;
    let events = vec![typed("first", "lost"), typed("second", "lost"), typed("second", &"x".repeat(1 << 20))];
    let too_large = Append::to(id("s-1"), ExpectedVersion::NoStream, events.clone())
        .and(id("s-2"), ExpectedVersion::NoStream, events.clone())
        .and(id("s-0"), ExpectedVersion::Exact(Version::new(1)), events);
    for _ in 0..3 {
        let refused = store.append(too_large.clone()).await.unwrap_err();
        assert!(matches!(refused, AppendError::Store(StoreError::DiskFull { .. })), "{refused:?}");
    }
    let more = format!("PRAGMA max_page_count = {}", pages + 1_000);
    on_writer(&store, move |connection| connection.query_row(&more, [], |row| row.get::<_, i64>(0))).await;
    // In a different order than before.
    let mut expected = vec![("s-0".to_owned(), "tested".to_owned(), "0".to_owned())];
    for (stream, event_type) in
        [("s-2", "third"), ("s-1", "second"), ("s-3", "first"), ("s-0", "second"), ("s-2", "first")]
    {
        let before = if stream == "s-0" || event_type == "first" && stream == "s-2" {
            ExpectedVersion::Exact(Version::new(1))
        } else {
            ExpectedVersion::NoStream
        };
        store.stream(id(stream)).write(typed(event_type, event_type), before).await.unwrap();
        expected.push((stream.to_owned(), event_type.to_owned(), event_type.to_owned()));
    }
    for (stream, event_type, _) in expected.iter().skip(1) {
        let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((told.stream.as_str(), told.event_type.name()), (&**stream, &**event_type), "watchers");
    }
    drop(watch);
    for reopened in [false, true] {
        let store = if reopened { SqliteStore::open(&path).await.unwrap() } else { store.clone() };
        let events = all(&store).await;
        assert!(events.iter().zip(1..).all(|(event, n)| event.position == n));
        let found: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.stream.to_string(),
                    event.event_type.name().to_owned(),
                    texts(std::slice::from_ref(event))[0].clone(),
                )
            })
            .collect();
        assert_eq!(found, expected);
        store.close().await.unwrap();
    }
}

/// The writer knows where streams end. It learns what another handle adds event by event, but beyond a few thousand
/// events not at all: then it must forget.
#[tokio::test]
async fn what_another_handle_wrote_is_known_however_much_it_is() {
    for count in [1, 100, 2_047, 2_048, 2_049, 5_000] {
        let (_folder, path) = folder();
        let [store, other] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
        for store in [&store, &other] {
            write(store, "s-1", "x").await;
            write(store, "s-2", "x").await;
        }
        let mut watch = store.all().watch().await.unwrap();
        let many: Vec<_> = (0..count).map(|n| event(n.to_string())).collect();
        other.stream(id("s-1")).write(many, ExpectedVersion::Any).await.unwrap();
        let stale = ExpectedVersion::Exact(Version::new(2));
        let refused = store.stream(id("s-1")).write(event("y"), stale).await.unwrap_err();
        assert!(matches!(refused, AppendError::Conflict { .. }), "{count}: {refused:?}");
        store.stream(id("s-2")).write(event("y"), stale).await.unwrap();
        let now = ExpectedVersion::Exact(Version::new(2 + count));
        store.stream(id("s-1")).write(event("y"), now).await.unwrap();
        // Watchers are notified of all of it, in order and once.
        for position in 5..=count + 6 {
            let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(told.position, position, "{count}");
        }
        assert!(tokio::time::timeout(Duration::from_millis(30), watch.next()).await.is_err());
        store.close().await.unwrap();
        other.close().await.unwrap();
    }
}

/// A watch of what another handle writes, while its own writes nothing.
#[tokio::test]
async fn a_flood_of_another_handle_is_watched_to_its_end() {
    let (_folder, path) = folder();
    let [store, other] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let mut watch = store.all().watch().await.unwrap();
    let mut position = 0;
    for count in [1, 2_048, 2_049, 5_000, 1] {
        let many: Vec<_> = (0..count).map(|n| event(n.to_string())).collect();
        other.stream(id("s-1")).write(many, ExpectedVersion::Any).await.unwrap();
        for _ in 0..count {
            position += 1;
            let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(told.position, position);
        }
    }
    store.close().await.unwrap();
    other.close().await.unwrap();
}

/// Without watchers the process does not poll, and sleeps for up to a second: a new watcher wakes it.
#[tokio::test]
async fn whoever_begins_to_watch_is_told_at_once_what_others_write() {
    let (_folder, path) = folder();
    let [store, other] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let mut took = Duration::ZERO;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let mut watch = store.all().watch().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(40), watch.next()).await.is_err(), "it is live");
        write(&other, "s-1", "x").await;
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
        took += begun.elapsed();
    }
    assert!(took < Duration::from_secs(2), "{took:?} for six");
    store.close().await.unwrap();
    other.close().await.unwrap();
}

/// Closing does not wait for that second either.
#[tokio::test]
async fn closing_wakes_the_one_who_looks_for_writes_of_others() {
    let (_folder, path) = folder();
    let mut took = Duration::ZERO;
    for _ in 0..6 {
        let store = SqliteStore::open(&path).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        store.close().await.unwrap();
        took += begun.elapsed();
    }
    assert!(took < Duration::from_secs(3), "{took:?} for six");
}
