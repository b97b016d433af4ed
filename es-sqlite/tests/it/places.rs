//! F1, F4: a store is the file that was opened, whatever happens to its path.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use es_framework::{AppendError, ErrorKind, ExpectedVersion, ModelError, ReadModel as _, StoreError};
use es_sqlite::{OpenError, SqliteModel, SqliteStore, rusqlite};

use crate::support::{all, child, event, files, folder, id, in_child, sql, texts, write};

/// Creates a store with one event, and closes it.
async fn store_with(path: &Path, payload: &str) {
    let store = SqliteStore::open(path).await.unwrap();
    write(&store, "account-1", payload).await;
    store.close().await.unwrap();
}

async fn make_table(model: &SqliteModel) -> Result<(), ModelError> {
    model.transact(|tx| tx.execute_batch("CREATE TABLE IF NOT EXISTS t (x)").map_err(ModelError::failed)).await
}

fn two_banks() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["poor", "rich"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let [poor, rich] = ["poor", "rich"].map(|name| folder.path().join(name).join("bank.db"));
    (folder, poor, rich)
}

/// Runs in its own process, because the current folder applies to the whole process.
#[tokio::test]
async fn a_process_that_changes_its_folder() {
    let Some(path) = in_child() else { return };
    let root = path.parent().unwrap().parent().unwrap();
    for read_only in [true, false] {
        for given in ["bank.db", "./bank.db", "../poor/bank.db", "link.db"] {
            std::env::set_current_dir(root.join("poor")).unwrap();
            let store = SqliteStore::builder().read_only(read_only).open(given).await.unwrap();
            let model = SqliteModel::open("model.db").await.unwrap();
            std::env::set_current_dir(root.join("rich")).unwrap();
            // Its readers are only opened now.
            assert_eq!(texts(&all(&store).await), ["poor"], "{given}");
            make_table(&model).await.unwrap();
            let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
            let count = model.query(move |connection| connection.query_row(tables, [], |row| row.get::<_, i64>(0)));
            assert_eq!(count.await.unwrap(), 1);
            model.close().await.unwrap();
            store.close().await.unwrap();
        }
    }
}

/// Two folders with a `bank.db` each: a process that opened the poor one and changed into the rich one was shown the
/// rich one's balance, and allowed to withdraw it from the poor one.
#[cfg(unix)]
#[tokio::test]
async fn a_relative_path_is_followed_once() {
    let (_folder, poor, rich) = two_banks();
    store_with(&poor, "poor").await;
    store_with(&rich, "rich").await;
    std::os::unix::fs::symlink("bank.db", poor.with_file_name("link.db")).unwrap();
    std::os::unix::fs::symlink("bank.db", rich.with_file_name("link.db")).unwrap();
    assert!(child("places::a_process_that_changes_its_folder", &poor).wait().unwrap().success());
    assert_eq!(files(&poor), ["bank.db", "link.db", "model.db"]);
    assert_eq!(files(&rich), ["bank.db", "link.db"]);
}

/// `current` points to the folder of one release or another, and is redirected while a process runs.
#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_turned_changes_no_open_store() {
    use std::os::unix::fs::symlink;
    let (folder, poor, rich) = two_banks();
    store_with(&poor, "poor").await;
    store_with(&rich, "rich").await;
    let turn = |link: &Path, to: &Path| {
        drop(fs::remove_file(link));
        symlink(to, link).unwrap();
    };
    let to_file = folder.path().join("bank.db");
    let to_folder = folder.path().join("current");
    for (link, given, from, to) in [
        (&to_file, to_file.clone(), &*poor, &*rich),
        (&to_folder, to_folder.join("bank.db"), poor.parent().unwrap(), rich.parent().unwrap()),
        (&to_folder, to_folder.join("..").join("poor").join("bank.db"), poor.parent().unwrap(), rich.parent().unwrap()),
    ] {
        for read_only in [true, false] {
            turn(link, from);
            let store = SqliteStore::builder().read_only(read_only).open(&given).await.unwrap();
            let model = SqliteModel::open(given.with_file_name("model.db")).await.unwrap();
            turn(link, to);
            assert_eq!(texts(&all(&store).await), ["poor"]);
            assert_eq!(texts(&store.stream(id("account-1")).read().collect().await.unwrap()), ["poor"]);
            model.close().await.unwrap();
            store.close().await.unwrap();
        }
    }
    assert_eq!(files(&poor), ["bank.db", "model.db"]);
    assert_eq!(files(&rich), ["bank.db"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_file_that_does_not_exist_yet_makes_it_there() {
    let (folder, poor, _rich) = two_banks();
    let link = folder.path().join("bank.db");
    std::os::unix::fs::symlink("poor/bank.db", &link).unwrap();
    let missing = SqliteStore::builder().create(false).open(&link).await.unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    store_with(&link, "poor").await;
    assert_eq!(files(&poor), ["bank.db"]);
    let round = folder.path().join("round.db");
    std::os::unix::fs::symlink("round.db", &round).unwrap();
    SqliteStore::open(&round).await.unwrap_err();
}

/// Ways in which another file ends up at the path of an open store.
#[derive(Debug, Clone, Copy)]
enum Replaced {
    AnotherStore,
    AnOlderCopy,
    AnEmptyFile,
    Nothing,
}

fn replace(path: &Path, by: Replaced, other: &Path, older: &Path) {
    let new = path.with_file_name("new.db");
    match by {
        Replaced::AnotherStore => drop(fs::copy(other, &new).unwrap()),
        Replaced::AnOlderCopy => drop(fs::copy(older, &new).unwrap()),
        Replaced::AnEmptyFile => fs::write(&new, "").unwrap(),
        Replaced::Nothing => return fs::remove_file(path).unwrap(),
    }
    fs::rename(&new, path).unwrap();
}

/// A backup is moved over a database that a process still has open: its first connection continues with the old file,
/// and each that it opens later would see the new one. This also applies to a copy of the same store.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_replaced_is_not_taken_for_the_one_that_was_opened() {
    for by in [Replaced::AnotherStore, Replaced::AnOlderCopy, Replaced::AnEmptyFile, Replaced::Nothing] {
        // Whether the readers are opened before that.
        for read_before in [false, true] {
            let (folder, path, other) = two_banks();
            let older = folder.path().join("older.db");
            store_with(&path, "poor").await;
            store_with(&other, "rich").await;
            fs::copy(&path, &older).unwrap();
            let store = SqliteStore::open(&path).await.unwrap();
            let reader = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
            write(&store, "account-1", "poorer").await;
            let mut watch = store.all().watch().await.unwrap();
            if read_before {
                assert_eq!(texts(&all(&store).await), ["poor", "poorer"]);
                assert_eq!(texts(&all(&reader).await), ["poor", "poorer"]);
            }
            replace(&path, by, &other, &older);
            // A check is trusted for this long.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let changed = |error: &StoreError| matches!(error, StoreError::StoreChanged { .. });
            for store in [&store, &reader] {
                let error = store.all().read().collect().await.unwrap_err();
                assert!(changed(&error) && error.kind() == ErrorKind::Caller, "{by:?}: {error}");
            }
            let refused = store.stream(id("account-1")).write(event("x"), ExpectedVersion::Any).await.unwrap_err();
            assert!(matches!(&refused, AppendError::Store(error) if changed(error)), "{by:?}: {refused}");
            let refused = store.read_model().transact(|_| Ok(())).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Caller, "{by:?}: {refused}");
            let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
            assert!(told.is_some_and(|told| told.is_err_and(|error| changed(&error))), "{by:?}: the watch");
            // Closing touches neither of the two.
            let there = fs::read(&path).ok();
            store.close().await.unwrap();
            reader.close().await.unwrap();
            assert_eq!(fs::read(&path).ok(), there, "{by:?}");
        }
    }
}

/// `cp` writes into the same file: the file stays where it was, but is another store.
#[tokio::test]
async fn a_file_that_became_another_store_is_refused() {
    let (_folder, path, other) = two_banks();
    store_with(&path, "poor").await;
    store_with(&other, "rich").await;
    let store = SqliteStore::open(&path).await.unwrap();
    let reader = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    fs::copy(&other, &path).unwrap();
    for store in [&store, &reader] {
        let error = store.all().read().collect().await.unwrap_err();
        assert!(matches!(error, StoreError::StoreChanged { .. }), "{error:?}");
    }
    store.close().await.unwrap();
    reader.close().await.unwrap();
}

/// The right file comes back, and the store continues.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_put_back_is_used_again() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    let away = path.with_file_name("away.db");
    fs::rename(&path, &away).unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    store.stream(id("s-1")).write(event("b"), ExpectedVersion::Any).await.unwrap_err();
    fs::rename(&away, &path).unwrap();
    write(&store, "s-1", "c").await;
    assert_eq!(texts(&all(&store).await), ["a", "c"]);
    store.close().await.unwrap();
    assert_eq!(files(&path), ["store.db"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_models_own_file_that_was_replaced_is_not_written() {
    let (_folder, path) = folder();
    let model = SqliteModel::open(&path).await.unwrap();
    make_table(&model).await.unwrap();
    let new = path.with_file_name("new.db");
    sql(&new).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    fs::rename(&new, &path).unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    make_table(&model).await.unwrap_err();
    let count = |connection: &rusqlite::Connection| connection.query_row("SELECT count(*) FROM t", [], |_| Ok(()));
    model.query(count).await.unwrap_err();
    model.close().await.unwrap();
}

/// SQLite keeps the newest commits in a file next to one of the names: opening the file by the other name would miss
/// them, and two names open at once destroy each other's commits.
#[cfg(unix)]
#[tokio::test]
async fn a_file_with_two_names_is_refused() {
    let (_folder, path) = folder();
    store_with(&path, "a").await;
    let model = path.with_file_name("model.db");
    SqliteModel::open(&model).await.unwrap().close().await.unwrap();
    let (name, model_name) = (path.with_file_name("name.db"), path.with_file_name("model-name.db"));
    fs::hard_link(&path, &name).unwrap();
    fs::hard_link(&model, &model_name).unwrap();
    for path in [&path, &name] {
        for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
            let error = builder.open(path).await.unwrap_err();
            assert!(matches!(error, OpenError::SeveralNames { names: 2, .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Caller);
        }
    }
    SqliteModel::open(&model_name).await.unwrap_err();
    fs::remove_file(&name).unwrap();
    fs::remove_file(&model_name).unwrap();
    store_with(&path, "b").await;
    SqliteModel::open(&model).await.unwrap().close().await.unwrap();
    assert_eq!(files(&path), ["model.db", "store.db"]);
}

/// SQLite accepts 512 bytes, including the suffixes of the files next to the store, and reports "unable to open
/// database file" beyond that.
#[cfg(unix)]
#[tokio::test]
async fn a_path_that_is_too_long_is_refused_with_its_length() {
    let (folder, _) = folder();
    let mut long = fs::canonicalize(folder.path()).unwrap();
    while long.as_os_str().len() < 450 {
        long.push("f".repeat(40));
        fs::create_dir(&long).unwrap();
    }
    let name = |bytes: usize| long.join("n".repeat(bytes - long.as_os_str().len() - 1));
    store_with(&name(504), "a").await;
    for bytes in [505, 512, 513, 600] {
        for error in [
            SqliteStore::open(name(bytes)).await.unwrap_err(),
            SqliteStore::builder().read_only(true).open(name(bytes)).await.unwrap_err(),
            SqliteModel::open(name(bytes)).await.unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(matches!(error, OpenError::PathTooLong { .. }), "{text}");
            assert!(text.contains(&bytes.to_string()) && text.contains("504"), "{text}");
        }
    }
    // A short path that links to a long one.
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(name(505), &link).unwrap();
    assert!(matches!(SqliteStore::open(&link).await.unwrap_err(), OpenError::PathTooLong { .. }));
    // The file name alone, with room for `-journal`.
    store_with(&folder.path().join("n".repeat(247)), "a").await;
    for bytes in [248, 255, 256, 300] {
        let error = SqliteStore::open(folder.path().join("n".repeat(bytes))).await.unwrap_err();
        assert!(matches!(error, OpenError::PathTooLong { .. }), "{bytes}: {error}");
    }
}

/// A name that is not valid text: SQLite accepts it, and all files next to the store are found, too.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_that_is_no_utf_8_is_a_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let (folder, _) = folder();
    let path = folder.path().join(std::ffi::OsStr::from_bytes(b"st\xffre.db"));
    store_with(&path, "a").await;
    let store = SqliteStore::open(&path).await.unwrap();
    let mut watch = store.all().watch().await.unwrap();
    let other = SqliteStore::open(&path).await.unwrap();
    write(&other, "account-1", "b").await;
    let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert_eq!(&told.unwrap().unwrap().payload[..], b"b");
    other.close().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// `sqlite3 bank.db .dump | sqlite3 new.db` loses the two numbers that identify a store: reporting it as the database
/// of another application helped nobody.
#[tokio::test]
async fn a_restored_dump_is_refused_with_what_is_missing() {
    let (_folder, path) = folder();
    store_with(&path, "a").await;
    sql(&path).execute_batch("PRAGMA application_id = 0; PRAGMA user_version = 0").unwrap();
    for builder in [SqliteStore::builder(), SqliteStore::builder().read_only(true)] {
        let error = builder.open(&path).await.unwrap_err();
        assert!(matches!(&error, OpenError::NotAStore { reason, .. } if reason.contains(".dump")), "{error}");
    }
    sql(&path).execute_batch("PRAGMA application_id = 0x45534C47; PRAGMA user_version = 1").unwrap();
    store_with(&path, "b").await;
}
