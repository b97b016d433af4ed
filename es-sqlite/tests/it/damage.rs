//! Damaged rows, removed events, reading with plain SQL.

use std::fs;

use es_framework::{
    Append, AppendError, CommandKey, ErrorKind, EventId, ExpectedVersion, Filter, Fingerprint, KeyedCommand, Outcome,
    Position, ProjectionName, Snapshot, StoreError, Version,
};
use es_sqlite::{OpenError, SqliteStore, rusqlite};

use crate::support::{all, delete, event, folder, id, sql, texts, with_id, write};

fn is_at(error: &StoreError, at: u64) -> bool {
    matches!(error, StoreError::Corrupt { position: Some(position), .. } if *position == at)
}

#[tokio::test]
async fn whatever_is_changed_in_an_event_is_noticed_and_its_position_named() {
    for change in [
        "UPDATE es_event SET payload = x'00' WHERE position = 2",
        "UPDATE es_event SET payload = 'b' WHERE position = 2",
        "UPDATE es_event SET payload = NULL WHERE position = 2",
        "UPDATE es_event SET metadata = '{}' WHERE position = 2",
        "UPDATE es_event SET metadata = x'ff' WHERE position = 2",
        "UPDATE es_event SET metadata = CAST(x'ff' AS TEXT) WHERE position = 2",
        "UPDATE es_event SET id = 'other' WHERE position = 2",
        "UPDATE es_event SET id = x'00' WHERE position = 2",
        "UPDATE es_event SET id = 7 WHERE position = 2",
        "UPDATE es_event SET time = time + 1 WHERE position = 2",
        "UPDATE es_event SET type = 99 WHERE position = 2",
        "UPDATE es_event SET type = 0 WHERE position = 2",
        "UPDATE es_event SET stream = 99 WHERE position = 2",
        "UPDATE es_event SET version = 9 WHERE position = 2",
        "UPDATE es_event SET checksum = checksum + 1 WHERE position = 2",
        "UPDATE es_event SET checksum = 'x' WHERE position = 2",
    ] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        for n in ["a", "b", "c"] {
            store.stream(id("s-1")).write(with_id(n, n), ExpectedVersion::Any).await.unwrap();
        }
        sql(&path).execute_batch(change).unwrap();
        let error = store.all().read().collect().await.unwrap_err();
        assert!(is_at(&error, 2), "{change}: {error}");
        assert_eq!(error.kind(), ErrorKind::Data);
        let rest = store.all().read().after(Position::new(2)).collect().await.unwrap();
        assert_eq!(texts(&rest), ["c"], "{change}");
        write(&store, "s-2", "d").await;
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_name_that_is_damaged_is_noticed_by_its_events() {
    for change in [
        "UPDATE es_stream SET name = 'changed' WHERE id = 1",
        "UPDATE es_stream SET name = x'ff' WHERE id = 1",
        "UPDATE es_event_type SET name = 'changed' WHERE id = 1",
        "UPDATE es_event_type SET schema_version = -1 WHERE id = 1",
        "UPDATE es_event_type SET codec = '' WHERE id = 1",
        "UPDATE es_event_type SET shape = 'x' WHERE id = 1",
    ] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store, "s-1", "a").await;
        sql(&path).execute_batch(change).unwrap();
        for filter in [Filter::new(), Filter::new().stream_prefix("s")] {
            let error = store.all().read().filter(filter).collect().await.unwrap_err();
            assert!(is_at(&error, 1), "{change}: {error}");
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_byte_that_flips_in_the_file_is_noticed() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..100 {
        write(&store, "s-1", &format!("payload-{n:03}")).await;
    }
    store.close().await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|window| window == b"payload-041").unwrap();
    bytes[at + 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert!(is_at(&store.all().read().collect().await.unwrap_err(), 42));
    let before = store.stream(id("s-1")).read().before(Version::new(42)).collect().await.unwrap();
    assert_eq!(before.len(), 41);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_reads_as_missing_and_can_be_replaced() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    let stream = store.stream(id("s-1"));
    stream.snapshot("sum", Version::new(1), "state").await.unwrap();
    for change in ["state = x'00'", "at = 9", "fingerprint = x'00'", "time = 'x'"] {
        sql(&path).execute_batch(&format!("UPDATE es_snapshot SET {change}")).unwrap();
        assert_eq!(stream.load_snapshot("sum").await.unwrap(), None, "{change}");
        stream.snapshot("sum", Version::new(1), "state").await.unwrap();
        assert_eq!(&stream.load_snapshot("sum").await.unwrap().unwrap().state[..], b"state");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn damaged_cells_commands_and_facts_are_errors() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let cell = es_framework::CellKey::new("lease/mailer").unwrap();
    store.set_cell(&cell, 0, Some("me".into())).await.unwrap();
    let command = CommandKey::new("c-1").unwrap();
    let append = Append::to(id("s-1"), ExpectedVersion::Any, event("a"));
    store.append(append.command(KeyedCommand::new(command.clone(), Fingerprint::of(b"c")))).await.unwrap();
    sql(&path).execute_batch("UPDATE es_cell SET revision = 7; UPDATE es_command SET position = 7").unwrap();
    assert!(matches!(store.cell(&cell).await, Err(StoreError::Corrupt { position: None, .. })));
    let listed = store.cells(es_framework::ListCells::new()).await;
    assert!(matches!(listed, Err(StoreError::Corrupt { position: None, .. })));
    assert!(matches!(store.command(&command).await, Err(StoreError::Corrupt { position: None, .. })));
    store.close().await.unwrap();
    sql(&path)
        .execute_batch("UPDATE es_meta SET value = x'00000000000000000000000000000000' WHERE key = 'store_id'")
        .unwrap();
    assert!(matches!(SqliteStore::open(&path).await, Err(OpenError::Store(StoreError::Corrupt { .. }))));
}

/// Removes the content of an event, as a later release will when it truncates.
fn remove(connection: &rusqlite::Connection, position: i64) -> rusqlite::Result<()> {
    let (stream, version, time, checksum, event_id): (i64, i64, i64, i32, String) = connection.query_row(
        "SELECT stream, version, time, checksum, id FROM es_event WHERE position = ?1",
        [position],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
    )?;
    let text = |text: &str| {
        let length = u32::try_from(text.len()).unwrap();
        [&[2][..], &length.to_le_bytes(), text.as_bytes()].concat()
    };
    let mut bytes = text("removed");
    for integer in [position, stream, version, time, checksum.into()] {
        bytes.push(1);
        bytes.extend(integer.to_le_bytes());
    }
    bytes.extend(text(&event_id));
    let marker = crc32c::crc32c(&bytes).to_le_bytes();
    connection.execute(
        "UPDATE es_event SET type = 0, metadata = NULL, payload = ?2 WHERE position = ?1",
        (position, marker),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_removed_event_is_passed_over_and_its_retry_recognised() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let stream = store.stream(id("s-1"));
    for n in ["a", "b", "c"] {
        stream.write(with_id(n, n), ExpectedVersion::Any).await.unwrap();
    }
    let mark_before =
        store.engine().read(es_framework::engine::Read::new(es_framework::StreamId::all())).await.unwrap().mark;
    let plain = sql(&path);
    remove(&plain, 1).and_then(|()| remove(&plain, 3)).unwrap();
    for reader in [stream.read(), store.all().read(), stream.read().filter(Filter::new().stream_like("s%"))] {
        assert_eq!(texts(&reader.collect().await.unwrap()), ["b"]);
    }
    let page = store.engine().read(es_framework::engine::Read::new(es_framework::StreamId::all())).await.unwrap();
    assert_eq!((page.scanned, page.head, page.end), (3, 3, true));
    assert_eq!(page.mark, mark_before, "a checkpoint still recognises its log");
    assert_eq!(stream.version().await.unwrap(), 3);
    let retry = stream.write(with_id("c", "c"), ExpectedVersion::Exact(Version::new(2))).await.unwrap();
    assert_eq!(
        (retry.outcome, retry.version(), retry.position),
        (Outcome::AlreadyWritten, Version::new(3), Position::new(3))
    );
    // Its content is no longer known, so different content cannot be told apart from it.
    assert!(stream.write(with_id("other", "a"), ExpectedVersion::Any).await.unwrap().was_known());
    let other = stream.write(with_id("other", "b"), ExpectedVersion::Any).await;
    assert!(matches!(other, Err(AppendError::IdReused { .. })));
    stream.write(with_id("d", "d"), ExpectedVersion::Exact(Version::new(3))).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn positions_of_deleted_rows_are_never_given_again() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for n in ["a", "b", "c"] {
        write(&store, &format!("s-{n}"), n).await;
    }
    let plain = sql(&path);
    let shorten = |connection: &rusqlite::Connection| {
        let sum = |key: &str, value: i64| {
            let text =
                |text: &str| [&[2][..], &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
            let bytes = [text("meta"), text(key), vec![1], value.to_le_bytes().to_vec()].concat();
            crc32c::crc32c(&bytes).cast_signed()
        };
        let set = "INSERT OR REPLACE INTO es_meta VALUES (?1, ?2, ?3)";
        connection.execute(set, ("position_floor", 10, sum("position_floor", 10)))?;
        connection.execute(set, ("generation", 1, sum("generation", 1)))?;
        connection.execute("DELETE FROM es_event WHERE position > 1", [])
    };
    shorten(&plain).unwrap();
    drop(plain);
    store.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-d", "d").await;
    let events = all(&store).await;
    assert_eq!(texts(&events), ["a", "d"]);
    assert_eq!(events[1].position, 11);
    let back = store.all().read().backward().collect().await.unwrap();
    assert_eq!(texts(&back), ["d", "a"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_log_can_be_read_with_plain_sql() {
    let (_folder, path) = folder();
    let clock = std::sync::Arc::new(Fixed);
    let store = SqliteStore::builder().clock(clock).open(&path).await.unwrap();
    let uuid = EventId::text("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    store.stream(id("s-1")).write(event("a").with_id(uuid), ExpectedVersion::Any).await.unwrap();
    store.close().await.unwrap();
    let row: (i64, String, i64, String, String, String, Vec<u8>) = sql(&path)
        .query_row("SELECT position, stream, version, type, time, id, payload FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })
        .unwrap();
    assert_eq!((row.0, row.1.as_str(), row.2, row.3.as_str()), (1, "s-1", 1, "tested"));
    assert_eq!(row.4, "1969-12-31T23:59:59.999999Z");
    assert_eq!(row.5, "67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!(row.6, b"a");
}

#[derive(Debug)]
struct Fixed;

impl es_framework::Clock for Fixed {
    fn now(&self) -> es_framework::Timestamp {
        es_framework::Timestamp::from_micros(-1)
    }
}

#[tokio::test]
async fn every_kind_of_write_can_be_retried_after_the_store_was_opened_again() {
    let (_folder, path) = folder();
    let uuid = EventId::time_ordered(es_framework::Timestamp::from_micros(1));
    let with_command = || {
        Append::to(id("c-1"), ExpectedVersion::NoStream, event("c"))
            .command(KeyedCommand::new(CommandKey::new("k").unwrap(), Fingerprint::of(b"k")))
    };
    let several = || {
        Append::to(id("m-1"), ExpectedVersion::NoStream, vec![with_id("1", "1"), with_id("2", "2")])
            .and(id("m-2"), ExpectedVersion::NoStream, event("3").with_id(uuid.clone()))
            .check(id("m-3"), ExpectedVersion::NoStream)
    };
    let nothing =
        || Append::default().command(KeyedCommand::new(CommandKey::new("none").unwrap(), Fingerprint::of(b"none")));
    let store = SqliteStore::open(&path).await.unwrap();
    let mut first = Vec::new();
    for append in [with_command(), several(), nothing()] {
        first.push(store.append(append).await.unwrap());
    }
    write(&store, "m-1", "later").await;
    write(&store, "m-3", "later").await;
    store.stream(id("m-1")).snapshot("s", Version::new(2), "state").await.unwrap();
    store.close().await.unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    for (append, first) in [with_command(), several(), nothing()].into_iter().zip(first) {
        let again = store.append(append).await.unwrap();
        assert!(again.was_known());
        assert_eq!((again.position, again.time), (first.position, first.time));
        let versions = |appended: &es_framework::Appended| -> Vec<_> {
            let written = appended.streams.iter().filter(|stream| stream.stream != "m-3");
            written.map(|stream| (stream.stream.clone(), stream.first, stream.last)).collect()
        };
        assert_eq!(versions(&again), versions(&first));
    }
    assert_eq!(all(&store).await.len(), 6);
    let snapshot = Snapshot::new(id("m-1"), ProjectionName::new("s").unwrap(), 2, Fingerprint::default(), "state");
    store.engine().save_snapshot(snapshot).await.unwrap();
    store.close().await.unwrap();
}

/// What a later truncation leaves: pages are requested ahead based on how far the previous one reached, and gaps
/// mislead that.
#[tokio::test]
async fn gaps_between_positions_mislead_no_read() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..60 {
        let events: Vec<_> = (0..1_000).map(|m| event(format!("{n}-{m}"))).collect();
        store.stream(id(&format!("s-{n}"))).write(events, ExpectedVersion::Any).await.unwrap();
    }
    delete(
        &path,
        "position BETWEEN 1 AND 900 OR position BETWEEN 3001 AND 26000
         OR position BETWEEN 30000 AND 40000 AND position % 3 = 0 OR position BETWEEN 45500 AND 45600",
    );
    let left: Vec<i64> = {
        let sql = sql(&path);
        let mut left = sql.prepare("SELECT position FROM es_event ORDER BY position").unwrap();
        left.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for (events, bytes) in [(1_000, 4 << 20), (100, 4 << 20), (1_000, 3_000)] {
        let read = store.all().read().page(events, bytes).collect().await.unwrap();
        let read: Vec<i64> = read.iter().map(|event| event.position.as_i64()).collect();
        assert_eq!(read, left, "pages of {events} and {bytes} bytes");
    }
    let mut watch = store.all().watch().from_start().await.unwrap();
    let mut watched = Vec::new();
    while watched.len() < left.len() {
        watched.extend(watch.next_batch().await.unwrap().unwrap().iter().map(|event| event.position.as_i64()));
    }
    assert_eq!(watched, left);
    store.close().await.unwrap();
}
