use std::fs;
use std::path::Path;

use es_framework::{Append, AppendError, CandidateEvent, ExpectedVersion, Position, StoreError, StreamId, Version};
use es_sqlite::rusqlite::{self, Connection};
use es_sqlite::{OpenError, SqliteStore};
use tempfile::TempDir;

use super::migrate::FEATURE;
use super::*;
use crate::measure::Dice;
use crate::spec::{Index, Mode};

/// Small enough that a few hundred events go through several runs.
const SMALL: Bounds = Bounds { run: 64, slice: 8 };
const STREAMS: u64 = 20;

async fn store(index: Index) -> (TempDir, Writer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut writer = Writer::make(&path, Mode::Normal, 4, index, SMALL).await.unwrap();
    writer.begin_streams(STREAMS, b"x").unwrap();
    (folder, writer)
}

/// Recovers from a copy of the files in their current state, and compares with a scan of the log.
fn recovered(folder: &Path) -> usize {
    let copies = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        fs::copy(folder.join(name), copies.path().join(name)).unwrap();
    }
    let connection = Connection::open(copies.path().join("store.db")).unwrap();
    verify(&connection, &recover(&connection, SMALL).unwrap()).unwrap()
}

fn key(version: u64) -> Key {
    (1, Version::new(version))
}

#[tokio::test]
async fn a_version_that_is_in_memory_is_refused() {
    let (_folder, mut writer) = store(Index::Merged).await;
    let merged = writer.merged.as_mut().unwrap();
    assert!(merged.push(key(1), Position::new(99)).is_err(), "in the tail");
    merged.push(key(2), Position::new(99)).unwrap();
    assert!(merged.push(key(2), Position::new(100)).is_err(), "in the transaction");
    merged.rolled_back();
    merged.begin_run();
    assert!(merged.push(key(1), Position::new(99)).is_err(), "in the run");
    merged.push(key(2), Position::new(99)).unwrap();
}

#[tokio::test]
async fn a_version_that_is_in_the_table_is_refused_when_it_is_merged() {
    let (_folder, mut writer) = store(Index::Merged).await;
    writer.merge_rest().unwrap();
    let merged = writer.merged.as_mut().unwrap();
    merged.push(key(1), Position::new(99)).unwrap();
    merged.committed();
    assert!(merged.merge_rest(&writer.floor.connection).is_err());
}

#[tokio::test]
async fn the_version_of_a_stream_is_found_wherever_its_end_is() {
    let (_folder, mut writer) = store(Index::Merged).await;
    for _ in 0..100 {
        writer.append(7, b"x").unwrap();
        let merged = writer.merged.as_ref().unwrap();
        for stream in &writer.streams {
            let (number, version) = stream.head();
            assert_eq!(merged.version(&writer.floor.connection, number).unwrap(), version);
            assert_eq!(load(&writer.floor.connection, merged, number).unwrap().0, version.get());
        }
    }
    assert_eq!(writer.merged.unwrap().version(&writer.floor.connection, 99).unwrap(), Version::ZERO);
}

#[tokio::test]
async fn recovery_equals_a_scan_after_every_commit_and_in_the_middle_of_each() {
    let (folder, mut writer) = store(Index::Merged).await;
    let mut dice = Dice::new(3);
    let (mut partly, mut wholly) = (0, 0);
    for _ in 0..60 {
        let rows = usize::try_from(1 + dice.below(STREAMS)).unwrap();
        let committed = usize::try_from(writer.floor.position().get()).unwrap();
        writer.floor.begin().unwrap();
        writer.write(rows, b"x").unwrap();
        assert_eq!(recovered(folder.path()), committed);
        writer.commit().unwrap();
        assert_eq!(recovered(folder.path()), committed + rows);
        let state = State::read(&writer.floor.connection).unwrap();
        partly += usize::from(state.complete < state.upto);
        wholly += usize::from(state.complete == state.upto);
    }
    assert!(partly > 5 && wholly > 5, "crashes met runs that were begun ({partly}) and none ({wholly})");
}

#[tokio::test]
async fn a_rollback_takes_back_what_its_transaction_did_and_nothing_else() {
    let (_folder, mut writer) = store(Index::Merged).await;
    let mut merged_some = 0;
    for _ in 0..40 {
        writer.floor.begin().unwrap();
        let before = writer.floor.position();
        let rows: Vec<_> = (0..7).map(|n| ((99, Version::new(n + 1)), before.plus(n + 1))).collect();
        let merged = writer.merged.as_mut().unwrap();
        for (key, position) in rows {
            merged.push(key, position).unwrap();
        }
        merged_some += merged.merge(&writer.floor.connection).unwrap();
        writer.floor.connection.execute_batch("ROLLBACK").unwrap();
        merged.rolled_back();
        verify(&writer.floor.connection, merged).unwrap();
        writer.append(5, b"x").unwrap();
    }
    assert!(merged_some > 0);
    verify(&writer.floor.connection, &writer.merged.unwrap()).unwrap();
}

#[tokio::test]
async fn neither_slices_nor_memory_exceed_their_bounds() {
    let (_folder, mut writer) = store(Index::Merged).await;
    let mut dice = Dice::new(5);
    let mut slices = 0;
    for _ in 0..300 {
        let rows = usize::try_from(1 + dice.below(STREAMS)).unwrap();
        let merged = writer.append(rows, b"x").unwrap();
        assert!(merged <= Merged::most(SMALL, rows), "{merged} for {rows} rows");
        slices += usize::from(merged > 0);
        let most = SMALL.run + Merged::most(SMALL, usize::try_from(STREAMS).unwrap());
        assert!(writer.merged.as_ref().unwrap().entries() <= most);
    }
    assert!(slices > 100);
}

#[tokio::test]
async fn processes_merge_one_run_in_turns() {
    let (folder, mut a) = store(Index::Merged).await;
    let connection = Connection::open(folder.path().join("store.db")).unwrap();
    let mut b = recover(&connection, SMALL).unwrap();
    let mut turns = 0;
    for n in 0..200 {
        a.merged.as_mut().unwrap().catch_up(&a.floor.connection).unwrap();
        a.append(5, b"x").unwrap();
        if n % 3 == 0 {
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            b.catch_up(&connection).unwrap();
            if !b.run.is_empty() {
                turns += usize::from(b.merge_rest(&connection).unwrap() > 0);
            }
            connection.execute_batch("COMMIT").unwrap();
            b.committed();
            verify(&connection, &b).unwrap();
        }
    }
    assert!(turns > 20, "{turns}");
    let a = a.merged.as_mut().unwrap();
    a.catch_up(&connection).unwrap();
    verify(&connection, a).unwrap();
}

fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| (0..columns).map(|n| Ok(format!("{:?}", row.get_ref(n)?))).collect();
    statement.query_map([], text).unwrap().collect::<std::result::Result<_, _>>().unwrap()
}

#[tokio::test]
async fn plain_sql_finds_every_event_by_its_stream() {
    let (_folder, mut writer) = store(Index::Merged).await;
    for n in 0..60 {
        writer.append(5, b"x").unwrap();
        let connection = &writer.floor.connection;
        let one = |view| rows(connection, &format!("SELECT * FROM {view} WHERE stream = 'account-{}'", n % STREAMS));
        assert_eq!(one("stream_log"), one("log"));
        let all = |view| rows(connection, &format!("SELECT * FROM {view} ORDER BY position"));
        assert_eq!(all("stream_log"), all("log"));
    }
}

#[tokio::test]
async fn a_store_is_migrated_in_slices_while_others_write() {
    let (_folder, mut writer) = store(Index::InPlace).await;
    for _ in 0..30 {
        writer.append(7, b"x").unwrap();
    }
    let connection = &writer.floor.connection;
    make_tables(connection).unwrap();
    migrate(connection, 50).unwrap();
    let entries = "SELECT count(*) FROM es_stream_version";
    let migrated: u32 = connection.query_row(entries, [], |row| row.get(0)).unwrap();
    assert_eq!(Position::from(migrated), writer.floor.position());
    writer.append(7, b"x").unwrap();
    switch(&writer.floor.connection).unwrap();
    writer.merged = Some(recover(&writer.floor.connection, SMALL).unwrap());
    for _ in 0..30 {
        writer.append(7, b"x").unwrap();
    }
    verify(&writer.floor.connection, &writer.merged.unwrap()).unwrap();
}

#[tokio::test]
async fn a_damaged_state_is_refused() {
    let (_folder, writer) = store(Index::Merged).await;
    writer.floor.connection.execute_batch("UPDATE es_merge SET complete = complete + 1").unwrap();
    assert!(recover(&writer.floor.connection, SMALL).is_err());
}

#[tokio::test]
async fn builds_that_do_not_know_the_index_refuse_to_write_from_the_switch_on() {
    let (folder, mut writer) = store(Index::InPlace).await;
    writer.append(7, b"x").unwrap();
    let path = folder.path().join("store.db");
    let open = SqliteStore::open(&path).await.unwrap();
    let append = || open.append(Append::to(StreamId::new("account-1").unwrap(), ExpectedVersion::Any, event()));
    append().await.unwrap();
    make_tables(&writer.floor.connection).unwrap();
    migrate(&writer.floor.connection, 10).unwrap();
    append().await.unwrap();
    switch(&writer.floor.connection).unwrap();
    let refused = |error: &StoreError| matches!(error, StoreError::WriteRequires { feature } if feature == FEATURE);
    assert!(matches!(append().await.unwrap_err(), AppendError::Store(error) if refused(&error)));
    assert!(matches!(SqliteStore::open(&path).await.unwrap_err(), OpenError::Store(error) if refused(&error)));
    assert_eq!(open.all().read().collect().await.unwrap().len(), 29);
    open.close().await.unwrap();
    let merged = recover(&writer.floor.connection, SMALL).unwrap();
    assert_eq!((merged.entries(), verify(&writer.floor.connection, &merged).unwrap()), (1, 29));
}

fn event() -> CandidateEvent {
    CandidateEvent::new("account.deposited", b"x".to_vec()).unwrap()
}
