//! A read model with a row for each event, for the facts about consumers.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::future::{Future, pending};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use es_framework::{
    Backoff, Batch, BoxError, Cleared, Event, ExpectedVersion, ModelError, Policy, Position, Projected, Projection,
    ProjectionName, Projector, ReadModel, Recorded, Store, WriteEventsError,
};
use serde::{Deserialize, Serialize};

use crate::bank::AccountEvent;
use crate::fixture::Fixture;
use crate::support::{log, stream};

/// What an event wrote: its position, the account, the amount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// The position of the event.
    pub position: u64,
    /// The stream.
    pub account: String,
    /// The amount.
    pub cents: u64,
}

/// A read model of the engine under test that keeps rows, in the order in which they were written.
pub trait Ledger: Fixture {
    /// The model.
    type Model: ReadModel;

    /// Opens a fresh, empty model for a store that this fixture opened.
    fn model(&self, store: &Store) -> impl Future<Output = Self::Model> + Send;

    /// The same model as another process finds it after this one has died.
    fn after_death(&self, store: &Store, model: Self::Model) -> impl Future<Output = Self::Model> + Send {
        let _: &Store = store;
        async { model }
    }

    /// Makes it ready, for example by creating a table.
    ///
    /// # Errors
    ///
    /// The error of the model.
    fn prepare(tx: &mut <Self::Model as ReadModel>::Tx<'_>) -> Result<(), BoxError>;

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// The error of the model.
    fn write(tx: &mut <Self::Model as ReadModel>::Tx<'_>, row: Row) -> Result<(), BoxError>;

    /// Removes all rows, if the model cannot do that by itself.
    ///
    /// # Errors
    ///
    /// The error of the model.
    fn clear(tx: &mut <Self::Model as ReadModel>::Tx<'_>) -> Result<Cleared, BoxError>;

    /// The rows, in the order in which they were written.
    fn rows(&self, model: &Self::Model) -> impl Future<Output = Vec<Row>> + Send;
}

/// What goes wrong at one call of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails before anything was done.
    FailsBefore,
    /// It fails although it was done.
    FailsAfterwards,
    /// It never comes to it: its process dies.
    DiesBefore,
    /// It is done, and then its process dies.
    DiesAfterwards,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FailsBefore, Self::FailsAfterwards, Self::DiesBefore, Self::DiesAfterwards];
}

/// A model that goes wrong as planned.
#[derive(Debug, Clone)]
pub struct Faulty<M> {
    /// The model.
    pub inner: M,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    calls: AtomicU64,
    /// At which calls.
    faults: Mutex<Vec<(u64, Fault)>>,
    /// How often a fault has happened.
    hits: AtomicU64,
    died: tokio::sync::Notify,
}

impl<M: Sync> Faulty<M> {
    /// Nothing goes wrong.
    pub fn new(inner: M) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// These faults happen at these calls, counted from 0.
    #[must_use]
    pub fn with(self, faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        *self.plan.lock() = faults.into_iter().collect();
        self
    }

    /// The next calls fail, one after the other.
    pub fn fails(&self, times: u64) {
        let now = self.calls();
        *self.plan.lock() = (now..now + times).map(|call| (call, Fault::FailsBefore)).collect();
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.plan.calls.load(Ordering::SeqCst)
    }

    /// How many faults there were.
    pub fn hits(&self) -> u64 {
        self.plan.hits.load(Ordering::SeqCst)
    }

    /// Waits until a call has died.
    pub async fn died(&self) {
        self.plan.died.notified().await;
    }

    async fn call<T: Send>(&self, call: impl Future<Output = Result<T, ModelError>> + Send) -> Result<T, ModelError> {
        let number = self.plan.calls.fetch_add(1, Ordering::SeqCst);
        let fault = self.plan.lock().iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        if fault.is_some() {
            self.plan.hits.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Some(Fault::FailsBefore) => return Err(ModelError::failed("the connection was lost")),
            Some(Fault::DiesBefore) => {
                self.plan.died.notify_one();
                pending::<()>().await;
            }
            _ => {}
        }
        let done = call.await;
        match fault {
            Some(Fault::FailsAfterwards) => Err(ModelError::failed("the connection was lost, too late")),
            Some(Fault::DiesAfterwards) => {
                self.plan.died.notify_one();
                pending().await
            }
            _ => done,
        }
    }
}

impl Plan {
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Fault)>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: ReadModel> ReadModel for Faulty<M> {
    type Tx<'t> = M::Tx<'t>;

    async fn start(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.call(self.inner.start(name)).await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut M::Tx<'t>) -> Result<T, ModelError> + Send + 'static,
    {
        self.call(self.inner.transact(body)).await
    }

    async fn transact_batch(&self, batch: Batch<Self>) -> Result<(), ModelError> {
        self.call(self.inner.transact_batch(batch.over())).await
    }

    fn get(tx: &mut M::Tx<'_>, name: &ProjectionName, key: &str) -> Result<Option<Bytes>, ModelError> {
        M::get(tx, name, key)
    }

    fn put(tx: &mut M::Tx<'_>, name: &ProjectionName, key: &str, value: &[u8]) -> Result<(), ModelError> {
        M::put(tx, name, key, value)
    }

    fn delete(tx: &mut M::Tx<'_>, name: &ProjectionName, key: &str) -> Result<(), ModelError> {
        M::delete(tx, name, key)
    }

    fn list(tx: &mut M::Tx<'_>, name: &ProjectionName, prefix: &str) -> Result<Vec<(String, Bytes)>, ModelError> {
        M::list(tx, name, prefix)
    }

    fn clear(tx: &mut M::Tx<'_>) -> Result<Cleared, ModelError> {
        M::clear(tx)
    }

    async fn settle(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.call(self.inner.settle(name)).await
    }
}

/// A projector that adds a row for each deposit, and fails as it is told.
pub struct Entries<L> {
    told: Arc<Told>,
    of: PhantomData<fn() -> L>,
}

#[derive(Debug, Default)]
struct Told {
    /// How many times an amount is still refused, and whether by a panic.
    refuses: Mutex<BTreeMap<u64, (u64, bool)>>,
    /// How often each position was passed to it.
    attempts: Mutex<BTreeMap<u64, u64>>,
    /// How it deals with batches.
    batches: Mutex<Batches>,
    /// The positions of each batch that it has applied as such.
    batched: Mutex<Vec<Vec<u64>>>,
}

/// How a projector deals with a batch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Batches {
    /// Not at all: events are passed to it one by one.
    #[default]
    Never,
    /// One event after the other: it fails at the one that is refused.
    InOrder,
    /// It writes everything, and notices at the end that an event is refused.
    AtTheEnd,
    /// It writes everything, and fails whatever the events are.
    Fails,
    /// It writes everything, and panics whatever the events are.
    Panics,
}

impl Told {
    /// Fails if this amount is refused.
    fn judge(&self, cents: u64) -> Result<(), BoxError> {
        let panics = {
            let mut refuses = self.refuses.lock().unwrap_or_else(PoisonError::into_inner);
            match refuses.get_mut(&cents) {
                Some((times, panics)) if *times > 0 => {
                    *times -= u64::from(*times != ALWAYS);
                    Some(*panics)
                }
                _ => None,
            }
        };
        match panics {
            None => Ok(()),
            Some(false) => Err(format!("{cents} cents are refused").into()),
            Some(true) => panic!("{cents} cents break it"),
        }
    }
}

/// Refuses every time.
pub const ALWAYS: u64 = u64::MAX;

impl<L> Entries<L> {
    /// Refuses nothing.
    pub fn new() -> Self {
        Self { told: Arc::default(), of: PhantomData }
    }

    /// Refuses this amount so many times from now on.
    pub fn refuse(&self, cents: u64, times: u64) {
        self.told.refuses.lock().unwrap_or_else(PoisonError::into_inner).insert(cents, (times, false));
    }

    /// Panics at this amount so many times from now on.
    pub fn panic_at(&self, cents: u64, times: u64) {
        self.told.refuses.lock().unwrap_or_else(PoisonError::into_inner).insert(cents, (times, true));
    }

    /// Deals with batches like this from now on.
    pub fn batches(&self, batches: Batches) {
        *self.told.batches.lock().unwrap_or_else(PoisonError::into_inner) = batches;
    }

    /// The positions of each batch that it has applied as such, whether it was committed or not.
    pub fn batched(&self) -> Vec<Vec<u64>> {
        self.told.batched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the event at this position was passed to it.
    pub fn attempts(&self, position: u64) -> u64 {
        let attempts = self.told.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(&position).copied().unwrap_or_default()
    }
}

impl<L> Default for Entries<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> Clone for Entries<L> {
    fn clone(&self) -> Self {
        Self { told: Arc::clone(&self.told), of: PhantomData }
    }
}

impl<L> Debug for Entries<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("told", &self.told).finish_non_exhaustive()
    }
}

impl<L: Ledger> Projector for Entries<L> {
    type Event = AccountEvent;
    type Model = Faulty<L::Model>;
    type Error = BoxError;
    const NAME: &'static str = "entries";

    fn prepare(&self, tx: &mut <L::Model as ReadModel>::Tx<'_>) -> Result<(), BoxError> {
        L::prepare(tx)
    }

    fn project(
        &self,
        event: &Recorded<AccountEvent>,
        tx: &mut <L::Model as ReadModel>::Tx<'_>,
    ) -> Result<(), BoxError> {
        let AccountEvent::Deposited { cents } = *event.event() else { return Ok(()) };
        let (position, account) = (event.position().get(), event.stream().to_string());
        *self.told.attempts.lock().unwrap_or_else(PoisonError::into_inner).entry(position).or_default() += 1;
        // It writes first, so that a refusal has something to take back.
        L::write(tx, Row { position, account, cents })?;
        self.told.judge(cents)
    }

    fn project_batch(
        &self,
        events: &[&Recorded<AccountEvent>],
        tx: &mut <L::Model as ReadModel>::Tx<'_>,
    ) -> Result<Projected, BoxError> {
        let batches = *self.told.batches.lock().unwrap_or_else(PoisonError::into_inner);
        match batches {
            Batches::Never => return Ok(Projected::Nothing),
            Batches::InOrder => {
                for event in events {
                    self.project(event, tx)?;
                }
            }
            Batches::AtTheEnd | Batches::Fails | Batches::Panics => {
                let mut all = Vec::new();
                for event in events {
                    let AccountEvent::Deposited { cents } = *event.event() else { continue };
                    L::write(tx, Row { position: event.position().get(), account: event.stream().to_string(), cents })?;
                    all.push(cents);
                }
                match batches {
                    Batches::Fails => return Err("no batch is to its liking".into()),
                    Batches::Panics => panic!("every batch breaks it"),
                    _ => all.into_iter().try_for_each(|cents| self.told.judge(cents))?,
                }
            }
        }
        let positions = events.iter().map(|event| event.position().get()).collect();
        self.told.batched.lock().unwrap_or_else(PoisonError::into_inner).push(positions);
        Ok(Projected::All)
    }

    fn clear(&self, tx: &mut <L::Model as ReadModel>::Tx<'_>) -> Result<Cleared, BoxError> {
        L::clear(tx)
    }
}

/// A policy with short pauses.
pub fn quick(mut policy: Policy) -> Policy {
    let pause = Duration::from_millis(2);
    policy.user_code = Backoff::new(policy.user_code.attempts.get().min(3), pause, pause);
    policy.panic = policy.user_code;
    policy.outage = Backoff::new(1, pause, pause);
    policy.seed = Some(7);
    policy
}

/// The projection with short pauses.
pub fn entries<L: Ledger>(
    store: &Store,
    entries: &Entries<L>,
    model: &Faulty<L::Model>,
    policy: Policy,
) -> Projection<Entries<L>> {
    Projection::new(store, entries.clone(), model.clone()).policy(quick(policy))
}

/// Deposits amounts to an account, each as an event of its own, and returns the last position.
pub async fn deposit(store: &Store, account: &str, cents: impl IntoIterator<Item = u64>) -> Position {
    let events = cents.into_iter().map(|cents| AccountEvent::Deposited { cents }.encode());
    let events: Result<Vec<_>, _> = events.collect();
    let events = events.map_err(WriteEventsError::from).expect("they encode");
    stream(store, account).write(events, ExpectedVersion::Any).await.expect("it writes").position
}

/// What the log says the rows are.
pub async fn folded(store: &Store) -> Vec<Row> {
    let mut rows = Vec::new();
    for event in log(store).await {
        let (position, account) = (event.position.get(), event.stream.to_string());
        if let Ok(AccountEvent::Deposited { cents }) = AccountEvent::decode(&event) {
            rows.push(Row { position, account, cents });
        }
    }
    rows
}
