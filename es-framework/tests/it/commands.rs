//! What commands cost, counted.

use std::cell::Cell;
use std::convert::Infallible;

use es_framework::{Aggregate, Apply, Command, Context, Envelope, Event, Handle, MemoryStore, Repository};
use serde::Serialize;

thread_local! {
    static APPLIED: Cell<u64> = const { Cell::new(0) };
    static COPIED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Debug, Clone, Event)]
#[es(name = "counted")]
struct Counted;

#[derive(Debug, Default, Aggregate)]
#[es(category = "counter", event = Counted)]
struct Counter {
    count: u64,
}

impl Clone for Counter {
    fn clone(&self) -> Self {
        COPIED.set(COPIED.get() + 1);
        Self { count: self.count }
    }
}

impl Apply for Counter {
    fn apply(&mut self, _: &Counted, _: Envelope<'_>) {
        APPLIED.set(APPLIED.get() + 1);
        self.count += 1;
    }
}

#[derive(Debug, Serialize, Command)]
#[es(name = "counter.count")]
struct Count(u64);

impl Handle<Count> for Counter {
    type Error = Infallible;
    fn handle(&self, command: &Count, _: &Context<'_, Self>) -> Result<Vec<Counted>, Infallible> {
        Ok((0..command.0).map(|_| Counted).collect())
    }
}

/// The receipt of each known command replayed the stream up to its version: 500 of them on 500 events were 125,000 events.
#[tokio::test]
async fn many_known_commands_in_order_cost_one_replay() {
    let store = MemoryStore::new();
    let counters = Repository::<Counter>::new(&store);
    for n in 1..=500 {
        counters.execute("a", Count(1)).key(format!("k-{n}")).await.unwrap();
    }
    let counters = Repository::<Counter>::new(&store);
    counters.load("a").await.unwrap();
    APPLIED.set(0);
    for n in 1..=500 {
        let again = counters.execute("a", Count(1)).key(format!("k-{n}")).await.unwrap();
        assert!(again.was_known);
        assert_eq!(again.state.count, n);
    }
    // One load, the trial of each command, and one replay for the receipts.
    assert!(APPLIED.get() <= 3 * 500, "{} events were applied", APPLIED.get());
}

/// `apply` is tried on a copy, and the state itself is copied only while a receipt holds it.
#[tokio::test]
async fn a_command_with_events_copies_the_state_once() {
    let counters = Repository::<Counter>::new(MemoryStore::new());
    counters.execute("a", Count(1)).await.unwrap();
    COPIED.set(0);
    for _ in 0..100 {
        counters.execute("a", Count(3)).await.unwrap();
    }
    assert_eq!(COPIED.get(), 100);
    for _ in 0..100 {
        counters.execute("a", Count(0)).await.unwrap();
    }
    assert_eq!(COPIED.get(), 100, "without events there is nothing to try");
}
