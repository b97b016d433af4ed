//! Rows that are not as they were written: typed errors with a position, never a wrong answer.

use es_framework::{AppendError, CellKey, ExpectedVersion, Filter, Store, StoreError, Version};

use crate::server;
use crate::support::{Schemas, builder, client, event, sql};

/// A store with ten events in one stream, and the name of its schema.
async fn store(url: &str, schemas: &Schemas) -> (Store, String) {
    let schema = schemas.add();
    let store: Store = builder(&schema).connect(url).await.unwrap().into();
    let stream = store.open_stream("a-1").unwrap();
    for n in 1..=10 {
        stream.write(event(&n.to_string()), ExpectedVersion::Any).await.unwrap();
    }
    (store, schema)
}

/// Changes rows of the log as nobody is meant to.
async fn damage(url: &str, schema: &str, statement: &str) {
    let statement = statement.replace("es.", &format!("\"{schema}\"."));
    sql(url, &format!("BEGIN; SET LOCAL es.allow_changes = 'yes'; {statement}; COMMIT")).await;
}

/// Reads one event after the other until the end or an error.
async fn read(store: &Store, filter: Filter) -> (Vec<u64>, Option<StoreError>) {
    let mut reading = store.all().read().filter(filter).stream();
    let mut positions = Vec::new();
    while let Some(event) = reading.next().await {
        match event {
            Ok(event) => positions.push(event.position.get()),
            Err(error) => return (positions, Some(error)),
        }
    }
    (positions, None)
}

#[test]
fn rows_of_the_log_cannot_be_changed_or_removed() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let (store, schema) = store(url, &schemas).await;
        let client = client(url).await;
        for table in ["es_event", "es_stream", "es_event_type", "es_command"] {
            for statement in [
                format!("DELETE FROM \"{schema}\".{table}"),
                format!("TRUNCATE \"{schema}\".{table}"),
                format!("UPDATE \"{schema}\".{table} SET checksum = 0"),
            ] {
                let error = client.batch_execute(&statement).await.unwrap_err();
                assert_eq!(error.code().unwrap().code(), "42501", "{statement}: {error}");
            }
        }
        assert_eq!(store.all().read().collect().await.unwrap().len(), 10);
    });
}

#[test]
fn a_damaged_event_is_an_error_with_its_position_and_reading_goes_on_after_it() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        for change in [
            "payload = 'other'",
            "metadata = '{}'",
            "time = time + 1",
            "id = gen_random_uuid()",
            "id_text = 'x'",
            "checksum = checksum + 1",
            "type = 99",
            "stream = 99",
            "type = -1",
        ] {
            let (store, schema) = store(url, &schemas).await;
            damage(url, &schema, &format!("UPDATE es.es_event SET {change} WHERE position = 5")).await;
            let (before, error) = read(&store, Filter::new()).await;
            assert_eq!(before, [1, 2, 3, 4], "{change}");
            assert!(
                matches!(&error, Some(StoreError::Corrupt { position: Some(at), .. }) if *at == 5),
                "{change}: {error:?}"
            );
            let rest = store.all().read().after(es_framework::Position::new(5)).collect().await.unwrap();
            assert_eq!(rest.len(), 5, "{change}");
            let stream = store.open_stream("a-1").unwrap();
            let of_stream = stream.read().collect().await.unwrap_err();
            assert!(matches!(of_stream, StoreError::Corrupt { .. }), "{change}: {of_stream:?}");
            let backward = stream.read().backward().limit(5).collect().await;
            assert_eq!(backward.unwrap().len(), 5, "{change}");
        }
    });
}

#[test]
fn a_missing_event_is_an_error() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let (store, schema) = store(url, &schemas).await;
        damage(url, &schema, "DELETE FROM es.es_event WHERE position = 5").await;
        let (before, error) = read(&store, Filter::new()).await;
        assert_eq!(before, [1, 2, 3, 4]);
        assert!(matches!(&error, Some(StoreError::Corrupt { position: Some(at), .. }) if *at == 5), "{error:?}");
        let of_stream = store.open_stream("a-1").unwrap().read().after(Version::new(3)).collect().await.unwrap_err();
        assert!(matches!(of_stream, StoreError::Corrupt { .. }), "{of_stream:?}");
    });
}

#[test]
fn damaged_names_are_errors_and_not_other_names() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        for (table, change) in [
            ("es_stream", "category = 'b'"),
            ("es_stream", "checksum = 0"),
            ("es_event_type", "name = 'other'"),
            ("es_event_type", "codec = 'json'"),
            ("es_event_type", "schema_version = 2"),
            ("es_event_type", "shape = 'x'"),
        ] {
            let (written, schema) = store(url, &schemas).await;
            damage(url, &schema, &format!("UPDATE es.{table} SET {change}")).await;
            written.close().await.unwrap();
            let store: Store = builder(&schema).connect(url).await.unwrap().into();
            let (none, error) = read(&store, Filter::new()).await;
            assert!(none.is_empty());
            assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{table} {change}: {error:?}");
            let write = store.open_stream("a-1").unwrap().write(event("x"), ExpectedVersion::StreamExists).await;
            if table == "es_stream" {
                let refused = matches!(&write, Err(AppendError::Store(StoreError::Corrupt { .. })));
                assert!(refused, "{table} {change}: {write:?}");
            }
        }
    });
}

#[test]
fn a_damaged_cell_is_an_error_and_a_damaged_snapshot_is_none() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let (store, schema) = store(url, &schemas).await;
        let key = CellKey::new("lease").unwrap();
        store.set_cell(&key, 0, Some("x".into())).await.unwrap();
        let stream = store.open_stream("a-1").unwrap();
        stream.snapshot("sum", Version::new(3), "three").await.unwrap();
        sql(url, &format!("UPDATE \"{schema}\".es_cell SET revision = 7")).await;
        sql(url, &format!("UPDATE \"{schema}\".es_snapshot SET state = 'other'")).await;
        let error = store.cell(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert_eq!(stream.load_snapshot("sum").await.unwrap(), None);
    });
}
