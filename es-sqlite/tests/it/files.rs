//! Facts about files: opening, closing, what is rejected.

use std::fs;
use std::time::Duration;

use es_conformance::bank::{Account, AccountEvent, Deposit};
use es_framework::{AppendError, ErrorKind, Event, ExecuteError, ExpectedVersion, ListStreams, Repository, StoreError};
use es_sqlite::{OpenError, SqliteModel, SqliteStore, rusqlite};

use crate::support::{all, child, event, files, folder, id, in_child, on_writer, sql, texts, write};

#[tokio::test]
async fn no_other_file_stays_after_close() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let watch = store.all().watch().await.unwrap();
    for n in 0..100 {
        write(&store, &format!("s-{n}"), "x").await;
    }
    assert_eq!(all(&store).await.len(), 100);
    assert!(files(&path).contains(&"store.db-wal".to_owned()));
    store.close().await.unwrap();
    drop(watch);
    assert_eq!(files(&path), ["store.db"]);
    store.close().await.unwrap();
    assert!(matches!(store.all().read().collect().await, Err(StoreError::Closed)));
    let refused = store.stream(id("s-1")).write(event("x"), ExpectedVersion::Any).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::Closed))));
}

#[tokio::test]
async fn no_other_file_stays_when_the_last_of_two_handles_closes() {
    let (_folder, path) = folder();
    let first = SqliteStore::open(&path).await.unwrap();
    let second = SqliteStore::open(&path).await.unwrap();
    write(&first, "s-1", "a").await;
    write(&second, "s-1", "b").await;
    assert_eq!(texts(&all(&first).await), ["a", "b"]);
    first.close().await.unwrap();
    write(&second, "s-1", "c").await;
    second.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_file_stays_when_several_close_at_the_same_moment() {
    let (_folder, path) = folder();
    for round in 0..60 {
        let first = SqliteStore::open(&path).await.unwrap();
        let second = SqliteStore::open(&path).await.unwrap();
        write(&first, "s-1", "a").await;
        let closing = [first, second].map(|store| tokio::spawn(async move { store.close().await }));
        for close in closing {
            close.await.unwrap().unwrap();
        }
        assert_eq!(files(&path), ["store.db"], "round {round}");
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_ends_its_threads_and_leaves_no_other_file() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    assert_eq!(all(&store).await.len(), 1);
    drop(store);
    for _ in 0..5_000 {
        if files(&path) == ["store.db"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the connections of a dropped store are still open: {:?}", files(&path));
}

#[tokio::test]
async fn a_path_with_special_characters_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a?b#c%20&mode=memory é.db");
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    store.close().await.unwrap();
    let store = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    assert_eq!(all(&store).await.len(), 1);
    store.close().await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_mistyped_path_makes_no_store() {
    let (_folder, path) = folder();
    for builder in [SqliteStore::builder().create(false), SqliteStore::builder().read_only(true)] {
        let error = builder.open(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::Missing { path: named } if *named == path));
        assert_eq!(files(&path), Vec::<String>::new());
    }
}

/// A crash leaves a file that may already be complete, and a journal that says it was empty before.
#[tokio::test]
async fn a_store_whose_making_was_broken_off_is_made_again_or_missing() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await.unwrap();
    let made = fs::read(&path).unwrap();
    let mut journal = vec![0; 512];
    // Magic, no pages, a nonce, no pages in the file before, the size of sectors and of pages.
    journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal[20..24].copy_from_slice(&512_u32.to_be_bytes());
    journal[24..28].copy_from_slice(&4_096_u32.to_be_bytes());
    let break_off = || {
        fs::write(&path, &made).unwrap();
        fs::write(path.with_file_name("store.db-journal"), &journal).unwrap();
    };
    break_off();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    store.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
    break_off();
    // Once with the journal, once with the empty file that remains.
    for _ in 0..2 {
        let error = SqliteStore::builder().create(false).open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"");
    let error = SqliteStore::builder().read_only(true).open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    SqliteStore::open(&path).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_missing() {
    let (_folder, path) = folder();
    fs::write(&path, "a file").unwrap();
    for nowhere in [path.with_file_name("no-folder").join("store.db"), path.join("store.db")] {
        let named = |error: &OpenError| matches!(error, OpenError::Missing { path } if *path == nowhere);
        assert!(named(&SqliteStore::open(&nowhere).await.unwrap_err()));
        assert!(named(&SqliteModel::open(&nowhere).await.unwrap_err()));
    }
}

/// SQLite would open a database in memory, or one that is deleted when it is closed.
#[tokio::test]
async fn a_path_that_names_no_file_is_refused() {
    for path in ["", ":memory:"] {
        for error in [SqliteStore::open(path).await.unwrap_err(), SqliteModel::open(path).await.unwrap_err()] {
            let told = matches!(&error, OpenError::NotAStore { reason, .. } if reason.contains("in_memory()"));
            assert!(told, "{error}");
        }
    }
}

#[tokio::test]
async fn the_file_of_a_store_is_not_opened_as_a_read_models_own() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let error = SqliteModel::open(&path).await.unwrap_err();
    let told = matches!(&error, OpenError::NotAStore { reason, .. } if reason.contains("SqliteStore::read_model"));
    assert!(told, "{error}");
    store.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
}

/// Runs in its own process, because the current folder applies to the whole process.
#[tokio::test]
async fn a_process_whose_paths_are_relative() {
    let Some(path) = in_child() else { return };
    std::env::set_current_dir(path.parent().unwrap()).unwrap();
    for (name, create) in [("file:a.db?mode=memory", true), ("file:a.db?mode=memory", false), ("plain.db", true)] {
        let store = SqliteStore::builder().create(create).open(name).await.unwrap();
        write(&store, "s-1", "a").await;
        store.close().await.unwrap();
    }
    SqliteModel::open("file:model.db").await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_relative_path_is_never_a_uri() {
    let (_folder, path) = folder();
    let status = child("files::a_process_whose_paths_are_relative", &path).wait().unwrap();
    assert!(status.success());
    assert_eq!(files(&path), ["file:a.db?mode=memory", "file:model.db", "plain.db"]);
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_not_touched() {
    let (_folder, path) = folder();
    sql(&path).execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
    let of_others = fs::read(&path).unwrap();
    let long_text = "not a database, and longer than a header ".repeat(10).into_bytes();
    for content in [of_others, b"short".to_vec(), long_text] {
        fs::write(&path, &content).unwrap();
        for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
            let error = builder.open(&path).await.unwrap_err();
            assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(files(&path), ["store.db"]);
    }
    let folder = SqliteStore::open(path.parent().unwrap()).await.unwrap_err();
    assert!(matches!(folder, OpenError::NotAStore { .. }), "{folder}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_is_refused_and_not_waited_for() {
    let (_folder, path) = folder();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
}

/// Whether this process holds a lock on a file. Linux lists locks page by page, so one may be missed while others come
/// and go; a lock that was dropped does not come back.
#[cfg(target_os = "linux")]
fn is_locked(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let of_file = format!(":{} ", fs::metadata(path).unwrap().ino());
    let of_process = format!(" {} ", std::process::id());
    let held = |line: &str| line.contains(&of_file) && line.contains(&of_process);
    (0..50).any(|_| fs::read_to_string("/proc/locks").unwrap().lines().any(held))
}

/// Without its locks, another process that closes last removes the `-wal` file of an open store.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn another_open_of_the_same_file_leaves_a_store_its_locks() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    assert!(is_locked(&path));
    for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
        let second = builder.open(&path).await.unwrap();
        assert_eq!(all(&second).await.len(), 1);
        assert!(is_locked(&path));
        second.close().await.unwrap();
        assert!(is_locked(&path));
    }
    sql(&path).execute_batch("PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
        assert!(matches!(builder.open(&path).await.unwrap_err(), OpenError::NewerFormat { .. }));
        assert!(is_locked(&path));
    }
    sql(&path).execute_batch("PRAGMA user_version = 1").unwrap();
    write(&store, "s-1", "b").await;
    store.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await.unwrap();
    sql(&path).execute_batch("PRAGMA user_version = 3").unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 3, known: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_format_that_changes_under_an_open_store_stops_it() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    sql(&path).execute_batch("PRAGMA user_version = 3").unwrap();
    let changed = |error: &StoreError| matches!(error, StoreError::FormatChanged { opened: 2, found: 3 });
    assert!(changed(&store.all().read().collect().await.unwrap_err()));
    let refused = store.stream(id("s-1")).write(event("b"), ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Store(error) if changed(error)), "{refused}");
    sql(&path).execute_batch("PRAGMA user_version = 1").unwrap();
    assert_eq!(texts(&all(&store).await), ["a"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_needs_an_unknown_feature_is_read_and_not_written() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    // The checksum of a text value, computed by another implementation from the documented bytes.
    let row = "INSERT INTO es_meta VALUES ('write_requires', 'merged-index', 1700840087)";
    // Something such a feature may remove: reads name no index.
    sql(&path).execute_batch(&format!("{row}; DROP INDEX es_event_version")).unwrap();
    store.close().await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Store(StoreError::WriteRequires { feature }) if feature == "merged-index"),
        "{error:?}"
    );
    let store = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    assert_eq!(texts(&all(&store).await), ["a"]);
    assert_eq!(texts(&store.stream(id("s-1")).read().collect().await.unwrap()), ["a"]);
    assert_eq!(store.streams(ListStreams::new()).await.unwrap().len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_opened_read_only_reads_and_watches_and_writes_nothing() {
    let (_folder, path) = folder();
    let writer = SqliteStore::open(&path).await.unwrap();
    write(&writer, "s-1", "a").await;
    let reader = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    assert_eq!(texts(&all(&reader).await), ["a"]);
    let refused = reader.stream(id("s-1")).write(event("b"), ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(StoreError::ReadOnly)), "{refused}");
    let mut watch = reader.all().watch().await.unwrap();
    write(&writer, "s-1", "b").await;
    assert_eq!(&watch.next().await.unwrap().unwrap().payload[..], b"b");
    reader.close().await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
}

/// A read-only store with snapshots encoded, spawned a task, failed and warned at each load, forever.
#[tokio::test]
async fn a_store_opened_read_only_is_asked_once_to_save_a_snapshot() {
    let (_folder, path) = folder();
    let writer = SqliteStore::open(&path).await.unwrap();
    let events: Vec<_> = (0..7).map(|_| AccountEvent::Deposited { cents: 1 }.encode().unwrap()).collect();
    for account in ["account-a", "account-b"] {
        writer.stream(id(account)).write(events.clone(), ExpectedVersion::Any).await.unwrap();
    }
    let reader = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    let accounts = Repository::<Account>::new(&reader);
    for _ in 0..10 {
        for account in ["a", "b"] {
            assert_eq!(accounts.load(account).await.unwrap().state.cents, 7);
            accounts.snapshots_settled().await;
        }
    }
    assert_eq!((accounts.metrics().snapshots_failed, accounts.metrics().snapshots_saved), (1, 0));
    let refused = accounts.execute("a", Deposit(1)).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Append(AppendError::Store(StoreError::ReadOnly))), "{refused}");
    reader.close().await.unwrap();
    writer.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_the_store_is_usable_again() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    let pages = on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
    })
    .await;
    let refused = store.stream(id("s-1")).write(event("b".repeat(100_000)), ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(StoreError::DiskFull { .. })), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Retry);
    on_writer(&store, move |connection| {
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 1_000), [], |row| row.get::<_, i64>(0))
    })
    .await;
    write(&store, "s-1", "c").await;
    let events = all(&store).await;
    assert_eq!(texts(&events), ["a", "c"]);
    assert_eq!(events[1].position, 2);
    assert_eq!(events[1].version, 2);
    store.close().await.unwrap();
}

/// Appends share a transaction; one that does not fit on the disk must not fail the others.
#[tokio::test]
async fn an_append_that_cannot_be_written_leaves_the_others_of_its_group_alone() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 20), [], |row| row.get::<_, i64>(0))
    })
    .await;
    // Blocks the writer, so that everything that follows waits together.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let store = store.clone();
        async move { store.transact(move |_| held.recv()).await }
    });
    let mut waiting = Vec::new();
    for n in 0..20 {
        let payload = if n == 7 { "x".repeat(1_000_000) } else { n.to_string() };
        let expected = if n == 9 { ExpectedVersion::StreamExists } else { ExpectedVersion::NoStream };
        let stream = store.stream(id(&format!("g-{n}")));
        waiting.push(tokio::spawn(async move { stream.write(event(payload), expected).await }));
        tokio::task::yield_now().await;
    }
    hold.send(()).unwrap();
    holding.await.unwrap().unwrap();
    for (n, write) in waiting.into_iter().enumerate() {
        let done = write.await.unwrap();
        match n {
            7 => assert!(matches!(done, Err(AppendError::Store(StoreError::DiskFull { .. }))), "{done:?}"),
            9 => assert!(matches!(done, Err(AppendError::Conflict { .. })), "{done:?}"),
            _ => assert_eq!(done.unwrap().version(), 1),
        }
    }
    let events = all(&store).await;
    assert_eq!(events.len(), 19);
    assert!(events.iter().zip(1..).all(|(event, n)| event.position == n));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_read_models_failure_or_panic_writes_nothing_and_harms_no_append() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    on_writer(&store, |connection| connection.execute_batch("CREATE TABLE model (x)")).await;
    let failed = store.transact(|connection| {
        connection.execute("INSERT INTO model VALUES (1)", []).unwrap();
        Err::<(), _>("no")
    });
    assert!(matches!(failed.await, Err(es_sqlite::TransactError::Body("no"))));
    let panicked = store.transact(|connection| -> rusqlite::Result<()> {
        connection.execute("INSERT INTO model VALUES (1)", [])?;
        panic!("on purpose")
    });
    assert!(matches!(
        panicked.await,
        Err(es_sqlite::TransactError::Panicked { message }) if message.contains("on purpose")
    ));
    let ended = store.transact(|connection| connection.execute_batch("INSERT INTO model VALUES (1); ROLLBACK"));
    assert!(matches!(ended.await, Err(es_sqlite::TransactError::Store(StoreError::Internal { .. }))));
    write(&store, "s-1", "b").await;
    let count: i64 =
        on_writer(&store, |connection| connection.query_row("SELECT count(*) FROM model", [], |row| row.get(0))).await;
    assert_eq!(count, 0);
    assert_eq!(texts(&all(&store).await), ["a", "b"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_keeps_a_quarter_of_the_writers_pages() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().cache_bytes(8 << 20).open(&path).await.unwrap();
    let kept = |connection: &rusqlite::Connection| connection.pragma_query_value(None, "cache_size", |row| row.get(0));
    let (writer, reader): (i64, i64) = (on_writer(&store, kept).await, store.read_model().query(kept).await.unwrap());
    assert_eq!((writer, reader), (-8_192, -2_048));
    store.close().await.unwrap();
}
