//! happenstance on SQLite as a peer.
//!
//! How it is run: `normal` is `SqliteEventStore::open`, the library's own: WAL, `synchronous = NORMAL`, 15 s busy timeout.
//! `full` opens the same connection (`connection::open_configured`), sets `synchronous = FULL` and hands it over with
//! `open_on`. One connection behind one mutex; an append runs on the thread that polls it and a read on `spawn_blocking`,
//! both by the library's design.
//!
//! A stream is a tag (`stream:<name>`). The store takes bytes and leaves encoding to the layer above, so the append and read
//! workloads store an event's data raw, under one event type per variant, which is the cheapest there is. Appends are
//! unconditional. An append holds at most 256 events; a larger `--per-append` is cut to that, as its users must. A command
//! (W5) is `happenstance::commit`, the typed layer's read-decide-append-retry loop with its JSON codec.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use happenstance::bytes::Bytes;
use happenstance::{
    Codec, CodecError, DecisionModel, DomainEvent, EventType, Query, QueryItem, ReadOptions, Retry, SendEventStore,
    SequencedEvent, Tags, commit,
};
use happenstance_sqlite::connection::open_configured;
use happenstance_sqlite::event_store::SqliteEventStore;
use peer_common::{Args, Fold, Mode, Payload, Peer, report, run};
use serde::{Deserialize, Serialize};

const NOTE: &str = "happenstance-sqlite 0.4.6; one connection behind a mutex (its design), WAL; normal: SqliteEventStore::open \
    as it is, synchronous NORMAL; full: open_on with synchronous = FULL; a tag for a stream; raw bytes, unconditional appends \
    of at most 256 events (its limit); W5 through happenstance::commit with its JSON codec";

const TICKED: EventType = EventType::from_static("Ticked");
const NOTED: EventType = EventType::from_static("Noted");

/// A command's events carry their stream; the append and read workloads decode to the same enum.
#[derive(Debug, Serialize, Deserialize)]
enum Event {
    Ticked,
    Noted { data: String },
}

impl Event {
    fn decode_raw(stored: SequencedEvent) -> Self {
        match stored.event_type().as_str() {
            "Ticked" => Self::Ticked,
            "Noted" => {
                let data = String::from_utf8(stored.event.data().to_vec()).expect("the data is text");
                Self::Noted { data }
            }
            other => panic!("unknown event type {other}"),
        }
    }

    fn fold_into(&self, fold: &mut Fold) {
        fold.add(match self {
            Self::Ticked => 0,
            Self::Noted { data } => data.len(),
        });
    }
}

fn encode_raw(tags: &Tags, payload: Payload) -> happenstance::Event {
    let event = match payload {
        None => happenstance::Event::new(TICKED, Bytes::new()),
        Some(data) => happenstance::Event::new(NOTED, data.into_bytes()),
    };
    event.expect("a valid event type").with_tags(tags.clone())
}

/// What a command decides: an event of a stream.
struct NoteOf {
    tags: Tags,
    event: Event,
}

impl DomainEvent for NoteOf {
    const EVENT_TYPES: &'static [EventType] = &[TICKED, NOTED];

    fn event_type(&self) -> EventType {
        match self.event {
            Event::Ticked => TICKED,
            Event::Noted { .. } => NOTED,
        }
    }

    fn tags(&self) -> Tags {
        self.tags.clone()
    }

    fn encode<C: Codec>(&self, codec: &C) -> Result<Bytes, CodecError> {
        codec.encode(&self.event)
    }

    fn decode<C: Codec>(codec: &C, _event_type: &EventType, data: &Bytes) -> Result<Self, CodecError> {
        Ok(Self { tags: Tags::empty(), event: codec.decode(data)? })
    }
}

#[derive(Clone)]
struct Notes {
    scope: Tags,
    fold: Fold,
}

impl DecisionModel for Notes {
    type Event = NoteOf;

    fn scope(&self) -> &Tags {
        &self.scope
    }

    fn apply(&mut self, event: NoteOf) {
        event.event.fold_into(&mut self.fold);
    }
}

fn tags(stream: &str) -> Tags {
    Tags::from_pairs([("stream", stream)]).expect("a valid tag")
}

#[derive(Clone)]
struct Happenstance {
    store: Arc<SqliteEventStore>,
    /// W5 stores what the typed layer encodes, the other workloads raw bytes; `--check` reads either.
    json: bool,
}

impl Happenstance {
    fn open(args: &Args) -> Self {
        let path = args.file("events.db");
        let store = match args.mode {
            Mode::Normal => SqliteEventStore::open(path),
            Mode::Full => {
                let connection = open_configured(path).expect("the database opens");
                connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
                SqliteEventStore::open_on(connection)
            }
        };
        Self { store: Arc::new(store.expect("the store opens")), json: args.workload == "W5" }
    }

    async fn read(&self, query: Query) -> Fold {
        let mut fold = Fold::default();
        let mut events = std::pin::pin!(self.store.read(&query, ReadOptions::new()));
        while let Some(stored) = events.next().await {
            let stored = stored.expect("the event is read");
            if self.json {
                let event = NoteOf::decode(&happenstance::Json, stored.event_type(), stored.event.data());
                event.expect("the event decodes").event.fold_into(&mut fold);
            } else {
                Event::decode_raw(stored).fold_into(&mut fold);
            }
        }
        fold
    }
}

impl Peer for Happenstance {
    async fn append(&self, stream: &str, _version: u64, events: Vec<Payload>) {
        let tags = tags(stream);
        let events: Vec<_> = events.into_iter().map(|payload| encode_raw(&tags, payload)).collect();
        for events in events.chunks(SqliteEventStore::MAX_EVENTS_PER_BATCH) {
            self.store.append(events, None).await.expect("the append succeeds");
        }
    }

    async fn execute(&self, stream: &str, event: Payload) {
        let tags = tags(stream);
        let notes = Notes { scope: tags.clone(), fold: Fold::default() };
        let decide = |_: &Notes| {
            let event = event.clone().map_or(Event::Ticked, |data| Event::Noted { data });
            Ok::<_, Infallible>(vec![NoteOf { tags: tags.clone(), event }])
        };
        let retry = Retry::attempts(NonZeroU32::new(5).expect("not zero"));
        let outcome = commit(&*self.store, notes, retry, decide).await.expect("the command succeeds");
        assert!(outcome.committed().is_some(), "the command appended nothing");
    }

    async fn load(&self, stream: &str) -> Fold {
        self.read(Query::from_item(QueryItem::tagged(tags(stream)).expect("a tag is given"))).await
    }

    async fn read_all(&self) -> Fold {
        self.read(Query::all()).await
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
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    // The store keeps a handle of the runtime it is opened in, for its reads.
    let measured = runtime.block_on(async { run(&args, &Happenstance::open(&args)).await });
    drop(runtime);
    report(&args, measured, NOTE);
}
