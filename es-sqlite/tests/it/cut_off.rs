//! F4: the creation of a store is interrupted at any point, by a kill or a power loss.

use std::fs;
use std::path::Path;
use std::time::Duration;

use es_framework::ErrorKind;
use es_sqlite::{OpenError, SqliteModel, SqliteStore};

use crate::support::{all, child, files, folder, in_child, sql, texts, write};

/// The journal of a transaction that created the first pages of a database that had `pages` pages before.
fn journal(pages: u32) -> Vec<u8> {
    let mut journal = vec![0; 512];
    // Magic, no pages, a nonce, the number of pages in the file before, the size of sectors and of pages.
    journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal[12..16].copy_from_slice(&7_u32.to_be_bytes());
    journal[16..20].copy_from_slice(&pages.to_be_bytes());
    journal[20..24].copy_from_slice(&512_u32.to_be_bytes());
    journal[24..28].copy_from_slice(&4_096_u32.to_be_bytes());
    journal
}

/// What a power loss may leave of a file whose pages were all written but never flushed.
fn images(made: &[u8]) -> Vec<Vec<u8>> {
    let mut images = vec![made.to_vec(), vec![0; made.len()], b"x".repeat(made.len()), made[..100].to_vec()];
    for pages in [1, 2, 3, 7, made.len() / 4_096] {
        images.push(made[..pages * 4_096].to_vec());
        // A page that has not reached the disk, or remains of another file in its place.
        for remains in [0, 0xa5] {
            let mut image = made.to_vec();
            image[(pages - 1) * 4_096..pages * 4_096].fill(remains);
            images.push(image);
        }
    }
    // Half of the first page, with or without the application id.
    for torn in [20, 60, 68, 72, 100, 512, 2_048] {
        let mut image = made.to_vec();
        image[torn..4_096].fill(0);
        images.push(image);
    }
    images
}

/// The file was inspected as if it could not change, so the journal next to it was ignored, and an incomplete store was
/// mistaken for something else: "it is not an SQLite database".
#[tokio::test]
async fn a_store_whose_making_was_cut_off_is_made_again() {
    let (_folder, path) = folder();
    SqliteStore::open(&path).await.unwrap().close().await.unwrap();
    let made = fs::read(&path).unwrap();
    for image in images(&made) {
        let cut_off = || {
            fs::write(&path, &image).unwrap();
            fs::write(path.with_file_name("store.db-journal"), journal(0)).unwrap();
        };
        cut_off();
        for builder in [SqliteStore::builder().read_only(true), SqliteStore::builder().create(false)] {
            let error = builder.open(&path).await.unwrap_err();
            assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
        }
        cut_off();
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store, "s-1", "a").await;
        assert_eq!(texts(&all(&store).await), ["a"]);
        store.close().await.unwrap();
        assert_eq!(files(&path), ["store.db"]);
        // The same for a read model's own file.
        cut_off();
        SqliteModel::open(&path).await.unwrap().close().await.unwrap();
        fs::remove_file(&path).unwrap();
    }
}

/// A file whose creation was not interrupted is not emptied.
#[tokio::test]
async fn a_journal_that_says_nothing_of_the_kind_changes_no_refusal() {
    let (_folder, path) = folder();
    sql(&path).execute_batch("CREATE TABLE t (x)").unwrap();
    let of_others = fs::read(&path).unwrap();
    let (magic, short) = (vec![0; 512], journal(0)[..20].to_vec());
    for journal in [journal(1), magic, short, Vec::new()] {
        for content in [of_others.clone(), b"no database".repeat(100)] {
            fs::write(&path, &content).unwrap();
            fs::write(path.with_file_name("store.db-journal"), &journal).unwrap();
            let error = SqliteStore::open(&path).await.unwrap_err();
            assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Caller);
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}

/// A database that another application is creating right now, in one transaction: its journal is that of an empty file.
#[tokio::test]
async fn a_database_that_others_are_making_is_not_taken() {
    let (_folder, path) = folder();
    let other = sql(&path);
    other.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (x)").unwrap();
    other
        .execute("INSERT INTO t SELECT randomblob(1000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))", [])
        .unwrap();
    for _ in 0..8 {
        other.execute("INSERT INTO t SELECT x FROM t", []).unwrap();
    }
    assert!(fs::metadata(&path).unwrap().len() > 0, "some of it is in the file already");
    let builder = SqliteStore::builder().write_timeout(Duration::from_millis(100));
    let error = builder.open(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    other.execute_batch("COMMIT").unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
    assert_eq!(other.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 8 << 8);
}

/// The process that creates stores until it is killed.
#[tokio::test]
async fn a_process_that_makes_stores() {
    let Some(path) = in_child() else { return };
    for n in 0.. {
        make(&path, n).await;
    }
}

fn is_store(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "db")
}

async fn make(path: &Path, n: usize) {
    let path = path.with_file_name(format!("{n}.db"));
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_whose_maker_was_killed_can_be_opened() {
    for round in 0..15_u64 {
        let (folder, path) = folder();
        let mut child = child("cut_off::a_process_that_makes_stores", &path);
        while files(&path).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(1_000 + round * 977 % 8_000)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let stores: Vec<_> = files(&path).into_iter().filter(|name| is_store(name)).collect();
        for name in stores {
            let path = folder.path().join(name);
            let store = SqliteStore::open(&path).await.unwrap();
            write(&store, "s-1", "b").await;
            assert!(
                [vec!["a", "b"], vec!["b"]].contains(&texts(&all(&store).await).iter().map(String::as_str).collect())
            );
            store.close().await.unwrap();
        }
        assert!(files(&path).iter().all(|name| is_store(name)), "{:?}", files(&path));
    }
}
