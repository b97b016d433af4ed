//! Opening: what is refused, by which error, and that nothing is changed by it.

use std::time::Duration;

use es_framework::{AppendError, ErrorKind, ExpectedVersion, Store, StoreError};
use es_postgres::{OpenError, PostgresStore};

use crate::server;
use crate::support::{Schemas, builder, client, event, sql};

#[test]
fn without_a_runtime_opening_is_refused() {
    let url = "postgres://nobody@localhost/nothing";
    let opening = PostgresStore::connect(url);
    let error = futures_util::future::FutureExt::now_or_never(opening).expect("it does not wait").unwrap_err();
    assert!(matches!(error, OpenError::NoRuntime), "{error:?}");
}

#[test]
fn what_cannot_be_a_place_is_refused() {
    es_conformance::run(async {
        for url in ["", "host", "mysql://x", "postgres://user@host/db?sslmode=require", "host=x unknown=1"] {
            let error = PostgresStore::connect(url).await.unwrap_err();
            assert!(matches!(error, OpenError::InvalidUrl { .. }), "{url}: {error:?}");
        }
        let long = "x".repeat(64);
        for schema in ["", "a\0b", "a\nb", long.as_str()] {
            let error = builder(schema).connect("host=/nowhere user=x").await.unwrap_err();
            assert!(matches!(error, OpenError::InvalidSchema { .. }), "{schema:?}: {error:?}");
        }
        let error = PostgresStore::connect("host=/nowhere user=x").await.unwrap_err();
        assert!(matches!(&error, OpenError::Unreachable { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Retry);
    });
}

#[test]
fn a_missing_store_is_created_only_if_that_is_wanted() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        for refused in [builder(&schema).create(false), builder(&schema).read_only(true)] {
            let error = refused.connect(url).await.unwrap_err();
            assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
        }
        let missing = format!("SELECT to_regnamespace('\"{schema}\"') IS NULL");
        let missing = client(url).await.query_one(&missing, &[]).await.unwrap();
        assert!(missing.get::<_, bool>(0), "the schema was not created");
        // By several processes at once.
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..6 {
            opening.spawn(builder(&schema).connect(url));
        }
        let ids: Vec<_> = opening.join_all().await.into_iter().map(|store| store.unwrap().id()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "they opened the same store");
    });
}

#[test]
fn the_printed_script_creates_the_store_that_is_then_opened() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        let script = PostgresStore::schema_sql(&schema).unwrap();
        sql(url, &script).await;
        let store = builder(&schema).create(false).connect(url).await.unwrap();
        store.open_stream("a-1").unwrap().write(event("x"), ExpectedVersion::NoStream).await.unwrap();
        // Again, and another one: neither changes anything.
        sql(url, &script).await;
        sql(url, &PostgresStore::schema_sql(&schema).unwrap()).await;
        assert_eq!(builder(&schema).connect(url).await.unwrap().id(), store.id());
        assert_eq!(store.all().read().collect().await.unwrap().len(), 1);
    });
}

#[test]
fn a_schema_that_holds_something_else_is_not_changed() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        sql(url, &format!("CREATE SCHEMA \"{schema}\"; CREATE TABLE \"{schema}\".es_event (mine text)")).await;
        let error = builder(&schema).connect(url).await.unwrap_err();
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
        let count = format!(
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = '\"{schema}\"'::regnamespace"
        );
        let tables = client(url).await.query_one(&count, &[]).await.unwrap();
        assert_eq!(tables.get::<_, i64>(0), 1);
    });
}

#[test]
fn a_newer_format_is_refused_when_opening_and_under_an_open_store() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        let store: Store = builder(&schema).connect(url).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("1"), ExpectedVersion::Any).await.unwrap();
        sql(url, &format!("UPDATE \"{schema}\".es_writer SET format = 7")).await;
        let error = stream.write(event("2"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::FormatChanged { opened: 1, found: 7 })), "{error:?}");
        for of in [store.all(), stream.clone()] {
            let error = of.read().collect().await.unwrap_err();
            assert!(matches!(error, StoreError::FormatChanged { opened: 1, found: 7 }), "{error:?}");
        }
        let error = builder(&schema).connect(url).await.unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 7, known: 1, .. }), "{error:?}");
        sql(url, &format!("UPDATE \"{schema}\".es_writer SET format = 1")).await;
        assert_eq!(stream.write(event("2"), ExpectedVersion::Any).await.unwrap().position, 2);
    });
}

#[test]
fn another_store_in_the_same_place_is_noticed() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        let store: Store = builder(&schema).connect(url).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("1"), ExpectedVersion::Any).await.unwrap();
        sql(url, &format!("DROP SCHEMA \"{schema}\" CASCADE")).await;
        let gone = stream.write(event("2"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(gone, AppendError::Store(StoreError::StoreChanged { .. })), "{gone:?}");
        let other = builder(&schema).connect(url).await.unwrap();
        for _ in 0..2 {
            let error = stream.write(event("2"), ExpectedVersion::Any).await.unwrap_err();
            assert!(matches!(error, AppendError::Store(StoreError::StoreChanged { .. })), "{error:?}");
            let error = stream.read().collect().await.unwrap_err();
            assert!(matches!(error, StoreError::StoreChanged { .. }), "{error:?}");
        }
        assert!(other.all().read().collect().await.unwrap().is_empty());
    });
}

#[test]
fn a_store_that_a_newer_release_must_write_is_read_and_not_written() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        let store = builder(&schema).connect(url).await.unwrap();
        // As a newer release would: with a checksum.
        let id = store.id();
        store.close().await.unwrap();
        let text = |text: &str| [&[2][..], &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
        let sum = [
            text("writer"),
            [&[3][..], &16_u32.to_le_bytes(), &id.to_bytes()].concat(),
            [&[1][..], &1_i64.to_le_bytes()].concat(),
            [&[1][..], &1_i64.to_le_bytes()].concat(),
            vec![0, 0],
            text("partitions"),
        ];
        let sum = crc32c::crc32c(&sum.concat()).cast_signed();
        let set = "SET generation = 1, write_requires = 'partitions'";
        sql(url, &format!("UPDATE \"{schema}\".es_writer {set}, checksum = {sum}")).await;
        let error = builder(&schema).connect(url).await.unwrap_err();
        assert!(
            matches!(&error, OpenError::Store(StoreError::WriteRequires { feature }) if feature == "partitions"),
            "{error:?}"
        );
        let store = builder(&schema).read_only(true).connect(url).await.unwrap();
        assert!(store.all().read().collect().await.unwrap().is_empty());
        let error = store.open_stream("a-1").unwrap().write(event("x"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::ReadOnly)), "{error:?}");
        sql(url, &format!("UPDATE \"{schema}\".es_writer SET generation = 2")).await;
        let error = store.all().read().collect().await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    });
}

#[test]
fn a_database_that_is_not_utf8_is_refused() {
    let Some(url) = server::shared() else { return };
    es_conformance::run(async {
        let name = crate::support::new_schema();
        sql(url, &format!("CREATE DATABASE \"{name}\" ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")).await;
        let mut config: tokio_postgres::Config = url.parse().unwrap();
        config.dbname(&name);
        let other = url.replace("dbname=postgres", &format!("dbname='{name}'"));
        if other != url {
            let error = PostgresStore::connect(&other).await.unwrap_err();
            assert!(matches!(&error, OpenError::NotUtf8 { encoding } if encoding == "SQL_ASCII"), "{error:?}");
        }
        sql(url, &format!("DROP DATABASE \"{name}\"")).await;
    });
}

/// PgBouncer, without the option for it.
#[test]
fn a_pooler_that_was_not_announced_is_recognised() {
    let Some(url) = server::pooler() else { return };
    es_conformance::run(async {
        let schemas = Schemas::default();
        let schema = schemas.add();
        let error = builder(&schema).connect(url).await.unwrap_err();
        assert!(error.to_string().contains("pooled(true)"), "{error}: {error:?}");
        builder(&schema).pooled(true).connect(url).await.unwrap();
    });
}

/// What an administrator may have set for a role does not change what a store does.
#[test]
fn the_settings_of_a_role_change_nothing() {
    let Some(server) = server::Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        sql(
            &server.url(),
            "CREATE ROLE odd LOGIN SUPERUSER; ALTER ROLE odd SET statement_timeout = '1ms';
             ALTER ROLE odd SET default_transaction_isolation = 'serializable';
             ALTER ROLE odd SET synchronous_commit = 'off'; ALTER ROLE odd SET search_path = 'nowhere';
             ALTER ROLE odd SET DateStyle = 'SQL, DMY'; ALTER ROLE odd SET TimeZone = 'Asia/Kathmandu';
             ALTER ROLE odd SET bytea_output = 'escape'; ALTER ROLE odd SET standard_conforming_strings = off",
        )
        .await;
        let url = server.url().replace("user=postgres", "user=odd");
        let [one, other] = [PostgresStore::connect(&url).await.unwrap(), PostgresStore::connect(&url).await.unwrap()];
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..8 {
            let store: Store = if n % 2 == 0 { (&one).into() } else { (&other).into() };
            writers.spawn(async move {
                for _ in 0..20 {
                    let stream = store.open_stream("a-1").unwrap();
                    stream.write(vec![event("x"); 50], ExpectedVersion::Any).await.unwrap();
                }
            });
        }
        tokio::time::timeout(Duration::from_secs(60), writers.join_all()).await.unwrap();
        assert_eq!(one.all().read().collect().await.unwrap().len(), 8_000);
        let set = "SELECT rolconfig::text FROM pg_roles WHERE rolname = 'odd'";
        let set = client(&server.url()).await.query_one(set, &[]).await.unwrap();
        assert!(set.get::<_, &str>(0).contains("statement_timeout=1ms"), "the settings are there");
    });
}
