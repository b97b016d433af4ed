//! Every statement of a store finds its rows by an index, in an empty log and in one that has grown. The server itself
//! reports the plans that it used.

use std::time::Duration;

use es_framework::{CellKey, ExpectedVersion, Filter, ListStreams, Position, Store, Timestamp, Version};
use es_postgres::PostgresStore;

use crate::server::Server;
use crate::support::{event, sql};

/// Uses the store in every way that is frequent.
async fn use_it(store: &Store, round: u64) {
    let name = |n: u64| format!("account-{}", n % 50);
    for n in 0..20 {
        let stream = store.open_stream(name(round + n)).unwrap();
        let keyed = event("x").with_id(es_framework::EventId::text(format!("{round}-{n}")).unwrap());
        stream.write(keyed.clone(), ExpectedVersion::Any).await.unwrap();
        assert!(stream.write(keyed, ExpectedVersion::Any).await.unwrap().was_known());
        let uuid = es_framework::EventId::time_ordered(Timestamp::from_micros(1));
        stream.write(event("x").with_id(uuid), ExpectedVersion::Any).await.unwrap();
        stream.write(event("x"), ExpectedVersion::NoStream).await.unwrap_err();
        stream.read().after(Version::new(round)).limit(5).collect().await.unwrap();
        stream.read().backward().limit(5).collect().await.unwrap();
        stream.version().await.unwrap();
    }
    let command = |n: u64| {
        let key = es_framework::CommandKey::new(format!("{round}-{n}")).unwrap();
        es_framework::KeyedCommand::new(key, es_framework::Fingerprint::of(b"x"))
    };
    for n in 0..3 {
        let append = es_framework::Append::to("keyed-1".try_into().unwrap(), ExpectedVersion::Any, event("x"));
        store.append(append.command(command(n))).await.unwrap();
        store.command(&command(n).key).await.unwrap().unwrap();
    }
    let stream = store.open_stream("account-1").unwrap();
    let at = stream.version().await.unwrap();
    stream.snapshot("sum", at, "x").await.unwrap();
    store.all().snapshot("sum", store.head(), "x").await.unwrap();
    stream.load_snapshot("sum").await.unwrap();
    let cell = CellKey::new(format!("cell-{round}")).unwrap();
    store.set_cell(&cell, 0, Some("x".into())).await.unwrap();
    store.set_cell(&cell, 1, Some("y".into())).await.unwrap();
    let all = || store.all().read().after(Position::new(store.head().get() / 2)).limit(20);
    let now = store.now();
    for filter in [
        Filter::new(),
        Filter::new().category("account"),
        Filter::new().stream_prefix("account-1"),
        Filter::new().types(["tested"]),
        Filter::new().stream("account-1".parse::<es_framework::StreamId>().unwrap()),
        Filter::new().since(Timestamp::from_micros(now.as_micros() / 2)).until(now),
        Filter::new().type_like("t_sted"),
    ] {
        all().filter(filter.clone()).collect().await.unwrap();
        all().filter(filter.clone()).backward().collect().await.unwrap();
        stream.read().filter(filter).limit(5).collect().await.unwrap();
    }
    let page = store.streams(ListStreams::new().category("account").limit(5)).await.unwrap();
    let after = page.last().unwrap().stream.clone();
    store.streams(ListStreams::new().after(after).limit(5)).await.unwrap();
}

#[test]
fn every_statement_uses_an_index_whether_the_log_is_empty_or_full() {
    let settings = [
        "fsync=off",
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_nested_statements=on",
        "log_min_messages=log",
    ];
    let Some(server) = Server::start(&settings) else { return };
    es_conformance::run(async {
        let ours: Store = PostgresStore::connect(&server.url()).await.unwrap().into();
        let theirs: Store = PostgresStore::connect(&server.url()).await.unwrap().into();
        let mut watch = ours.all().watch().await.unwrap();
        for round in 0..4 {
            // The statements of both were planned while there was nothing.
            use_it(&ours, round * 2).await;
            use_it(&theirs, round * 2 + 1).await;
            if round == 1 {
                for n in 0..20 {
                    let stream = ours.open_stream(format!("bulk-{n}")).unwrap();
                    stream.write(vec![event("x"); 2_000], ExpectedVersion::Any).await.unwrap();
                }
                sql(&server.url(), "ANALYZE").await;
            }
        }
        tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap().unwrap();
    });
    let log = server.log();
    let plans: Vec<&str> = log.split("Query Text: ").skip(1).collect();
    let of = |table: &str| plans.iter().filter(|plan| plan.contains(table)).count();
    for table in ["es_event", "es_stream", "es_event_type", "es_command", "es_cell", "es_snapshot", "es_writer"] {
        assert!(of(table) > 10, "the server reports plans that use {table}: {}", of(table));
    }
    let ours: Vec<&str> = plans.into_iter().filter(|plan| plan.contains("\"es\".es_")).collect();
    assert!(ours.len() > 200, "{} plans", ours.len());
    for plan in ours {
        let scans = ["Seq Scan on es_event", "Seq Scan on es_stream", "Seq Scan on es_command", "JIT:"];
        let found = scans.iter().find(|scan| plan.contains(**scan));
        assert!(found.is_none(), "{found:?} in {plan}");
    }
}
