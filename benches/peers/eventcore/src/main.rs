//! EventCore on SQLite as a peer.
//!
//! How it is run: `full` is `SqliteEventStore::new`, the library's own opening: WAL and SQLite's default
//! `synchronous = FULL`, nothing else set (2 MB page cache, automatic checkpoints every 1,000 pages). `normal` opens the same
//! connection with `synchronous = NORMAL` and hands it over with `from_connection`. One connection behind one mutex, every
//! operation on `spawn_blocking`: the library's design, there is no pool to size.
//!
//! Events are a serde enum stored as JSON, and carry their stream's id, as the `Event` trait asks. Every append states
//! the expected version, which the library requires. A command (W5) is `eventcore::execute` with the default retry
//! policy and without command snapshots, which are off unless a command asks for them. A stream is folded from the lazy
//! `EventStream`; the log is read in pages of 1,000. No tracing subscriber is installed.

use std::sync::Arc;
use std::time::Duration;

use eventcore::{Command, CommandError, CommandLogic, NewEvents, RetryPolicy, StreamId, execute};
use eventcore_sqlite::rusqlite::Connection;
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
use eventcore_types::{BatchSize, EventFilter, EventPage, EventReader, EventStore, StreamVersion, StreamWrites};
use futures_util::StreamExt;
use peer_common::{Args, Fold, Mode, Payload, Peer, report, run};
use serde::{Deserialize, Serialize};

const NOTE: &str = "eventcore 2.1.0 with eventcore-sqlite 2.1.0; one connection behind a mutex (its design), WAL; full: \
    SqliteEventStore::new as it is, synchronous FULL by SQLite's default; normal: from_connection with synchronous = NORMAL; \
    JSON events that hold their stream id; expected version on every append; W5 through execute, no command snapshots";

const READ_PAGE: usize = 1_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Event {
    Ticked { stream: StreamId },
    Noted { stream: StreamId, data: String },
}

impl Event {
    fn new(stream: &StreamId, payload: Payload) -> Self {
        let stream = stream.clone();
        match payload {
            None => Self::Ticked { stream },
            Some(data) => Self::Noted { stream, data },
        }
    }

    fn fold_into(&self, fold: &mut Fold) {
        fold.add(match self {
            Self::Ticked { .. } => 0,
            Self::Noted { data, .. } => data.len(),
        });
    }
}

impl eventcore::Event for Event {
    fn stream_id(&self) -> &StreamId {
        match self {
            Self::Ticked { stream } | Self::Noted { stream, .. } => stream,
        }
    }

    fn event_type_name() -> &'static str {
        "Event"
    }
}

#[derive(Command)]
struct Note {
    #[stream]
    stream: StreamId,
    payload: Payload,
}

impl CommandLogic for Note {
    type Event = Event;
    type State = Fold;

    fn apply(&self, mut state: Fold, event: &Event) -> Fold {
        event.fold_into(&mut state);
        state
    }

    fn handle(&self, _state: Fold) -> Result<NewEvents<Event>, CommandError> {
        Ok(vec![Event::new(&self.stream, self.payload.clone())].into())
    }
}

fn stream_id(stream: &str) -> StreamId {
    StreamId::try_new(stream).expect("a valid stream id")
}

#[derive(Clone)]
struct EventCore(Arc<SqliteEventStore>);

impl EventCore {
    async fn open(args: &Args) -> Self {
        let path = args.file("events.db");
        let store = match args.mode {
            Mode::Full => SqliteEventStore::new(SqliteConfig { path, encryption_key: None }).expect("the store opens"),
            Mode::Normal => {
                let connection = Connection::open(path).expect("the database opens");
                connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
                connection.pragma_update(None, "synchronous", "NORMAL").expect("NORMAL");
                SqliteEventStore::from_connection(connection)
            }
        };
        store.migrate().await.expect("the tables are made");
        Self(Arc::new(store))
    }
}

impl Peer for EventCore {
    async fn append(&self, stream: &str, version: u64, events: Vec<Payload>) {
        let stream = stream_id(stream);
        let version = StreamVersion::new(usize::try_from(version).expect("versions fit"));
        let mut writes = StreamWrites::new().register_stream(stream.clone(), version).expect("one stream");
        for payload in events {
            writes = writes.append(Event::new(&stream, payload)).expect("the stream is registered");
        }
        self.0.append_events(writes).await.expect("the append succeeds");
    }

    async fn execute(&self, stream: &str, event: Payload) {
        let command = Note { stream: stream_id(stream), payload: event };
        execute(&*self.0, command, RetryPolicy::new()).await.expect("the command succeeds");
    }

    async fn load(&self, stream: &str) -> Fold {
        let mut events = self.0.read_stream::<Event>(stream_id(stream)).await.expect("the stream opens");
        let mut fold = Fold::default();
        while let Some(event) = events.next().await {
            event.expect("the event decodes").fold_into(&mut fold);
        }
        fold
    }

    async fn read_all(&self) -> Fold {
        let mut fold = Fold::default();
        let mut page = EventPage::first(BatchSize::new(READ_PAGE));
        loop {
            let events: Vec<(Event, _)> = self.0.read_events(EventFilter::all(), page).await.expect("the page");
            events.iter().for_each(|(event, _)| event.fold_into(&mut fold));
            match page.next_from_results(&events) {
                Some(next) => page = next,
                None => return fold,
            }
        }
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

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let measured = runtime.block_on(async {
        let peer = EventCore::open(&args).await;
        run(&args, &peer).await
    });
    drop(runtime);
    report(&args, measured, NOTE);
}
