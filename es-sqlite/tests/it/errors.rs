//! Error messages say each thing once.

use std::error::Error;

use es_framework::{
    AppendError, BoxError, Codec as _, ExpectedVersion, Json, Metadata, ModelError, ReadModel as _, StoreError,
};
use es_sqlite::{SqliteModel, SqliteStore, rusqlite};

use crate::support::{event, folder, id, on_writer, sql, write};

/// The messages of an error and its causes, from the outermost to the innermost.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    chain
}

/// Printing an error with its causes, as anyhow's `{:#}` does, gave "disk I/O error: disk I/O error".
#[tokio::test]
async fn no_error_says_what_its_cause_says() {
    let (_folder, path) = folder();
    let mut errors: Vec<BoxError> = Vec::new();
    // A full disk, a broken one, damage.
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "a").await;
    let pages = on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
    });
    assert!(pages.await > 1);
    let full = store.stream(id("s-1")).write(event("b".repeat(100_000)), ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(full, AppendError::Store(StoreError::DiskFull { .. })) && full.source().is_some());
    errors.push(full.into());
    sql(&path).execute_batch("UPDATE es_event SET time = 'x'").unwrap();
    errors.push(store.all().read().collect().await.unwrap_err().into());
    store.close().await.unwrap();
    errors.push(store.all().read().collect().await.unwrap_err().into());
    // Files.
    errors.push(SqliteStore::open("").await.unwrap_err().into());
    errors.push(SqliteStore::open(path.join("no.db")).await.unwrap_err().into());
    errors.push(SqliteModel::open(path.parent().unwrap()).await.unwrap_err().into());
    // Read models.
    let model = SqliteModel::in_memory().await.unwrap();
    for statement in
        ["SELEC 1", "INSERT INTO nothing VALUES (1)", "CREATE TABLE t (x UNIQUE); INSERT INTO t VALUES (1), (1)"]
    {
        let failed = model.transact(move |tx| tx.execute_batch(statement).map_err(ModelError::failed)).await;
        errors.push(failed.unwrap_err().into());
    }
    errors.push(model.query(|connection| connection.execute("CREATE TABLE u (x)", [])).await.unwrap_err().into());
    model.close().await.unwrap();
    errors.push(model.query(|_| Ok(())).await.unwrap_err().into());
    // Values that cannot be read or written.
    errors.push(Metadata::parse("{").unwrap_err().into());
    errors.push(Json::decode::<u32>(b"\"x\"").unwrap_err().into());
    errors.push(Json::encode(&std::collections::HashMap::from([(vec![1], 1)])).unwrap_err().into());
    // Constructed by hand, because they do not occur here.
    let cause = || rusqlite::Error::InvalidQuery.into();
    errors.push(StoreError::Io { source: cause() }.into());
    errors.push(StoreError::Internal { source: cause() }.into());
    errors.push(StoreError::PermissionDenied { source: cause() }.into());
    for error in errors {
        let chain = chain(error.as_ref());
        for pair in chain.windows(2) {
            assert!(!pair[0].contains(&pair[1]), "{chain:?}");
        }
    }
}
