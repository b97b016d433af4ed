//! Roles with no more rights than they need.

use es_framework::{AppendError, CellKey, ErrorKind, ExpectedVersion, Store, StoreError};
use es_postgres::PostgresStore;

use crate::server::Server;
use crate::support::{client, event, sql};

/// The statements of the guide, run as they are printed there.
#[test]
fn a_writer_appends_and_a_reader_reads_and_neither_changes_an_event() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let guide = include_str!("../../../docs/postgres.md");
        let roles = guide.split("```sql\n-- roles\n").nth(1).expect("the guide has the statements");
        let roles = roles.split("```").next().unwrap();
        PostgresStore::connect(&server.url()).await.unwrap().close().await.unwrap();
        sql(&server.url(), roles).await;
        let url = |role: &str| server.url().replace("user=postgres", &format!("user={role}"));

        let store: Store = PostgresStore::connect(&url("es_writer")).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        let key = es_framework::KeyedCommand::new(
            es_framework::CommandKey::new("k").unwrap(),
            es_framework::Fingerprint::of(b"x"),
        );
        let append = es_framework::Append::to("a-1".try_into().unwrap(), ExpectedVersion::NoStream, event("1"));
        store.append(append.command(key)).await.unwrap();
        stream.snapshot("sum", es_framework::Version::new(1), "x").await.unwrap();
        stream.snapshot("sum", es_framework::Version::new(1), "y").await.unwrap();
        let cell = CellKey::new("cell").unwrap();
        assert_eq!(store.set_cell(&cell, 0, Some("x".into())).await.unwrap(), 1);
        assert_eq!(store.set_cell(&cell, 1, None).await.unwrap(), 2);

        let reader = PostgresStore::builder().read_only(true).connect(&url("es_reader")).await.unwrap();
        let mut watch = reader.all().watch().await.unwrap();
        assert_eq!(reader.all().read().collect().await.unwrap().len(), 1);
        assert!(reader.open_stream("a-1").unwrap().load_snapshot("sum").await.unwrap().is_some());
        stream.write(event("2"), ExpectedVersion::Any).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().position, 2, "a reader is notified, too");

        // A reader that tries to write.
        let writing = PostgresStore::connect(&url("es_reader")).await.unwrap();
        let error = writing.open_stream("a-1").unwrap().write(event("x"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::PermissionDenied { .. })), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Caller);

        for role in ["es_writer", "es_reader"] {
            let client = client(&url(role)).await;
            for statement in [
                "UPDATE es.es_event SET payload = 'x'",
                "DELETE FROM es.es_event",
                "TRUNCATE es.es_event",
                "UPDATE es.es_stream SET name = 'x'",
                "DELETE FROM es.es_command",
                "DELETE FROM es.es_writer",
                "DROP TABLE es.es_event",
                "ALTER TABLE es.es_event DISABLE TRIGGER ALL",
                "SET es.allow_changes = 'yes'; DELETE FROM es.es_event",
            ] {
                let error = client.batch_execute(statement).await.unwrap_err();
                assert_eq!(error.code().unwrap().code(), "42501", "{role}: {statement}: {error}");
            }
            client.batch_execute("SELECT * FROM es.log").await.unwrap();
        }
    });
}
