//! What happens to writers, readers and watchers when connections and servers go away. After each fault nothing that
//! was acknowledged is lost, nothing is there twice, and positions have no holes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use es_framework::{AppendError, ErrorKind, EventId, ExpectedVersion, Outcome, Position, Store, StoreError};
use es_postgres::{Durability, PostgresStore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::proxy::Proxy;
use crate::server::{Server, Stop};
use crate::support::{client, event, sql};

/// Writers that append one event after the other to streams of their own, without ids, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<(String, u64)>,
}

impl Load {
    fn start(store: &Store, writers: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut set = JoinSet::new();
        for n in 0..writers {
            let (store, stop, name) = (store.clone(), Arc::clone(&stop), format!("load-{n}"));
            set.spawn(async move {
                let stream = store.open_stream(name.as_str()).unwrap();
                let mut written = 0;
                while !stop.load(Ordering::SeqCst) {
                    let appended = stream.write(event(&written.to_string()), ExpectedVersion::Any).await.unwrap();
                    written += 1;
                    assert_eq!(appended.version(), written, "{name}: an append was lost, or there twice");
                }
                (name, written)
            });
        }
        Self { stop, writers: set }
    }

    /// Ends the load and checks that exactly what was acknowledged is in the log; returns how much that is.
    async fn end(self, store: &Store) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let written = timeout(Duration::from_secs(60), self.writers.join_all()).await.expect("the writers end");
        let log = store.all().read().collect().await.unwrap();
        let positions: Vec<u64> = log.iter().map(|event| event.position.get()).collect();
        assert_eq!(positions, (1..=log.len() as u64).collect::<Vec<_>>());
        let mut total = 0;
        for (name, count) in written {
            let payloads: Vec<_> =
                log.iter().filter(|event| event.stream == *name).map(|e| e.payload.clone()).collect();
            let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
            assert_eq!(payloads, expected, "{name}");
            total += count;
        }
        assert_eq!(total, log.len() as u64);
        total
    }
}

/// Watches `@all` from the start, and returns how many events came, in order, until `upto` of them did.
fn watch_all(store: &Store) -> tokio::task::JoinHandle<Result<u64, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move {
        let mut watch = store.all().watch().from_start().await?;
        let mut last = 0;
        loop {
            match watch.next().await {
                Some(Ok(event)) => {
                    assert_eq!(event.position, last + 1, "a gap, or an event twice");
                    last += 1;
                }
                Some(Err(StoreError::Closed)) | None => return Ok(last),
                Some(Err(error)) => return Err(error),
            }
        }
    })
}

async fn open(url: &str) -> Store {
    PostgresStore::builder().connect(url).await.unwrap().into()
}

/// The backends of the store, killed again and again: before, while and after they commit.
#[test]
fn backends_that_are_terminated_cost_nothing_and_double_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    es_conformance::run(async {
        let store = open(&server.url()).await;
        let watched = watch_all(&store);
        let load = Load::start(&store, 16);
        let killer = client(&server.url()).await;
        let mut killed = 0;
        for n in 0..60_u64 {
            sleep(Duration::from_micros(20_000 + n * 7_531 % 40_000)).await;
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE application_name = 'es-postgres'";
            killed += killer.query_one(kill, &[]).await.unwrap().get::<_, i64>(0);
        }
        let written = load.end(&store).await;
        assert!(killed > 60 && written > 100, "{killed} killed, {written} written");
        store.close().await.unwrap();
        assert_eq!(watched.await.unwrap().unwrap(), written);
    });
}

/// The server goes away and comes back under writers, readers and watchers.
#[test]
fn a_server_that_is_restarted_under_load_loses_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    es_conformance::run(async {
        let store = open(&server.url()).await;
        let other = open(&server.url()).await;
        let watched = [watch_all(&store), watch_all(&other)];
        let load = Load::start(&store, 24);
        for how in [Some(Stop::Fast), Some(Stop::Immediate), None] {
            sleep(Duration::from_millis(300)).await;
            let read = tokio::spawn(store.all().read().collect());
            tokio::task::block_in_place(|| {
                match how {
                    Some(how) => server.down(how),
                    None => server.kill(),
                }
                server.up();
            });
            read.await.unwrap().expect("a read waits for the server");
        }
        sleep(Duration::from_millis(300)).await;
        let written = load.end(&store).await;
        let late = other.open_stream("late").unwrap().write(event("x"), ExpectedVersion::NoStream).await.unwrap();
        assert_eq!(late.position, written + 1);
        for (store, watched) in [&store, &other].into_iter().zip(watched) {
            until(|| store.head() == Position::new(written + 1)).await;
            store.close().await.unwrap();
            assert!(watched.await.unwrap().unwrap() >= written);
        }
    });
}

/// Answers that are lost: the commit happened, or did not, and nobody said so.
#[test]
fn commits_whose_answer_is_lost_are_resolved_and_not_guessed() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let proxy = Proxy::start(&server.socket());
        let url = server.url_of("postgres", proxy.folder());
        let store = open(&url).await;
        let load = Load::start(&store, 8);
        while proxy.cuts() < 90 {
            let (head, cuts) = (store.head(), proxy.cuts());
            proxy.cut_an_answer();
            until(|| proxy.cuts() > cuts && store.head() > head).await;
        }
        let written = load.end(&store).await;
        assert!(written > 90, "{written}");
        // Commands without events, which leave no event to look for.
        for n in 0..30 {
            let command = || {
                let key = es_framework::CommandKey::new(format!("k-{n}")).unwrap();
                es_framework::KeyedCommand::new(key, es_framework::Fingerprint::of(b"x"))
            };
            let append = es_framework::Append::default().command(command());
            proxy.cut_an_answer();
            let appended = store.append(append.clone()).await.unwrap();
            assert_eq!(appended.outcome, Outcome::Written, "it was carried out once, and the first time");
            assert!(store.append(append).await.unwrap().was_known());
        }
        // Appends that only set a cell: whoever set it, it would look the same, so nobody is told that it was this one.
        let key = es_framework::CellKey::new("counter").unwrap();
        let (mut revision, mut unknown) = (0, 0);
        let begun = Instant::now();
        while unknown < 5 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{unknown} answers were lost after their commit");
            let value = revision.to_string();
            let append = es_framework::Append::default().set_cell(key.clone(), revision, Some(value.into()));
            // One of the two answers, that with the cell or that of the commit.
            let cut = async {
                sleep(Duration::from_micros(revision * 173 % 2_000)).await;
                proxy.cut_an_answer();
            };
            let (appended, ()) = tokio::join!(store.append(append), cut);
            match appended {
                Ok(appended) => assert_eq!(appended.cells, [revision + 1]),
                Err(AppendError::Store(StoreError::Io { .. })) => unknown += 1,
                Err(error) => panic!("it is not refused because it was carried out: {error:?}"),
            }
            let now = store.cell(&key).await.unwrap().unwrap().revision;
            assert_eq!(now, revision + 1, "it was carried out once");
            revision = now;
        }
        store.close().await.unwrap();
    });
}

/// A request that is stuck in the network arrives long after its writer gave it up.
#[test]
fn a_request_that_arrives_late_finds_the_log_moved() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let proxy = Proxy::start(&server.socket());
        let builder = PostgresStore::builder().write_timeout(Duration::from_millis(500));
        let store: Store = builder.connect(&server.url_of("postgres", proxy.folder())).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("first"), ExpectedVersion::Any).await.unwrap();
        proxy.hold();
        let stuck = || event("stuck").with_id(EventId::text("stuck").unwrap());
        let error = stream.write(stuck(), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(error, AppendError::Store(StoreError::Io { .. })), "{error:?}");
        // On a new connection.
        let next = stream.write(event("next"), ExpectedVersion::Any).await.unwrap();
        assert_eq!(next.position, 2);
        proxy.release();
        sleep(Duration::from_millis(300)).await;
        let log = store.all().read().collect().await.unwrap();
        assert_eq!(log.len(), 2, "the late request was refused");
        let retried = stream.write(stuck(), ExpectedVersion::Any).await.unwrap();
        assert_eq!((retried.outcome, retried.position.get()), (Outcome::Written, 3));
        assert!(stream.write(stuck(), ExpectedVersion::Any).await.unwrap().was_known());
    });
}

/// A server that is not there for a while, and one that is not there at all.
#[test]
fn a_server_that_cannot_be_reached_is_waited_for_and_then_an_error() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let proxy = Proxy::start(&server.socket());
        let patience = Duration::from_secs(1);
        let builder = PostgresStore::builder().write_timeout(patience).read_timeout(patience);
        let store: Store = builder.connect(&server.url_of("postgres", proxy.folder())).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("1"), ExpectedVersion::Any).await.unwrap();
        let killer = client(&server.url()).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'es-postgres'";
        proxy.refuse(true);
        killer.batch_execute(kill).await.unwrap();
        let begun = Instant::now();
        let (write, read) = tokio::join!(stream.write(event("2"), ExpectedVersion::Any), stream.read().collect());
        assert!(matches!(write, Err(AppendError::Store(StoreError::Io { .. }))), "{write:?}");
        assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let waiting = tokio::spawn({
            let stream = stream.clone();
            async move { stream.write(event("3"), ExpectedVersion::Any).await }
        });
        sleep(Duration::from_millis(200)).await;
        proxy.refuse(false);
        waiting.await.unwrap().expect("it was waited for");
        let log = stream.read().collect().await.unwrap();
        assert_eq!(log.iter().map(|event| &event.payload[..]).collect::<Vec<_>>(), [b"1", b"3"]);
        // Closing needs no server.
        proxy.refuse(true);
        killer.batch_execute(kill).await.unwrap();
        timeout(Duration::from_secs(5), store.close()).await.expect("it closes").unwrap();
    });
}

/// Somebody holds the lock of the writers, in another program or by hand.
#[test]
fn a_session_that_holds_the_lock_makes_writers_busy_and_no_longer_than_that() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let builder = PostgresStore::builder().write_timeout(Duration::from_millis(400));
        let store: Store = builder.connect(&server.url()).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("1"), ExpectedVersion::Any).await.unwrap();
        let holder = client(&server.url()).await;
        holder.batch_execute("BEGIN; SELECT FROM es.es_writer FOR UPDATE").await.unwrap();
        for _ in 0..2 {
            let error = stream.write(event("x"), ExpectedVersion::Any).await.unwrap_err();
            assert!(matches!(error, AppendError::Store(StoreError::Busy { waited }) if waited.as_millis() >= 400));
            assert_eq!(error.kind(), ErrorKind::Retry);
        }
        // Reading needs no lock, and so does a refusal.
        assert_eq!(stream.read().collect().await.unwrap().len(), 1);
        let refused = stream.write(event("x"), ExpectedVersion::NoStream).await;
        assert!(refused.is_err());
        holder.batch_execute("ROLLBACK").await.unwrap();
        stream.write(event("2"), ExpectedVersion::Any).await.unwrap();
        // A process that froze in the middle of its transaction is ended by the server.
        assert_eq!(stream.read().collect().await.unwrap().len(), 2);
    });
}

/// The newest commits are gone after a crash of a server that acknowledged them early. Positions that were seen would
/// be assigned again, so the handle refuses to go on.
#[test]
fn a_log_that_lost_its_tail_is_noticed() {
    let Some(server) = Server::start(&["wal_writer_delay=10s", "synchronous_commit=off", "autovacuum=off"]) else {
        return;
    };
    es_conformance::run(async {
        let builder = || PostgresStore::builder().durability(Durability::Normal);
        let store: Store = builder().connect(&server.url()).await.unwrap().into();
        let stream = store.open_stream("a-1").unwrap();
        stream.write(event("kept"), ExpectedVersion::Any).await.unwrap();
        sql(&server.url(), "CHECKPOINT").await;
        let lost = stream.write(event("lost"), ExpectedVersion::Any).await.unwrap();
        assert_eq!(lost.position, 2);
        let mut watch = store.all().watch().await.unwrap();
        tokio::task::block_in_place(|| {
            server.kill();
            server.up();
        });
        let again: Store = builder().connect(&server.url()).await.unwrap().into();
        assert_eq!(again.head(), Position::new(1), "the server has lost it");
        let rewound =
            |error: &StoreError| matches!(error, StoreError::StoreChanged { reason } if reason.contains("rewound"));
        let read = store.all().read().collect().await.unwrap_err();
        assert!(rewound(&read), "{read:?}");
        let write = stream.write(event("x"), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(&write, AppendError::Store(error) if rewound(error)), "{write:?}");
        let watched = timeout(Duration::from_secs(10), watch.next()).await.expect("the watch ends");
        assert!(matches!(&watched, Some(Err(error)) if rewound(error)), "{watched:?}");
        // A handle that is opened again goes on.
        again.open_stream("a-1").unwrap().write(event("2"), ExpectedVersion::Any).await.unwrap();
    });
}

/// The connection that listens is lost again and again while another process writes.
#[test]
fn a_watcher_whose_connection_is_lost_misses_nothing() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        let [ours, theirs] = [open(&server.url()).await, open(&server.url()).await];
        let mut watch = ours.all().watch().await.unwrap();
        let killer = client(&server.url()).await;
        let stream = theirs.open_stream("a-1").unwrap();
        for n in 1..=60 {
            stream.write(event("x"), ExpectedVersion::Any).await.unwrap();
            let next = timeout(Duration::from_secs(10), watch.next()).await.expect("it is noticed").unwrap().unwrap();
            assert_eq!(next.position, n);
            if n % 3 == 0 {
                let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
                killer.query_one(kill, &[]).await.unwrap();
            }
        }
    });
}

/// Notifications, and not only the look once a second.
#[test]
fn writes_of_another_process_are_noticed_at_once() {
    let Some(url) = crate::server::shared() else { return };
    es_conformance::run(async {
        let schemas = crate::support::Schemas::default();
        let schema = schemas.add();
        let open = || crate::support::builder(&schema).connect(url);
        let [ours, theirs] = [open().await.unwrap(), open().await.unwrap()];
        let mut watch = ours.all().watch().await.unwrap();
        let stream = theirs.open_stream("a-1").unwrap();
        // Begins to listen.
        stream.write(event("x"), ExpectedVersion::Any).await.unwrap();
        watch.next().await.unwrap().unwrap();
        let begun = Instant::now();
        for _ in 0..20 {
            stream.write(event("x"), ExpectedVersion::Any).await.unwrap();
            watch.next().await.unwrap().unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "20 writes took {:?}", begun.elapsed());
    });
}

/// A role has no connections left.
#[test]
fn a_connection_that_is_one_too_many_is_a_typed_error() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    es_conformance::run(async {
        open(&server.url()).await.close().await.unwrap();
        sql(
            &server.url(),
            "CREATE ROLE few LOGIN CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA es TO few;
             GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA es TO few; GRANT UPDATE ON es.es_writer TO few",
        )
        .await;
        let url = server.url().replace("user=postgres", "user=few");
        let builder = PostgresStore::builder().read_timeout(Duration::from_millis(300));
        let store: Store = builder.connect(&url).await.unwrap().into();
        store.open_stream("a-1").unwrap().write(event("x"), ExpectedVersion::Any).await.unwrap();
        let error = store.all().read().collect().await.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(matches!(error, StoreError::Io { .. }) && cause.contains("too many connections"), "{cause}");
        let second = PostgresStore::connect(&url).await.unwrap_err();
        assert!(matches!(&second, es_postgres::OpenError::Unreachable { .. }), "{second:?}");
        assert_eq!(second.kind(), ErrorKind::Retry);
        sql(&server.url(), "ALTER ROLE few CONNECTION LIMIT 5").await;
        assert_eq!(store.all().read().collect().await.unwrap().len(), 1);
    });
}

async fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not come");
        sleep(Duration::from_millis(10)).await;
    }
}
