//! F4: what the operating system does not allow is reported as such.
//!
//! Permissions do not apply to the superuser, so each of these tests runs as another user, in its own process if
//! necessary.

#![cfg(unix)]

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use es_framework::{AppendError, ErrorKind, ExpectedVersion, StoreError};
use es_sqlite::{OpenError, SqliteModel, SqliteStore, rusqlite};

use crate::support::{CHILD, all, command, event, files, folder, id, in_child, say, sql, texts, write};

/// The user and group `nobody`, on all systems that have one.
const NOBODY: u32 = 65_534;

/// Reruns a test as a user that permissions apply to, on a path in a folder of that user. Returns the path if this is
/// already the case, and [`None`] once the test is done.
fn as_user(test: &str) -> Option<PathBuf> {
    if let Some(path) = in_child() {
        return Some(path);
    }
    let (folder, path) = folder();
    mode(folder.path(), 0o777);
    let closed = folder.path().join("closed");
    fs::write(&closed, "").unwrap();
    mode(&closed, 0);
    let mut run = command(test, &path);
    if fs::read(&closed).is_ok() {
        run.uid(NOBODY).gid(NOBODY);
    }
    fs::remove_file(&closed).unwrap();
    match run.output() {
        Ok(output) => {
            let told =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
        }
        // For example, in a folder that others may not enter.
        Err(error) => say(&format!("not tested: this binary cannot be run as another user: {error}")),
    }
    None
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Asserts that the error is about permissions, says so in its own words, and names the path.
fn assert_denied(error: &OpenError, about: &Path) {
    assert!(matches!(error, OpenError::PermissionDenied { path, .. } if path == about), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("permission denied") && text.contains(&about.display().to_string()), "{text}");
    assert_eq!(error.kind(), ErrorKind::Caller);
    assert!(error.source().is_some());
}

async fn make(path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    write(&store, "s-1", "a").await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_may_not_be_read() {
    let Some(path) = as_user("permissions::a_file_that_may_not_be_read") else { return };
    make(&path).await;
    let model = path.with_file_name("model.db");
    SqliteModel::open(&model).await.unwrap().close().await.unwrap();
    for unreadable in [0o000, 0o200] {
        mode(&path, unreadable);
        mode(&model, unreadable);
        for builder in
            [SqliteStore::builder(), SqliteStore::builder().create(false), SqliteStore::builder().read_only(true)]
        {
            assert_denied(&builder.open(&path).await.unwrap_err(), &path);
        }
        assert_denied(&SqliteModel::open(&model).await.unwrap_err(), &model);
    }
    assert_eq!(files(&path), ["model.db", "store.db"]);
    mode(&path, 0o600);
    make(&path).await;
}

/// SQLite opens it anyway, and reported "read-only" at the first write.
#[tokio::test]
async fn a_file_that_may_not_be_written() {
    let Some(path) = as_user("permissions::a_file_that_may_not_be_written") else { return };
    make(&path).await;
    mode(&path, 0o444);
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert_denied(&error, &path);
    assert!(error.to_string().contains("read_only(true)"), "{error}");
    assert_eq!(files(&path), ["store.db"]);
    let store = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    assert_eq!(texts(&all(&store).await), ["a"]);
    let refused = store.stream(id("s-1")).write(event("b"), ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(StoreError::ReadOnly)), "{refused}");
    store.close().await.unwrap();
}

/// Reading a write-protected store left write-protected `-wal` and `-shm` files: it could no longer be written after
/// its own protection was removed.
#[tokio::test]
async fn a_file_that_may_be_written_again() {
    let Some(path) = as_user("permissions::a_file_that_may_be_written_again") else { return };
    for protected in [0o444, 0o400, 0o440] {
        make(&path).await;
        mode(&path, protected);
        let store = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
        assert!(!all(&store).await.is_empty());
        store.close().await.unwrap();
        let beside = ["-wal", "-shm"].map(|ending| PathBuf::from(format!("{}{ending}", path.display())));
        assert!(beside.iter().all(|path| mode_of(path) == protected), "SQLite gives them the permissions of the store");
        mode(&path, 0o644);
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store, "s-1", "b").await;
        assert!(beside.iter().all(|path| mode_of(path) == 0o644));
        store.close().await.unwrap();
        assert_eq!(files(&path), ["store.db"]);
    }
}

#[tokio::test]
async fn a_folder_that_is_closed() {
    let Some(path) = as_user("permissions::a_folder_that_is_closed") else { return };
    let folder = path.with_file_name("folder");
    fs::create_dir(&folder).unwrap();
    let there = folder.join("there.db");
    let new = folder.join("new.db");
    make(&there).await;
    // Cannot be entered.
    for closed in [0o000, 0o600] {
        mode(&folder, closed);
        for path in [&there, &new] {
            for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
                assert_denied(&builder.open(path).await.unwrap_err(), path);
            }
            assert_denied(&SqliteModel::open(path).await.unwrap_err(), path);
        }
    }
    // Cannot be written: neither a store nor the files next to one can be created.
    mode(&folder, 0o555);
    for builder in
        [SqliteStore::builder(), SqliteStore::builder().create(false), SqliteStore::builder().read_only(true)]
    {
        assert_denied(&builder.open(&there).await.unwrap_err(), &folder);
    }
    assert_denied(&SqliteStore::open(&new).await.unwrap_err(), &folder);
    assert_denied(&SqliteModel::open(&new).await.unwrap_err(), &folder);
    let missing = SqliteStore::builder().create(false).open(&new).await.unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    // Cannot be listed either, which nothing needs.
    mode(&folder, 0o311);
    make(&there).await;
    mode(&folder, 0o755);
}

/// Another user's `-wal` that this one may not read: without it the store would be an older one.
#[tokio::test]
async fn a_file_beside_the_store_that_may_not_be_read() {
    let Some(path) = as_user("permissions::a_file_beside_the_store_that_may_not_be_read") else { return };
    for ending in ["-wal", "-shm"] {
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store, "s-1", "a").await;
        let other = PathBuf::from(format!("{}{ending}", path.display()));
        let copy = path.with_file_name("copy.db");
        fs::copy(&path, &copy).unwrap();
        let beside_copy = PathBuf::from(format!("{}{ending}", copy.display()));
        fs::copy(&other, &beside_copy).unwrap();
        store.close().await.unwrap();
        // Its owner could grant itself the permission.
        mode(&copy, 0o444);
        mode(&beside_copy, 0o000);
        let error = SqliteStore::builder().read_only(true).open(&copy).await.unwrap_err();
        assert_denied(&error, &beside_copy);
        fs::remove_file(&copy).unwrap();
        fs::remove_file(&beside_copy).unwrap();
    }
}

/// Readers are opened on demand.
#[tokio::test]
async fn a_file_that_may_not_be_read_any_more() {
    let Some(path) = as_user("permissions::a_file_that_may_not_be_read_any_more") else { return };
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    mode(&path, 0o000);
    let error = store.all().read().collect().await.unwrap_err();
    assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error:?}");
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Caller);
    // Open connections stay open.
    write(&store, "s-1", "b").await;
    mode(&path, 0o644);
    assert_eq!(texts(&all(&store).await), ["a", "b"]);
    // A second reader cannot be opened while the first is busy: the first one serves the waiting queries.
    let model = store.read_model();
    let count = |connection: &rusqlite::Connection| {
        connection.query_row("SELECT count(*) FROM es_event", [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(model.query(count).await.unwrap(), 2);
    mode(&path, 0o000);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let holding = tokio::spawn({
        let model = model.clone();
        async move { model.query(move |_| Ok(held.recv().is_ok())).await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let waiting = tokio::spawn(async move { model.query(count).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    hold.send(()).unwrap();
    assert!(holding.await.unwrap().unwrap());
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    store.close().await.unwrap();
}

/// The child process of [`a_read_only_file_system`], with the folder of the store mounted read-only.
#[tokio::test]
async fn a_process_on_a_read_only_file_system() {
    let Some(path) = in_child() else { return };
    if fs::write(path.with_file_name("probe"), "").is_ok() {
        return;
    }
    let folder = path.parent().unwrap();
    assert_denied(&SqliteStore::open(&path).await.unwrap_err(), &path);
    assert_denied(&SqliteStore::builder().read_only(true).open(&path).await.unwrap_err(), folder);
    let new = path.with_file_name("new.db");
    assert_denied(&SqliteStore::open(&new).await.unwrap_err(), folder);
    assert_denied(&SqliteModel::open(&new).await.unwrap_err(), folder);
    // A store whose files exist already.
    let open = path.with_file_name("open.db");
    assert_denied(&SqliteStore::open(&open).await.unwrap_err(), &open);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_read_only_file_system() {
    let (folder, path) = folder();
    make(&path).await;
    let open = path.with_file_name("open.db");
    let store = SqliteStore::open(&open).await.unwrap();
    let run = command("permissions::a_process_on_a_read_only_file_system", &path);
    let mut mounted = Command::new("unshare");
    let script = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || { echo no mount; exit 0; }; exec "$@""#;
    mounted.args(["-m", "sh", "-c", script]).arg(folder.path()).arg(run.get_program()).args(run.get_args());
    mounted.env(CHILD, &path);
    match mounted.output() {
        Ok(output) => {
            let told =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            let passed = output.status.success() && told.contains("1 passed");
            let skipped = told.contains("no mount") || told.contains("unshare");
            assert!(passed || skipped, "{told}");
            if !passed {
                say(&format!("not tested: nothing may be mounted here: {told}"));
            }
        }
        Err(error) => say(&format!("not tested: nothing can be mounted here: {error}")),
    }
    store.close().await.unwrap();
}

/// The child process of [`a_file_that_may_not_become_larger_is_a_full_disk`], whose files are limited to 300 KiB.
#[tokio::test]
async fn a_process_whose_files_are_limited() {
    let Some(path) = in_child() else { return };
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    for _ in 0..3 {
        let refused =
            store.stream(id("s-1")).write(event("b".repeat(1 << 20)), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(refused, AppendError::Store(StoreError::DiskFull { .. })), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Retry);
        write(&store, "s-1", "c").await;
    }
    assert_eq!(texts(&all(&store).await), ["a", "c", "c", "c"]);
    store.close().await.unwrap();
    let model = SqliteModel::open(path.with_file_name("model.db")).await.unwrap();
    let insert = "CREATE TABLE t AS SELECT randomblob(1048576)";
    let refused = es_framework::ReadModel::transact(&model, move |tx| {
        tx.execute_batch(insert).map_err(es_framework::ModelError::failed)
    });
    refused.await.unwrap_err();
    model.close().await.unwrap();
}

/// SQLite reports "disk I/O error", after which it is unknown whether the data was written.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_may_not_become_larger_is_a_full_disk() {
    let (_folder, path) = folder();
    let run = command("permissions::a_process_whose_files_are_limited", &path);
    let mut limited = Command::new("bash");
    // In blocks of 1,024 bytes.
    limited.args(["-c", r#"trap '' XFSZ; ulimit -f 300 || exit 9; exec "$0" "$@""#]);
    limited.arg(run.get_program()).args(run.get_args()).env(CHILD, &path);
    match limited.output() {
        Ok(output) => {
            let told =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
        }
        Err(error) => say(&format!("not tested: there is no bash: {error}")),
    }
    assert_eq!(files(&path), ["model.db", "store.db"]);
    let count = sql(&path).query_row("SELECT count(*) FROM es_event", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count, 4);
}
