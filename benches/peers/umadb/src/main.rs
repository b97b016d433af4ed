//! UmaDB's core as a peer: the storage engine in the process, without the gRPC server around it.
//!
//! How it is run: as `umadb-server` 0.7.8 runs it. One writer thread (`writer_thread_blocking`, the server's default) behind
//! a channel of 1,024 requests takes what waits, up to 2,048 events, into one commit with two fsyncs; `StorageOptions`
//! are the defaults (4 KiB pages, file I/O, no page cache limit, zero fill). Reads go through `UmaDb::read`, 1,024 events
//! a page as the server reads them; they run on the caller's thread where the server uses `spawn_blocking`. Nothing is
//! paid for gRPC, which every user of the server pays.
//!
//! A stream is a tag (`stream:<name>`), an event's data is its raw bytes and no event has a UUID. Appends are
//! unconditional; a command (W5) reads its tag's events and appends on the condition that none came after.
//! UmaDB always syncs, so there is no `normal` mode.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peer_common::{Args, Fold, Mode, Payload, Peer, cannot, report, run};
use tokio::sync::{mpsc, oneshot, watch};
use umadb_core::db::UmaDb;
use umadb_core::mvcc::{Mvcc, StorageOptions};
use umadb_core::writer_thread_blocking::writer_thread_blocking;
use umadb_core::writer_thread_request::WriterThreadRequest;
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreSync, DcbQuery, DcbQueryItem, DcbResult, DcbSequencedEvent,
};

const NOTE: &str = "umadb-core 0.7.8 in process, no gRPC; writer thread and batch limit (2048 events) as umadb-server's \
    default; two fsyncs a commit, durable only; raw bytes, a tag for a stream, no UUIDs; appends unconditional, W5 on the \
    condition that no event with the tag came since the read";

/// As in `umadb-server`.
const REQUESTS: usize = 1024;
const BATCH_MAX_EVENTS: usize = 2048;
const READ_PAGE: u32 = 1024;

enum Event {
    Ticked,
    Noted { data: Vec<u8> },
}

impl Event {
    fn decode(stored: DcbSequencedEvent) -> Self {
        match stored.event.event_type.as_str() {
            "Ticked" => Self::Ticked,
            "Noted" => Self::Noted { data: stored.event.data },
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

fn encode(tag: &str, payload: Payload) -> DcbEvent {
    let event = DcbEvent::new().tags([tag]);
    match payload {
        None => event.event_type("Ticked"),
        Some(data) => event.event_type("Noted").data(data.into_bytes()),
    }
}

fn tag(stream: &str) -> String {
    format!("stream:{stream}")
}

fn query(tag: &str) -> DcbQuery {
    DcbQuery::new().item(DcbQueryItem::new().tags([tag]))
}

#[derive(Clone)]
struct Uma {
    store: Arc<UmaDb>,
    writer: mpsc::Sender<WriterThreadRequest>,
}

impl Uma {
    fn open(args: &Args) -> (Self, thread::JoinHandle<()>) {
        let mvcc = Mvcc::new(false, StorageOptions::default().db_path(&args.dir)).expect("the store opens");
        let mvcc = Arc::new(mvcc);
        let (writer, requests) = mpsc::channel(REQUESTS);
        let (head, _) = watch::channel(None);
        let store = Arc::new(UmaDb::from_arc(Arc::clone(&mvcc)));
        let thread = thread::spawn(move || writer_thread_blocking(mvcc, requests, head, BATCH_MAX_EVENTS));
        (Self { store, writer }, thread)
    }

    async fn request(&self, events: Vec<DcbEvent>, condition: Option<DcbAppendCondition>) -> DcbResult<u64> {
        let (response_tx, response) = oneshot::channel();
        let request = WriterThreadRequest::Append { events, condition, tracking_info: None, response_tx, cancel: None };
        self.writer.send(request).await.unwrap_or_else(|_| panic!("the writer thread has ended"));
        response.await.expect("the writer thread answers")
    }

    fn read_pages(&self, query: Option<&DcbQuery>) -> Fold {
        let mut fold = Fold::default();
        let mut start = None;
        loop {
            let (page, _) = self.store.read_with_head(query.cloned(), start, false, Some(READ_PAGE)).expect("the page");
            let Some(last) = page.last() else { return fold };
            start = Some(last.position + 1);
            for stored in page {
                Event::decode(stored).fold_into(&mut fold);
            }
        }
    }
}

impl Peer for Uma {
    async fn append(&self, stream: &str, _version: u64, events: Vec<Payload>) {
        let tag = tag(stream);
        let events = events.into_iter().map(|payload| encode(&tag, payload)).collect();
        self.request(events, None).await.expect("the append succeeds");
    }

    async fn execute(&self, stream: &str, event: Payload) {
        let tag = tag(stream);
        loop {
            let (history, head) =
                self.store.read_with_head(Some(query(&tag)), None, false, None).expect("the stream is read");
            let mut state = Fold::default();
            history.into_iter().for_each(|stored| Event::decode(stored).fold_into(&mut state));
            let condition = DcbAppendCondition::new(query(&tag)).after(head);
            match self.request(vec![encode(&tag, event.clone())], Some(condition)).await {
                Ok(_) => return,
                Err(DcbError::IntegrityError(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn load(&self, stream: &str) -> Fold {
        self.read_pages(Some(&query(&tag(stream))))
    }

    async fn read_all(&self) -> Fold {
        self.read_pages(None)
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
    if args.mode == Mode::Normal {
        cannot("umadb-core syncs every commit; it has no mode without");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let (peer, writer) = Uma::open(&args);
    let measured = runtime.block_on(run(&args, &peer));
    drop(peer);
    drop(runtime);
    writer.join().expect("the writer thread ends when nobody can ask it");
    report(&args, measured, NOTE);
}
