//! ddd_cqrs_es on SQLite as a peer.
//!
//! How it is run: through the synchronous `EventStore` and `Repository`, which is the library's first API; each caller is
//! a thread. The store takes an open `rusqlite::Connection` and sets no pragma, so its users get a rollback journal unless
//! they say otherwise; here the connection is opened with a WAL and the asked-for `synchronous`, which is faster than
//! that default. One connection behind one mutex is the library's design.
//!
//! Events are a serde enum stored as JSON with empty metadata. Appends say `ExpectedRevision::Any`. A command (W5) is
//! `Repository::execute` without snapshots. Loading a stream is `Repository::load`, the whole stream at once, as the
//! library does it; the log is read in pages of 1,000 (`load_global_after_limited`).

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use ddd_cqrs_es::{
    Aggregate, DomainEvent, EventStore, ExpectedRevision, Metadata, NewEvent, Repository, Revision, SqliteEventStore,
};
use peer_common::{Args, Fold, Payload, Peer, report, run};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

const NOTE: &str = "ddd_cqrs_es 0.3.0-rc.6, sqlite; synchronous API, a thread a caller, one connection behind a mutex (its \
    design); WAL and synchronous set on the connection handed over (the library sets no pragma); JSON events, empty \
    metadata; appends with ExpectedRevision::Any; W5 through Repository::execute, no snapshots";

const READ_PAGE: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

#[derive(Debug, Clone, Serialize, Deserialize)]
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
    fn event_type(&self) -> &'static str {
        match self {
            Self::Ticked => "Ticked",
            Self::Noted { .. } => "Noted",
        }
    }
}

#[derive(Debug, Clone)]
struct Notes(Fold);

impl Aggregate for Notes {
    type Id = String;
    type Command = Payload;
    type Event = Event;
    type Error = Infallible;

    fn aggregate_type() -> &'static str {
        "notes"
    }

    fn revision(&self) -> Revision {
        self.0.events
    }

    fn apply(&mut self, event: &Event) {
        event.fold_into(&mut self.0);
    }

    fn handle(&self, command: Payload) -> Result<Vec<Event>, Infallible> {
        Ok(vec![Event::new(command)])
    }

    fn new() -> Self {
        Self(Fold::default())
    }
}

#[derive(Clone)]
struct Ddd(Repository<Notes, SqliteEventStore<Notes>>);

impl Ddd {
    fn open(args: &Args) -> Self {
        let connection = Connection::open(args.file("events.db")).expect("the database opens");
        connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        connection.pragma_update(None, "synchronous", args.mode.pragma()).expect("the mode");
        let store = SqliteEventStore::new(connection).expect("the store opens");
        store.initialize_schema().expect("the tables are made");
        Self(Repository::new(store))
    }
}

impl Peer for Ddd {
    async fn append(&self, stream: &str, _version: u64, events: Vec<Payload>) {
        let events = events.into_iter().map(|payload| NewEvent::new(Event::new(payload), Metadata::new())).collect();
        self.0.store().append(&stream.to_owned(), ExpectedRevision::Any, events).expect("the append succeeds");
    }

    async fn execute(&self, stream: &str, event: Payload) {
        self.0.execute(&stream.to_owned(), event, Metadata::new()).expect("the command succeeds");
    }

    async fn load(&self, stream: &str) -> Fold {
        self.0.load(&stream.to_owned()).expect("the aggregate loads").state.0
    }

    async fn read_all(&self) -> Fold {
        let mut fold = Fold::default();
        let mut after = None;
        loop {
            let page = self.0.store().load_global_after_limited(after, READ_PAGE).expect("the page");
            let Some(last) = page.last() else { return fold };
            after = last.sequence;
            page.iter().for_each(|envelope| envelope.payload.fold_into(&mut fold));
        }
    }

    async fn at_once<F>(callers: Vec<F>) -> Vec<Vec<Duration>>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static,
    {
        let threads: Vec<_> = callers.into_iter().map(|caller| thread::spawn(|| now(caller))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the caller does not panic")).collect()
    }
}

/// The value of a future that never waits: the library is synchronous, only the shared trait is not.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn main() {
    let args = Args::parse();
    let peer = Ddd::open(&args);
    let measured = now(run(&args, &peer));
    drop(peer);
    report(&args, measured, NOTE);
}
