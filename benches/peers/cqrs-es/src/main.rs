//! cqrs-es with sqlite-es as a peer.
//!
//! How it is run: `normal` is `default_sqlite_pool`, the library's own: WAL, `synchronous = NORMAL`, ten connections, 5 s
//! busy timeout. `full` is the same pool with `synchronous = FULL`. The tables are those of its `init` migration.
//!
//! The library's users execute commands; there is no append apart from them. So the append workloads (W1 to W4) call the
//! repository's `persist` with events serialized as the framework serializes them, one transaction an append: what
//! `execute` costs without its load. A command (W5) is `CqrsFramework::execute` on an event store without snapshots and
//! without queries. Ten connections contend for one write lock: an attempt that fails because the database is locked is made
//! again, as is one that meets a conflict, and its wait counts.
//!
//! A stream is `load_aggregate`; the log is `stream_all_events`, which orders by each aggregate's own sequence, since the
//! table has no global position. It is the nearest to W7 that the library has, and the same order for the one stream that
//! W7 writes.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore, PersistenceError, SerializedEvent};
use cqrs_es::{Aggregate, AggregateContext, AggregateError, CqrsFramework, DomainEvent, EventStore};
use peer_common::{Args, Fold, Mode, Payload, Peer, report, run};
use serde::{Deserialize, Serialize};
use sqlite_es::{SqliteCqrs, SqliteEventRepository, default_sqlite_pool, sqlite_cqrs};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

const NOTE: &str = "cqrs-es 0.5.0 with sqlite-es 0.5.0; normal: default_sqlite_pool (WAL, NORMAL, 10 connections); full: the \
    same pool with synchronous FULL; JSON events; W1-W4 through the repository's persist, W5 through execute without \
    snapshots, locked and conflicting attempts made again; W7 is stream_all_events, which has no global order";

/// The `events` table of sqlite-es's `init` migration.
const SCHEMA: &str = "CREATE TABLE events (
    aggregate_type text                          NOT NULL,
    aggregate_id   text                          NOT NULL,
    sequence       integer CHECK (sequence >= 0) NOT NULL,
    event_type     text                          NOT NULL,
    event_version  text                          NOT NULL,
    payload        text                          NOT NULL,
    metadata       text                          NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
) STRICT";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Ticked,
    Noted { data: String },
}

impl Event {
    fn new(payload: Payload) -> Self {
        payload.map_or(Self::Ticked, |data| Self::Noted { data })
    }

    fn fold_into(&self, fold: &mut Fold) {
        fold.add(match self {
            Self::Ticked => 0,
            Self::Noted { data } => data.len(),
        });
    }
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Self::Ticked => "Ticked".to_owned(),
            Self::Noted { .. } => "Noted".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    #[serde(skip)]
    fold: Fold,
}

impl Aggregate for Notes {
    const TYPE: &'static str = "notes";
    type Command = Payload;
    type Event = Event;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, command: Payload, _services: &(), sink: &EventSink<Self>) -> Result<(), Infallible> {
        sink.write(Event::new(command), self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        event.fold_into(&mut self.fold);
    }
}

#[derive(Clone)]
struct CqrsEs {
    framework: Arc<SqliteCqrs<Notes>>,
    repository: Arc<SqliteEventRepository>,
    store: Arc<PersistedEventStore<SqliteEventRepository, Notes>>,
}

impl CqrsEs {
    fn new(pool: &Pool<Sqlite>) -> Self {
        let framework: CqrsFramework<_, _> = sqlite_cqrs(pool.clone(), Vec::new(), ());
        let store = PersistedEventStore::new_event_store(SqliteEventRepository::new(pool.clone()));
        Self {
            framework: Arc::new(framework),
            repository: Arc::new(SqliteEventRepository::new(pool.clone())),
            store: Arc::new(store),
        }
    }
}

async fn open(args: &Args) -> Pool<Sqlite> {
    let url = format!("sqlite://{}", args.file("events.db").display());
    let pool = match args.mode {
        Mode::Normal => default_sqlite_pool(&url).await,
        Mode::Full => {
            let options = SqliteConnectOptions::from_str(&url)
                .expect("a valid address")
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true);
            SqlitePoolOptions::new().max_connections(10).connect_with(options).await.expect("the database opens")
        }
    };
    sqlx::query(SCHEMA).execute(&pool).await.expect("the table is made");
    pool
}

impl Peer for CqrsEs {
    async fn append(&self, stream: &str, version: u64, events: Vec<Payload>) {
        let events: Vec<_> = (version + 1..)
            .zip(events)
            .map(|(sequence, payload)| {
                let event = Event::new(payload);
                SerializedEvent::new(
                    stream.to_owned(),
                    usize::try_from(sequence).expect("sequences fit"),
                    Notes::TYPE.to_owned(),
                    event.event_type(),
                    event.event_version(),
                    serde_json::to_value(&event).expect("the event serializes"),
                    serde_json::json!({}),
                )
            })
            .collect();
        loop {
            match self.repository.persist::<Notes>(&events, None).await {
                Ok(()) => return,
                Err(PersistenceError::ConnectionError(error)) if is_busy(error.as_ref()) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn execute(&self, stream: &str, event: Payload) {
        loop {
            match self.framework.execute(stream, event.clone()).await {
                Ok(()) => return,
                Err(AggregateError::AggregateConflict) => {}
                Err(AggregateError::DatabaseConnectionError(error)) if is_busy(error.as_ref()) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn load(&self, stream: &str) -> Fold {
        let mut context = self.store.load_aggregate(stream).await.expect("the aggregate loads");
        context.aggregate().fold
    }

    async fn read_all(&self) -> Fold {
        let mut fold = Fold::default();
        let mut events = self.repository.stream_all_events::<Notes>().await.expect("the log opens");
        while let Some(event) = events.next::<Notes>(&[]).await {
            event.expect("the event decodes").payload.fold_into(&mut fold);
        }
        fold
    }

    async fn at_once<F>(callers: Vec<F>) -> Vec<Vec<Duration>>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static,
    {
        let tasks: Vec<_> = callers.into_iter().map(tokio::spawn).collect();
        let mut done = Vec::new();
        for task in tasks {
            done.push(task.await.expect("the caller does not panic"));
        }
        done
    }
}

/// Whether the busy timeout of 5 s ran out, which is no reason to give up.
fn is_busy(error: &(dyn std::error::Error + 'static)) -> bool {
    error.to_string().contains("database is locked")
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let measured = runtime.block_on(async {
        let pool = open(&args).await;
        let measured = run(&args, &CqrsEs::new(&pool)).await;
        // Connections that close at the same time may leave the WAL behind, which would be weighed.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await.expect("the checkpoint runs");
        pool.close().await;
        measured
    });
    report(&args, measured, NOTE);
}
