//! Every column of every table of the store is covered by a checksum.

use es_framework::{
    Append, CellKey, CommandKey, ErrorKind, ExpectedVersion, Fingerprint, KeyedCommand, Metadata, StoreError, Version,
};
use es_sqlite::{OpenError, SqliteStore, rusqlite};
use rusqlite::types::Value;

use crate::support::{event, folder, id, sql, with_id};

/// Reads everything from a table's rows.
async fn ask(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
    let mut answers = Vec::new();
    let mut answer = |answer: &dyn std::fmt::Debug| answers.push(format!("{answer:?}"));
    answer(&store.id());
    answer(&store.all().read().collect().await?);
    for stream in ["a-1", "b-1"] {
        let stream = store.stream(id(stream));
        answer(&stream.read().collect().await?);
        answer(&stream.load_snapshot("sum").await?);
    }
    answer(&store.streams(es_framework::ListStreams::new()).await?);
    answer(&store.command(&CommandKey::new("c-1").unwrap()).await?);
    answer(&store.cell(&CellKey::new("lease/mailer").unwrap()).await?);
    Ok(answers)
}

/// Returns different values, of the same kind and of other kinds.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![Value::Integer(1), Value::Text("{}".into()), Value::Blob(vec![1])],
        Value::Integer(n) => vec![Value::Integer(n ^ 1), Value::Integer(n ^ 64), Value::Text("x".into()), Value::Null],
        Value::Text(text) => {
            vec![
                Value::Text(format!("{text}x")),
                Value::Text(text.to_uppercase() + " "),
                Value::Blob(text.clone().into_bytes()),
            ]
        }
        Value::Blob(bytes) => {
            let mut flipped = bytes.clone();
            flipped.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            vec![Value::Blob([&bytes[..], b"x"].concat()), Value::Blob(flipped), Value::Text("x".into())]
        }
        Value::Real(_) => panic!("there are no real numbers"),
    }
}

/// If a release left a column out of a row's checksum, damage to that column would go unnoticed, and so would the
/// omission.
#[tokio::test]
async fn a_change_in_any_column_of_any_table_is_noticed() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let metadata = Metadata::parse(r#"{"a": 1}"#).unwrap();
    let append =
        Append::to(id("a-1"), ExpectedVersion::Any, vec![with_id("1", "1").with_metadata(metadata), with_id("2", "2")])
            .and(id("b-1"), ExpectedVersion::Any, with_id("3", "3"));
    let command = KeyedCommand::new(CommandKey::new("c-1").unwrap(), Fingerprint::of(b"c"));
    store.append(append.command(command)).await.unwrap();
    store.stream(id("a-1")).snapshot("sum", Version::new(2), "state").await.unwrap();
    store.set_cell(&CellKey::new("lease/mailer").unwrap(), 0, Some("me".into())).await.unwrap();
    let whole = ask(&store).await.unwrap();
    store.close().await.unwrap();
    let bytes = std::fs::read(&path).unwrap();

    let tables: Vec<String> = {
        let plain = sql(&path);
        let mut tables = plain
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'es\\_%' ESCAPE '\\'")
            .unwrap();
        tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert!(tables.len() >= 7, "{tables:?}");
    let mut changes = 0;
    for table in &tables {
        let (columns, rows): (Vec<String>, Vec<Vec<Value>>) = {
            let plain = sql(&path);
            let mut statement = plain.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns: Vec<String> = statement.column_names().into_iter().map(ToOwned::to_owned).collect();
            let width = columns.len();
            let row = |row: &rusqlite::Row<'_>| (0..width).map(|column| row.get(column)).collect();
            let rows = statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
            (columns, rows)
        };
        assert!(!rows.is_empty(), "{table} has rows");
        for (row, column) in rows.iter().flat_map(|row| (0..columns.len()).map(move |column| (row, column))) {
            for becomes in others(&row[column]) {
                let this: Vec<String> = (1..=columns.len()).map(|n| format!("{} IS ?{n}", columns[n - 1])).collect();
                let update = format!(
                    "UPDATE {table} SET {} = ?{} WHERE {}",
                    columns[column],
                    columns.len() + 1,
                    this.join(" AND ")
                );
                let parameters = row.iter().chain([&becomes]);
                let what = format!("{table}.{} = {becomes:?} instead of {:?}", columns[column], row[column]);
                match sql(&path).execute(&update, rusqlite::params_from_iter(parameters)) {
                    Ok(changed) => assert_eq!(changed, 1, "{what}"),
                    // A constraint rejected it, or it is a number that a row cannot have.
                    Err(_) => continue,
                }
                changes += 1;
                let answers = match SqliteStore::open(&path).await {
                    Ok(store) => {
                        let answers = ask(&store).await;
                        store.close().await.unwrap();
                        answers
                    }
                    Err(OpenError::Store(error)) => Err(error),
                    Err(error) => panic!("{what}: {error}"),
                };
                match answers {
                    Err(error) => assert!(matches!(error.kind(), ErrorKind::Data), "{what}: {error}"),
                    Ok(answers) => {
                        // A damaged snapshot reads as missing. A row with another key is not found under the old one.
                        let is_key = matches!((&table[..], &columns[column][..]), ("es_cell" | "es_command", "key"));
                        let may_be_missing = table == "es_snapshot" || is_key;
                        assert!(may_be_missing, "{what} was not noticed");
                        let differ = answers.iter().zip(&whole).filter(|(a, b)| a != b).map(|(a, _)| &a[..]);
                        assert_eq!(differ.collect::<Vec<_>>(), ["None"], "{what}");
                    }
                }
                std::fs::write(&path, &bytes).unwrap();
            }
        }
    }
    assert!(changes > 150, "{changes}");
}

/// A key is covered like every other column: a renamed row is not mistaken for the one whose name it now has.
#[tokio::test]
async fn a_row_under_another_key_is_noticed() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let command = KeyedCommand::new(CommandKey::new("c-1").unwrap(), Fingerprint::of(b"c"));
    store.append(Append::to(id("a-1"), ExpectedVersion::Any, event("1")).command(command)).await.unwrap();
    store.set_cell(&CellKey::new("one").unwrap(), 0, Some("me".into())).await.unwrap();
    store.stream(id("a-1")).snapshot("sum", Version::new(1), "state").await.unwrap();
    sql(&path)
        .execute_batch(
            "UPDATE es_cell SET key = 'two'; UPDATE es_command SET key = 'c-2'; UPDATE es_snapshot SET name = 'mean'",
        )
        .unwrap();
    assert!(matches!(store.cell(&CellKey::new("two").unwrap()).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.command(&CommandKey::new("c-2").unwrap()).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.stream(id("a-1")).load_snapshot("mean").await.unwrap(), None);
    store.close().await.unwrap();
}
