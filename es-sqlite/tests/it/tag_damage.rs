//! Damage to tags and to their index, made with plain SQL: the pages stay intact and only the rows differ.

use std::path::Path;

use es_framework::inspect::{Cursor, Verified};
use es_framework::{
    Append, AppendError, CandidateEvent, Conflict, Criterion, ExpectedVersion, Filter, Position, Query, Store,
    StoreError, StoredEvent,
};
use es_sqlite::SqliteStore;

use crate::support::{folder, id, sql};
use crate::tags::{with_tags, write_tagged};

/// The tags that are asked for, and the positions of their events. In the order of their first events their numbers are
/// a 1, b 2, c 3, e 4, f 5, d 6: the last event has `d:1`, whose posting is also the last one.
const EXPECTED: [(&str, &[u64]); 6] = [
    ("a:1", &[1, 4, 7, 10]),
    ("b:1", &[2, 5, 8, 11]),
    ("c:1", &[3, 6, 9, 10]),
    ("d:1", &[12]),
    ("e:1", &[5]),
    ("f:1", &[6, 11]),
];

async fn make(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    for position in 1..=12 {
        let tags: Vec<&str> = EXPECTED.iter().filter(|(_, at)| at.contains(&position)).map(|(tag, _)| *tag).collect();
        assert_eq!(write_tagged(&store, "s-1", "x", &tags).await, position);
    }
    store.close().await.unwrap();
}

fn positions(events: &[StoredEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.get()).collect()
}

/// Reads event after event, so that what precedes the damage is returned, and then reads on behind it.
async fn read(store: &Store, query: &Query, backward: bool) -> (Vec<u64>, Option<StoreError>) {
    let read = store.all().read().filter(Filter::new().query(query.clone())).page(2, 1 << 20);
    let mut reading = if backward { read.backward() } else { read }.stream();
    let mut found = Vec::new();
    while let Some(event) = reading.next().await {
        match event {
            Ok(event) => found.push(event),
            Err(error) => return (positions(&found), Some(error)),
        }
    }
    (positions(&found), None)
}

pub(crate) async fn findings(store: &Store) -> Vec<String> {
    let (mut findings, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let inspect = store.engine().inspect().unwrap();
        let Verified { findings: found, next, .. } = inspect.verify(after.as_ref()).await.unwrap();
        findings.extend(found.iter().map(ToString::to_string));
        let Some(next) = next else { return findings };
        after = Some(next);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Noticed {
    /// By reads by the tags concerned, and by conditions on them.
    ByReading,
    /// By verification alone: what is asked is answered all the same.
    ByVerifying,
}

#[tokio::test]
async fn damage_to_tags_is_never_answered_with_fewer_or_other_events() {
    use Noticed::{ByReading, ByVerifying};
    let (_folder, whole) = folder();
    make(&whole).await;
    let damages = [
        // Entries that are lost: the first, one in between, the last; of the last event; at the end of the index.
        ("DELETE FROM es_posting WHERE term = 1 AND position = 1", ByReading),
        ("DELETE FROM es_posting WHERE term = 2 AND position = 5", ByReading),
        ("DELETE FROM es_posting WHERE term = 3 AND position IN (6, 9)", ByReading),
        ("DELETE FROM es_posting WHERE term = 6 AND position = 12", ByReading),
        ("DELETE FROM es_posting WHERE term = 4", ByReading),
        ("DELETE FROM es_posting", ByReading),
        ("DELETE FROM es_posting WHERE term < 0", ByVerifying),
        // Entries that are made up, or were changed.
        ("INSERT INTO es_posting VALUES (1, 2, 2)", ByReading),
        ("INSERT INTO es_posting VALUES (1, 11, 5)", ByReading),
        ("INSERT INTO es_posting VALUES (5, 100, 3)", ByReading),
        ("UPDATE es_posting SET position = 5 WHERE term = 1 AND position = 4", ByReading),
        ("UPDATE es_posting SET position = 2000 WHERE term = 4", ByReading),
        ("UPDATE es_posting SET position = 2 WHERE term = 4", ByReading),
        ("UPDATE es_posting SET position = 8 WHERE term = 1 AND position = 10", ByReading),
        ("UPDATE es_posting SET term = 9 WHERE term = 2 AND position = 8", ByReading),
        ("UPDATE es_posting SET term = 6 WHERE term = 2 AND position = 8", ByReading),
        ("UPDATE es_posting SET nth = 7 WHERE term = 1 AND position = 7", ByReading),
        ("UPDATE es_posting SET nth = -1 WHERE term = 4", ByReading),
        // Lists.
        ("UPDATE es_event SET tags = 2 WHERE position = 4", ByReading),
        ("UPDATE es_event SET tags = NULL WHERE position = 4", ByReading),
        ("UPDATE es_event SET tags = 77 WHERE position = 4", ByReading),
        ("UPDATE es_event SET tags = '3,1' WHERE position = 10", ByReading),
        ("UPDATE es_event SET tags = 'x' WHERE position = 10", ByReading),
        ("UPDATE es_event SET tags = x'01' WHERE position = 10", ByReading),
        ("UPDATE es_event SET payload = x'00' WHERE position = 5", ByReading),
        ("DELETE FROM es_event WHERE position = 5", ByReading),
        // Names.
        ("UPDATE es_tag SET name = 'a:2' WHERE id = 1", ByReading),
        ("UPDATE es_tag SET checksum = 5 WHERE id = 3", ByReading),
        ("INSERT INTO es_tag VALUES (10, 'g:1', 5)", ByVerifying),
    ];
    for (damage, noticed) in damages {
        let (_folder, path) = folder();
        std::fs::copy(&whole, &path).unwrap();
        assert!(sql(&path).execute(damage, []).unwrap() > 0, "{damage}");
        let store = SqliteStore::open(&path).await.unwrap();
        let mut refused = 0;
        for (name, expected) in EXPECTED {
            let query = with_tags(&[name]);
            for backward in [false, true] {
                let (found, error) = read(&store, &query, backward).await;
                let mut expected = expected.to_vec();
                if backward {
                    expected.reverse();
                }
                match error {
                    None => assert_eq!(found, expected, "{damage}: {name}, backward: {backward}"),
                    Some(StoreError::Corrupt { .. }) => {
                        assert!(expected.starts_with(&found), "{damage}: {name}, backward: {backward}: {found:?}");
                        refused += 1;
                    }
                    Some(error) => panic!("{damage}: {name}: {error:?}"),
                }
            }
            for after in 0..12 {
                let first = expected.iter().find(|position| **position > after);
                match (store.append(Append::default().unless(&query, Position::new(after))).await, first) {
                    (Ok(_), None) => {}
                    (Err(AppendError::Conflict { conflicts }), Some(first)) => {
                        let [Conflict::Condition { position, .. }] = &conflicts[..] else { panic!("{conflicts:?}") };
                        assert_eq!(position.get(), *first, "{damage}: {name} after {after}");
                    }
                    (Err(AppendError::Store(StoreError::Corrupt { .. })), _) => refused += 1,
                    (wrong, _) => panic!("{damage}: {name} after {after}: {wrong:?}"),
                }
            }
        }
        assert_eq!(refused > 0, noticed == ByReading, "{damage}: {refused}");
        let findings = findings(&store).await;
        assert!(!findings.is_empty(), "{damage} is not found by a verification");
        store.close().await.ok();
    }
}

/// A type has a posting for its first event in each block: three blocks of five have a `rare` one.
#[tokio::test]
async fn damage_to_the_postings_of_types_is_never_answered_with_fewer_or_other_events() {
    let (_folder, whole) = folder();
    let expected = [5_u64, 6, 2_100, 4_097, 4_500];
    let store = SqliteStore::open(&whole).await.unwrap();
    for first in (1..=5_000).step_by(500) {
        let of = |position: u64| {
            let name = if expected.contains(&position) { "rare" } else { "often" };
            let event = CandidateEvent::new(name, "x").unwrap();
            if position.is_multiple_of(900) { event.with_tags([crate::tags::tag("a:1")]) } else { event }
        };
        let events: Vec<_> = (first..first + 500).map(of).collect();
        store.stream(id("s-1")).write(events, ExpectedVersion::Any).await.unwrap();
    }
    store.close().await.unwrap();
    let query: Query = Criterion::types(["rare"]).into();
    let number = "SELECT id FROM es_event_type WHERE name = 'rare'";
    let number: i64 = sql(&whole).query_row(number, [], |row| row.get(0)).unwrap();
    for damage in [
        "DELETE FROM es_posting WHERE term = -? AND position = 5",
        "DELETE FROM es_posting WHERE term = -? AND position = 2100",
        "DELETE FROM es_posting WHERE term = -?",
        "UPDATE es_posting SET position = 6 WHERE term = -? AND position = 5",
        "UPDATE es_posting SET position = 7 WHERE term = -? AND position = 5",
        "UPDATE es_posting SET position = 6 WHERE term = -? AND position = 2100",
        "UPDATE es_posting SET position = 4500 WHERE term = -? AND position = 2100",
        "UPDATE es_posting SET position = 1025 WHERE term = -? AND position = 2100",
        "UPDATE es_posting SET position = 9000 WHERE term = -? AND position = 4097",
        "UPDATE es_posting SET nth = 4 WHERE term = -? AND position = 2100",
        "UPDATE es_posting SET term = 1 WHERE term = -? AND position = 2100",
        "INSERT INTO es_posting VALUES (-?, 1030, 2)",
        "INSERT INTO es_posting VALUES (-?, 4999, 4)",
        "DELETE FROM es_event WHERE position = 2101",
        "UPDATE es_event SET type = 77 WHERE position = 2100",
        "UPDATE es_event SET type = 77 WHERE position = 4500",
    ] {
        let (_folder, path) = folder();
        std::fs::copy(&whole, &path).unwrap();
        let statement = damage.replace('?', &number.to_string());
        assert!(sql(&path).execute(&statement, []).unwrap() > 0, "{damage}");
        let store = SqliteStore::open(&path).await.unwrap();
        let mut refused = 0;
        for backward in [false, true] {
            let (found, error) = read(&store, &query, backward).await;
            let mut expected = expected.to_vec();
            if backward {
                expected.reverse();
            }
            match error {
                // The first event of a block only says that there is one.
                None => assert_eq!(found, expected, "{damage}, backward: {backward}"),
                Some(StoreError::Corrupt { .. }) => {
                    assert!(expected.starts_with(&found), "{damage}, backward: {backward}: {found:?}");
                    refused += 1;
                }
                Some(error) => panic!("{damage}: {error:?}"),
            }
        }
        for after in [0, 5, 6, 2_099, 2_100, 4_096, 4_499, 4_500] {
            let first = expected.iter().find(|position| **position > after);
            match (store.append(Append::default().unless(&query, Position::new(after))).await, first) {
                (Ok(_), None) => {}
                (Err(AppendError::Conflict { conflicts }), Some(first)) => {
                    let [Conflict::Condition { position, .. }] = &conflicts[..] else { panic!("{conflicts:?}") };
                    assert_eq!(position.get(), *first, "{damage}: after {after}");
                }
                (Err(AppendError::Store(StoreError::Corrupt { .. })), _) => refused += 1,
                (wrong, _) => panic!("{damage}: after {after}: {wrong:?}"),
            }
        }
        assert!(refused > 0 || damage.contains("position = 6 WHERE term = -? AND position = 5"), "{damage}");
        assert!(refused == 0 || !findings(&store).await.is_empty(), "{damage} is not found by a verification");
        store.close().await.ok();
    }
}

/// Neighbours that are damaged keep nobody from reading what is behind them.
#[tokio::test]
async fn what_is_behind_a_damaged_event_can_be_read() {
    let (_folder, path) = folder();
    make(&path).await;
    sql(&path).execute("UPDATE es_event SET payload = x'00' WHERE position = 4", []).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let query = with_tags(&["a:1"]);
    let (found, error) = read(&store, &query, false).await;
    assert_eq!(found, [1]);
    let Some(StoreError::Corrupt { position, .. }) = error else { panic!("{error:?}") };
    assert_eq!(position, Some(Position::new(4)));
    for after in [4, 5] {
        let behind = store.all().read().after(Position::new(after)).filter(Filter::new().query(query.clone())).await;
        assert_eq!(positions(&behind.unwrap()), [7, 10], "{after}");
    }
    let before = store.all().read().before(Position::new(4)).backward().filter(Filter::new().query(query)).await;
    assert_eq!(positions(&before.unwrap()), [1]);
    // A tag that is rarer leads past it.
    let both: Query = Criterion::tags(["a:1", "d:1"].map(crate::tags::tag)).into();
    assert!(matches!(read(&store, &both, false).await, (found, None) if found.is_empty()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_undamaged_store_with_tags_verifies() {
    let (_folder, path) = folder();
    make(&path).await;
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(findings(&store).await, [""; 0]);
    store.close().await.unwrap();
}
