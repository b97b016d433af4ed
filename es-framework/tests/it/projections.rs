//! H: projections, where a fact needs more than an engine: a paused clock, and somebody who reads the log's lines.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails, as inside a test")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use es_conformance::bank::AccountEvent;
use es_framework::{
    Event, ExpectedVersion, MemoryStore, ModelError, Position, Projection, Projector, Recorded, RunError, StateModel,
    StateTx, Store, WaitError,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

#[derive(Debug, Default, Clone)]
struct Refuses(Arc<AtomicU64>);

/// An error that panics when it is shown.
struct Loud;

impl fmt::Debug for Loud {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a user's Debug breaks");
    }
}

impl fmt::Display for Loud {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a user's Display breaks");
    }
}

impl std::error::Error for Loud {}

impl Projector for Refuses {
    type Event = AccountEvent;
    type Model = StateModel<u64>;
    type Error = Loud;
    const NAME: &'static str = "refuses";

    fn project(&self, event: &Recorded<AccountEvent>, sum: &mut StateTx<'_, u64>) -> Result<(), Loud> {
        let AccountEvent::Deposited { cents } = event.event() else { return Ok(()) };
        **sum += cents;
        if *cents == self.0.load(Ordering::SeqCst) { Err(Loud) } else { Ok(()) }
    }
}

async fn deposit(store: &Store, cents: u64) -> Position {
    let deposited = AccountEvent::Deposited { cents }.encode().unwrap();
    store.open_stream("account-a").unwrap().write(deposited, ExpectedVersion::Any).await.unwrap().position
}

/// Writes all that it is told, as a subscriber that writes lines does.
#[derive(Debug, Default, Clone)]
struct Lines(Arc<Mutex<String>>);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let line = format!("{field}={value:?} ");
        self.0.lock().unwrap().push_str(&line);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        for error in std::iter::successors(Some(value), |error| error.source()) {
            self.record_debug(field, &error.to_string());
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The error of a projection goes to the log before its handle knows of it, and the text of that error is a user's code: it
/// panicked, and the projection had ended without a word.
#[tokio::test]
async fn h3_an_error_whose_text_panics_is_told_all_the_same() {
    let lines = Lines::default();
    let _reading = tracing::subscriber::set_default(lines.clone());
    let store = Store::from(MemoryStore::new());
    let model = StateModel::new(&store);
    let refuses = Refuses::default();
    let running = Projection::new(&store, refuses.clone(), model.clone()).start().await.unwrap();
    refuses.0.store(13, Ordering::SeqCst);
    deposit(&store, 1).await;
    let bad = deposit(&store, 13).await;
    let error = running.finished().await.expect_err("it refuses");
    let RunError::Model(ModelError::Refused { position, .. }) = &*error else { panic!("another error") };
    assert_eq!((*position, running.position(), model.read(|sum| *sum)), (bad, Position::new(1), 1));
    tokio::task::yield_now().await;
    let lines = lines.0.lock().unwrap();
    assert!(lines.contains("the text of the error panicked"), "{lines}");
}

/// Where tokio's time is paused it jumps ahead as soon as every task waits, so a wait for a position was over at once.
#[tokio::test(start_paused = true)]
async fn h5_a_wait_is_real_time_where_tokio_s_is_paused() {
    let store = Store::from(MemoryStore::new());
    let running = Projection::new(&store, Refuses::default(), StateModel::new(&store)).start().await.unwrap();
    let (told, hears) = tokio::sync::oneshot::channel();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            // As a database works that knows nothing of tokio's time.
            std::thread::sleep(Duration::from_millis(50));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            told.send(runtime.block_on(deposit(&store, 1))).unwrap();
        })
    };
    running.wait_for(Position::new(1), Duration::from_secs(30)).await.unwrap();
    assert_eq!(hears.await.unwrap(), Position::new(1));
    writer.join().unwrap();
    let begun = std::time::Instant::now();
    let late = running.wait_for(Position::new(2), Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(late, WaitError::TimedOut { .. }), "{late:?}");
    assert!(begun.elapsed() >= Duration::from_millis(20));
    running.stop().await.unwrap();
}
