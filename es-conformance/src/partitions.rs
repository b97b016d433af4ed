//! H11: projections that are spread over partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use es_framework::{
    Event, ExpectedVersion, Lease, Policy, Position, Projection, Projector, Recorded, RunError, Running, StartFrom,
    StateModel, StateTx, Store, Then,
};
use serde::{Deserialize, Serialize};

use crate::bank::AccountEvent;
use crate::fixture::Fixture;
use crate::support::{PATIENCE, stream, within};

/// The versions of the events of each stream, in the order in which they took effect.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen(BTreeMap<String, Vec<u64>>);

impl Seen {
    fn check(&self, streams: usize, each: usize) {
        assert_eq!(self.0.len(), streams);
        for (stream, versions) in &self.0 {
            let expected: Vec<u64> = (1..=each as u64).collect();
            assert_eq!(versions, &expected, "{stream}: each event once, in order");
        }
    }
}

/// Notes every event; refuses what is of 13 cents, unless it is lenient.
#[derive(Debug, Default, Clone)]
struct Noting {
    lenient: Arc<AtomicBool>,
}

impl Projector for Noting {
    type Event = AccountEvent;
    type Model = StateModel<Seen>;
    type Error = &'static str;
    const NAME: &'static str = "noting";

    fn project(&self, event: &Recorded<AccountEvent>, seen: &mut StateTx<'_, Seen>) -> Result<(), &'static str> {
        if matches!(event.event(), AccountEvent::Deposited { cents: 13 }) && !self.lenient.load(Ordering::SeqCst) {
            return Err("it is refused");
        }
        seen.0.entry(event.stream().to_string()).or_default().push(event.version().get());
        Ok(())
    }
}

const STREAMS: usize = 23;

/// Writes this many events to each stream, one after the other.
async fn fill(store: &Store, each: usize) -> Position {
    let mut last = Position::ZERO;
    for _ in 0..each {
        for account in 0..STREAMS {
            let event = AccountEvent::Deposited { cents: 1 }.encode().expect("it encodes");
            let written = stream(store, &format!("account-{account}")).write(event, ExpectedVersion::Any).await;
            last = written.expect("it writes").position;
        }
    }
    last
}

async fn start(store: &Store, model: &StateModel<Seen>, count: u32) -> Vec<Running> {
    let whole = Projection::new(store, Noting::default(), model.clone());
    let mut running = Vec::new();
    for partition in whole.partitions(count).expect("it is a good number") {
        running.push(partition.start().await.expect("it starts"));
    }
    running
}

/// Each partition applies the events of its keys in order; together they apply each event once.
pub async fn h11_partitions_apply_each_event_once_and_in_order(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    fill(&store, 20).await;
    let running = start(&store, &model, 4).await;
    let names: Vec<&str> = running.iter().map(|running| running.name().as_str()).collect();
    assert_eq!(names, ["noting#0", "noting#1", "noting#2", "noting#3"]);
    let last = fill(&store, 20).await;
    for partition in &running {
        partition.wait_for(last, PATIENCE).await.expect("it gets there");
    }
    model.read(|seen| seen.check(STREAMS, 40));
    let applied: u64 = running.iter().map(|partition| partition.status().events).sum();
    assert_eq!(applied, 40 * STREAMS as u64, "each counts its own");
    for partition in running {
        partition.stop().await.expect("it stops");
    }
}

/// The number of partitions changes at every start, and some of them have got further than others.
pub async fn h11_the_number_of_partitions_can_change(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut each = 0;
    let whole = StateModel::new(&store);
    fill(&store, 3).await;
    each += 3;
    Projection::new(&store, Noting::default(), whole).catch_up().await.expect("it catches up as a whole");
    for count in [3, 5, 1, 32, 2] {
        let model = StateModel::new(&store);
        let running = start(&store, &model, count).await;
        let mut last = fill(&store, 2).await;
        // The first ones stop earlier than the others.
        let some = running.len() / 2;
        for partition in &running[..some] {
            partition.wait_for(last, PATIENCE).await.expect("it gets there");
            partition.stop().await.expect("it stops");
        }
        last = fill(&store, 2).await.max(last);
        each += 4;
        for partition in &running[some..] {
            partition.wait_for(last, PATIENCE).await.expect("it gets there");
            partition.stop().await.expect("it stops");
        }
    }
    let model = StateModel::new(&store);
    Projection::new(&store, Noting::default(), model.clone()).catch_up().await.expect("it catches up as a whole");
    model.read(|seen| seen.check(STREAMS, each));
}

/// Partitions of another number start while the old ones run, as during an upgrade: until those stop, the two share their
/// keys, and no event is lost or takes effect twice.
pub async fn h11_partitions_of_another_number_take_over(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let start = async |count| {
        let whole = Projection::new(&store, Noting::default(), model.clone()).lease(Lease::default());
        let mut running = Vec::new();
        for partition in whole.partitions(count).expect("it is a good number") {
            running.push(partition.start().await.expect("it starts"));
        }
        running
    };
    let mut each = 0;
    let mut before = start(2).await;
    for count in [3, 4, 2] {
        fill(&store, 5).await;
        let after = start(count).await;
        fill(&store, 5).await;
        for partition in before {
            partition.stop().await.expect("it stops");
        }
        let last = fill(&store, 5).await;
        each += 15;
        for partition in &after {
            within("it gets there", partition.wait_for(last, PATIENCE)).await.expect("it has its keys");
        }
        model.read(|seen| seen.check(STREAMS, each));
        let status = after.iter().map(Running::status);
        assert!(status.clone().all(|status| status.lease.is_some()), "each has its lease");
        before = after;
    }
    for partition in before {
        partition.stop().await.expect("it stops");
    }
}

/// A key that is parked belongs to one partition, also after the number of partitions has changed.
pub async fn h11_a_parked_key_stays_with_its_partition(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let noting = Noting::default();
    let mut policy = Policy::stop_at_once();
    policy.then = Then::Park;
    let whole = || Projection::new(&store, noting.clone(), model.clone()).policy(policy.clone());
    fill(&store, 2).await;
    let bad = AccountEvent::Deposited { cents: 13 }.encode().expect("it encodes");
    stream(&store, "account-7").write(bad, ExpectedVersion::Any).await.expect("it writes");
    let last = fill(&store, 2).await;
    for count in [4, 3] {
        let mut running = Vec::new();
        for partition in whole().partitions(count).expect("it is a good number") {
            running.push(partition.start().await.expect("it starts"));
        }
        let mut parked = 0;
        for partition in &running {
            partition.wait_for(last, PATIENCE).await.expect("it gets there");
            parked += partition.parked(None).await.expect("it runs").len();
        }
        assert_eq!(parked, 3, "the bad one and the two behind it, once");
        for partition in running {
            partition.stop().await.expect("it stops");
        }
    }
    model.read(|seen| assert_eq!(seen.0["account-7"], [1, 2]));
    noting.lenient.store(true, Ordering::SeqCst);
    let running = whole().start().await.expect("it starts as a whole");
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    let retried = running.retry_parked(None).await.expect("it runs");
    assert_eq!((retried.applied, retried.failed), (3, 0));
    model.read(|seen| assert_eq!(seen.0["account-7"], [1, 2, 3, 4, 5]));
    running.stop().await.expect("it stops");
}

/// What cannot be divided is refused, and what one partition cannot do alone.
pub async fn h11_what_partitions_cannot_do_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let whole = || Projection::new(&store, Noting::default(), model.clone());
    for count in [0, 33] {
        let refused = whole().partitions(count).expect_err("it is no good number");
        assert!(matches!(refused, RunError::Partitions { .. }), "{refused:?}");
    }
    let refused = whole().start_from(StartFrom::Present).partitions(2).expect_err("each would start elsewhere");
    assert!(matches!(refused, RunError::Partitions { .. }), "{refused:?}");
    let last = fill(&store, 2).await;
    let running = start(&store, &model, 2).await;
    for partition in &running {
        partition.wait_for(last, PATIENCE).await.expect("it gets there");
        tokio::time::timeout(Duration::from_secs(10), partition.reset()).await.expect("it answers").expect_err("alone");
        let back = partition.set_position(Position::new(1));
        tokio::time::timeout(Duration::from_secs(10), back).await.expect("it answers").expect_err("alone");
    }
    let last = fill(&store, 2).await;
    for partition in &running {
        partition.wait_for(last, PATIENCE).await.expect("it goes on");
    }
    model.read(|seen| seen.check(STREAMS, 4));
    for partition in running {
        partition.stop().await.expect("it stops");
    }
}
