//! H1, H3, H7: the runner over third-party read models, which commit late, forget, or report a failure although they
//! succeeded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use es_framework::{
    Category, CheckpointRecord, Event, ExpectedVersion, ModelError, Position, Projection, ProjectionName, Projector,
    ReadModel, Recorded, RunError, Store,
};

use crate::bank::AccountEvent;
use crate::fixture::Fixture;
use crate::support::{PATIENCE, p, stream, typed, within};

/// What is strange about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strange {
    /// Nothing.
    Not,
    /// It fails to commit rows that contain this amount.
    RefusesToCommit(u64),
    /// It loses everything when a transaction fails, except what was saved, which is nothing.
    Forgets,
    /// It reports a failure, but has committed this amount.
    FailsAfterwards(u64),
}

/// A list of amounts that is replaced as a whole, and counts its transactions.
#[derive(Debug, Clone)]
struct Rows {
    strange: Strange,
    kept: Arc<Mutex<Kept>>,
    transactions: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    rows: Vec<u64>,
    records: BTreeMap<String, Bytes>,
}

impl Rows {
    fn new(strange: Strange) -> Self {
        Self { strange, kept: Arc::default(), transactions: Arc::default() }
    }

    fn rows(&self) -> Vec<u64> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).rows.clone()
    }

    fn checkpoint(&self) -> Position {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let record = kept.records.get(CheckpointRecord::KEY);
        record.map_or(Position::ZERO, |record| CheckpointRecord::decode(record).expect("it is whole").mark.position)
    }

    fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::SeqCst)
    }
}

impl ReadModel for Rows {
    type Tx<'t> = Kept;

    async fn start(&self, _: &ProjectionName) -> Result<(), ModelError> {
        Ok(())
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut Kept) -> Result<T, ModelError> + Send + 'static,
    {
        self.transactions.fetch_add(1, Ordering::SeqCst);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, mut tx) = (kept.rows.len(), kept.clone());
        let done = body(&mut tx);
        let added = |amount: u64| tx.rows.iter().skip(before).any(|row| *row == amount);
        match (self.strange, &done) {
            (Strange::RefusesToCommit(bad), Ok(_)) if added(bad) => {
                return Err(ModelError::commit_refused("a constraint"));
            }
            (Strange::FailsAfterwards(bad), Ok(_)) if added(bad) => {
                *kept = tx;
                return Err(ModelError::failed("the connection was lost"));
            }
            (Strange::Forgets, Err(_)) => *kept = Kept::default(),
            (_, Err(_)) => {}
            (_, Ok(_)) => *kept = tx,
        }
        done
    }

    fn get(tx: &mut Kept, _: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError> {
        Ok(tx.records.get(key).cloned())
    }

    fn put(tx: &mut Kept, _: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError> {
        tx.records.insert(key.to_owned(), Bytes::copy_from_slice(value));
        Ok(())
    }

    fn delete(tx: &mut Kept, _: &ProjectionName, key: &str) -> Result<(), ModelError> {
        tx.records.remove(key);
        Ok(())
    }

    fn list(tx: &mut Kept, _: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError> {
        let found = tx.records.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn settle(&self, _: &ProjectionName) -> Result<(), ModelError> {
        Ok(())
    }
}

/// Records every amount; rejects 99.
struct Amounts;

impl Projector for Amounts {
    type Event = AccountEvent;
    type Model = Rows;
    type Error = &'static str;
    const NAME: &'static str = "amounts";

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut Kept) -> Result<(), &'static str> {
        let AccountEvent::Deposited { cents } = event.event() else { return Ok(()) };
        tx.rows.push(*cents);
        if *cents == 99 { Err("ninety-nine") } else { Ok(()) }
    }
}

async fn deposit(store: &Store, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let events = events.collect::<Vec<_>>();
    stream(store, "account-a").write(events, ExpectedVersion::Any).await.expect("it writes").position
}

/// A constraint that is checked at the commit rejects a batch of a thousand because of one event: the error names that
/// event, and those before it are applied.
pub async fn h3_the_event_that_keeps_a_batch_from_being_committed_is_found(fixture: &impl Fixture) {
    for before in [0, 1, 2, 7, 500, 998, 999] {
        let store = fixture.open().await;
        let cents = (1_000..).take(1_000).enumerate().map(|(n, cents)| if n == before { 13 } else { cents });
        deposit(&store, cents).await;
        let model = Rows::new(Strange::RefusesToCommit(13));
        let error = Projection::new(&store, Amounts, model.clone()).catch_up().await.expect_err("it is refused");
        let at = p(before as u64 + 1);
        assert!(matches!(error, RunError::Model(ModelError::Refused { position, .. }) if position == at), "{error:?}");
        assert_eq!((model.rows().len(), model.checkpoint()), (before, p(before as u64)));
        // Bisection first, and then every range that starts with the event: later events could have made it valid.
        let rows = 1_000 - before as u64;
        assert!(model.transactions() <= 2 + 2 + 2 * (10 + 1 + rows), "{} to find it", model.transactions());
    }
}

/// A model that forgets everything when a transaction fails is given all events again, before those that precede the
/// failed one.
pub async fn h3_a_model_that_forgets_is_brought_back(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = Rows::new(Strange::Forgets);
    let running = Projection::new(&store, Amounts, model.clone()).start().await.expect("it starts");
    let last = deposit(&store, 0..50).await;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    let bad = deposit(&store, [50, 51, 99, 52]).await.get() - 1;
    let error = within("it fails", running.finished()).await.expect_err("it refuses");
    assert!(
        matches!(&*error, RunError::Model(ModelError::Refused { position, .. }) if *position == p(bad)),
        "{error:?}"
    );
    assert_eq!((model.rows(), model.checkpoint()), ((0..52).collect(), p(bad - 1)));
    assert_eq!(running.position(), p(bad - 1));
}

/// A transaction that was committed but whose result was lost takes effect once, and the projection goes on by itself:
/// the model was out of order, and is back.
pub async fn h1_what_was_committed_although_it_failed_takes_effect_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = Rows::new(Strange::FailsAfterwards(13));
    let running = Projection::new(&store, Amounts, model.clone()).start().await.expect("it starts");
    let last = deposit(&store, [1, 2, 13, 3]).await;
    running.wait_for(last, PATIENCE).await.expect("the model is believed");
    let failure = running.status().last_failure.expect("it is told");
    assert_eq!((failure.category, failure.attempts), (Category::ReadModel, 1));
    assert_eq!((model.rows(), model.checkpoint()), (vec![1, 2, 13, 3], last));
    let last = deposit(&store, [4]).await;
    running.wait_for(last, PATIENCE).await.expect("it goes on");
    assert_eq!(model.rows(), [1, 2, 13, 3, 4]);
    running.stop().await.expect("it stops");
}

/// Every commit of other writers cost every projection a transaction, although it wanted none of the events.
pub async fn h7_what_nobody_wants_costs_no_transaction(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = Rows::new(Strange::Not);
    let running = Projection::new(&store, Amounts, model.clone()).start().await.expect("it starts");
    let begun = model.transactions();
    let mut last = deposit(&store, [1]).await;
    for _ in 0..1_000 {
        let noise = typed("noise.made", "");
        last = stream(&store, "noise-1").write(noise, ExpectedVersion::Any).await.expect("it writes").position;
        running.wait_for(last, PATIENCE).await.expect("each can be waited for");
    }
    assert_eq!(running.position(), last);
    // One for the deposit, and one every five seconds.
    let cost = model.transactions() - begun;
    assert!(cost <= 10, "{cost} transactions");
    assert!(cost < 10 || model.checkpoint() > p(1), "if it took so long, the checkpoint was moved");

    // A batch advances the checkpoint past the skipped events, and a stop writes what is left.
    let wanted = deposit(&store, [2]).await;
    running.wait_for(wanted, PATIENCE).await.expect("it gets there");
    assert_eq!((model.rows(), model.checkpoint()), (vec![1, 2], wanted));
    let noise = typed("noise.made", "");
    last = stream(&store, "noise-1").write(noise, ExpectedVersion::Any).await.expect("it writes").position;
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    assert_eq!((running.stop().await.expect("it stops"), model.checkpoint()), (last, last));

    // The same when catching up: one transaction at the start, and one at the end.
    let noise = vec![typed("noise.made", ""); 30_000];
    last = stream(&store, "noise-1").write(noise, ExpectedVersion::Any).await.expect("it writes").position;
    let begun = model.transactions();
    assert_eq!(Projection::new(&store, Amounts, model.clone()).catch_up().await.expect("it catches up"), last);
    assert_eq!(model.checkpoint(), last);
    assert!(model.transactions() - begun <= 5, "{} transactions", model.transactions() - begun);
    let begun = model.transactions();
    assert_eq!(Projection::new(&store, Amounts, model.clone()).catch_up().await.expect("it catches up"), last);
    assert_eq!(model.transactions() - begun, 1, "to begin; there is nothing to write");
}

/// When a projection fails, the checkpoint includes the events it skipped before.
pub async fn h7_a_failure_writes_what_was_passed_over(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = Rows::new(Strange::Not);
    let running = Projection::new(&store, Amounts, model.clone()).start().await.expect("it starts");
    let noise = vec![typed("noise.made", ""); 10];
    let passed = stream(&store, "noise-1").write(noise, ExpectedVersion::Any).await.expect("it writes").position;
    running.wait_for(passed, PATIENCE).await.expect("it gets there");
    deposit(&store, [99]).await;
    within("it fails", running.finished()).await.expect_err("it refuses");
    assert_eq!((running.position(), model.checkpoint()), (passed, passed));
}
