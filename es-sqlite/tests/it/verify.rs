//! Verifying a store whose file was damaged.

use std::path::Path;

use es_framework::inspect::{Cursor, Verified};
use es_framework::{
    Append, CandidateEvent, CellKey, CommandKey, EventId, ExpectedVersion, Fingerprint, KeyedCommand, ProjectionName,
    Snapshot, Store, StoreError, StreamId,
};
use es_sqlite::SqliteStore;
use tokio_rusqlite::rusqlite::Connection;

/// Closes everything that could still write the file.
async fn written(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    for number in 0..300_u32 {
        let stream = StreamId::new(format!("account-{}", number % 7)).unwrap();
        let event = CandidateEvent::new("deposited", number.to_string()).unwrap();
        let event = event.with_id(EventId::text(format!("id-{number}")).unwrap());
        let append = Append::to(stream, ExpectedVersion::Any, event);
        let command = KeyedCommand::new(CommandKey::new(format!("key-{number}")).unwrap(), Fingerprint::of(b"f"));
        store.append(if number % 5 == 0 { append.command(command) } else { append }).await.unwrap();
    }
    store.set_cell(&CellKey::new("cell").unwrap(), 0, Some("value".into())).await.unwrap();
    let (stream, name) = (StreamId::new("account-1").unwrap(), ProjectionName::new("aggregate").unwrap());
    store.engine().save_snapshot(Snapshot::new(stream, name, 3, Fingerprint::of(b"f"), "state")).await.unwrap();
    store.close().await.unwrap();
}

async fn verify(store: &Store) -> Result<Vec<String>, StoreError> {
    let (mut findings, mut after) = (Vec::new(), None::<Cursor>);
    loop {
        let inspect = store.engine().inspect().unwrap();
        let Verified { findings: found, next, .. } = inspect.verify(after.as_ref()).await?;
        findings.extend(found.iter().map(ToString::to_string));
        let Some(next) = next else { return Ok(findings) };
        after = Some(next);
    }
}

/// Each damage is made with plain SQL, so the pages stay intact and only the rows differ from what was written.
#[tokio::test]
async fn each_damaged_row_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.db");
    written(&whole).await;
    for (damage, named) in [
        ("UPDATE es_event SET payload = x'00' WHERE position = 42", "position 42: "),
        ("UPDATE es_event SET type = 77 WHERE position = 42", "position 42: "),
        ("UPDATE es_event SET time = time - 5000000 WHERE position = 300", "position 300: "),
        ("UPDATE es_event SET position = 100000 WHERE position = 42", "position 100000: "),
        ("DELETE FROM es_event WHERE position = 42", "stream account-6: the events from version 6 to 6 are missing"),
        ("DELETE FROM es_event WHERE position <= 10", "stream account-0: the events from version 1 to 2 are missing"),
        ("UPDATE es_stream SET name = 'account-9' WHERE id = 3", "stream number 3"),
        ("UPDATE es_event_type SET codec = 'json'", "event type number 1"),
        ("UPDATE es_command SET position = 1 WHERE key = 'key-100'", "command key-100"),
        ("UPDATE es_cell SET revision = 9", "cell cell"),
        ("UPDATE es_snapshot SET state = x'01'", "checksum"),
        ("UPDATE es_meta SET value = 5 WHERE key = 'generation'", "generation"),
    ] {
        // A file of its own: the store of the damage before this one may still be closing.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.db");
        std::fs::copy(&whole, &path).unwrap();
        let connection = Connection::open(&path).unwrap();
        assert!(connection.execute(damage, []).unwrap() > 0, "{damage}");
        drop(connection);
        let store = SqliteStore::builder().read_only(true).open(&path).await;
        let findings = match store {
            Ok(store) => {
                let findings = verify(&store).await.unwrap();
                // Otherwise it may still be open when the file is replaced.
                store.close().await.unwrap();
                findings
            }
            // Reported already when it is opened.
            Err(error) => vec![error.to_string()],
        };
        assert!(findings.iter().any(|finding| finding.contains(named)), "{damage}: {findings:?}");
        assert!(findings.len() <= 301, "{damage}: {} findings", findings.len());
    }
}

/// Flips one byte of the file after the other: either all stored data is still there, or verification reports what is
/// not.
#[tokio::test]
async fn no_flipped_byte_of_200_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.db");
    written(&whole).await;
    let bytes = std::fs::read(&whole).unwrap();
    let contents = |path: &Path| -> Option<Vec<String>> {
        let connection = Connection::open(path).ok()?;
        let mut all = Vec::new();
        for table in ["es_meta", "es_stream", "es_event_type", "es_event", "es_command", "es_cell", "es_snapshot"] {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table} NOT INDEXED")).ok()?;
            let columns = statement.column_count();
            let mut rows = statement.query([]).ok()?;
            while let Some(row) = rows.next().ok()? {
                let values = (0..columns).map(|column| row.get_ref(column).map(|value| format!("{value:?}")));
                all.push(values.collect::<Result<Vec<_>, _>>().ok()?.join(","));
            }
        }
        Some(all)
    };
    let original = contents(&whole).unwrap();
    let path = folder.path().join("flipped.db");
    let (mut noticed, mut seed) = (0, 7_u64);
    for _ in 0..200 {
        // A linear congruential generator (Knuth): the same flips in every run.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (seed >> 29 & 7);
        std::fs::write(&path, &flipped).unwrap();
        let same = contents(&path).is_some_and(|contents| contents == original);
        let found = match SqliteStore::builder().read_only(true).open(&path).await {
            Err(_) => true,
            Ok(store) => verify(&store).await.map_or(true, |findings| !findings.is_empty()),
        };
        assert!(found || same, "byte {at} was flipped and nobody noticed");
        noticed += u32::from(found);
    }
    assert!(noticed > 25, "only {noticed} flips mattered: the file is mostly empty");
}
