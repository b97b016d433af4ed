//! Configuring a projection: a projector, the log it reads and the model it writes.

use std::future::Future;
use std::pin::Pin;

use super::projector::Projector;
use super::work::Projecting;
use crate::consumer::{self, Consumer, Lease, Policy, RunError, Running, StartFrom, Startable};
use crate::domain::Event as _;
use crate::log::{Filter, Position, ProjectionName, Store};

/// A projector, the log it reads and the model it writes, ready to run.
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Total {
///     cents: u64,
/// }
///
/// struct Totals;
///
/// impl Projector for Totals {
///     type Event = AccountEvent;
///     type Model = StateModel<Total>;
///     type Error = std::convert::Infallible;
///     const NAME: &'static str = "totals";
///
///     fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
///         let AccountEvent::Deposited { cents } = event.event();
///         total.cents += cents;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::from(MemoryStore::new());
/// # let deposited = AccountEvent::Deposited { cents: 500 }.encode()?;
/// # let position = store.open_stream("account-alice")?.write(deposited, ExpectedVersion::Any).await?.position;
/// let model = StateModel::new(&store);
/// let totals = Projection::new(&store, Totals, model.clone()).start().await?;
/// totals.wait_for(position, std::time::Duration::from_secs(5)).await?;
/// assert_eq!(model.read(|total| total.cents), 500);
/// totals.stop().await?;
/// # Ok(()) }
/// ```
///
/// # Checkpoints
///
/// A batch of events and the checkpoint are committed together. Stretches of the log without events for the projector
/// only move the position that [`Running::status`] shows and that [`Running::wait_for`] waits for. They cost no
/// transaction: the checkpoint is written with the next batch, when the projection ends, or with the first such stretch
/// after it has been behind for five seconds. If the process is killed in between, it reads those five seconds of the
/// log again, and nothing takes effect twice.
#[derive(Debug)]
#[must_use = "a projection does nothing until it is started"]
pub struct Projection<P: Projector> {
    store: Store,
    projector: P,
    model: P::Model,
    name: String,
    filter: Filter,
    policy: Policy,
    start_from: StartFrom,
    lease: Option<Lease>,
}

impl<P: Projector> Projection<P> {
    /// Creates a projection.
    pub fn new(store: impl Into<Store>, projector: P, model: P::Model) -> Self {
        Self {
            store: store.into(),
            projector,
            model,
            name: P::NAME.to_owned(),
            filter: Filter::new(),
            policy: Policy::default(),
            start_from: StartFrom::Beginning,
            lease: None,
        }
    }

    /// Keeps the checkpoint under a name other than [`Projector::NAME`], for example to build a new version of the read
    /// model alongside the old one.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Passes only events that match the filter to the projector, for example those of one category. Others still move
    /// the checkpoint.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter.and_all(filter);
        self
    }

    /// Sets what it does about failures.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets where it starts if it has no checkpoint yet: at the beginning by default.
    pub fn start_from(mut self, start_from: StartFrom) -> Self {
        self.start_from = start_from;
        self
    }

    /// Lets only one runner of this name run at a time, over all processes on the store; see [`Lease`] for when that is
    /// needed.
    pub fn lease(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Prepares the model, finds the checkpoint and runs in a task of its own: first through the existing log, then
    /// through new events as they are written, until it is stopped or fails.
    ///
    /// The task runs on the current tokio runtime. The runtime's timer is not used.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot start: [`RunError::NoRuntime`] before anything is touched, otherwise the cause. The
    /// handle reports what happens later.
    ///
    /// # Cancel safety
    ///
    /// Nothing runs if the future is dropped. The writes of [`Projector::prepare`] are committed completely or not at
    /// all.
    pub async fn start(self) -> Result<Running, RunError> {
        consumer::start(self.into_consumer()?).await
    }

    /// Processes everything that is in the log now, and returns the position reached. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot continue.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves the checkpoint at the end of a whole batch.
    pub async fn catch_up(self) -> Result<Position, RunError> {
        consumer::catch_up(self.into_consumer()?).await
    }

    fn into_consumer(self) -> Result<Consumer<Projecting<P>>, RunError> {
        let Self { store, projector, model, name, filter, policy, start_from, lease } = self;
        let name = ProjectionName::new(name)?;
        let wanted = filter.types(P::Event::names());
        let work = Projecting::new(store.id(), name.clone(), projector, model);
        Ok(Consumer { store, name, work, wanted, policy, start_from, lease })
    }
}

impl<P: Projector> Startable for Projection<P> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn start(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>> {
        Box::pin((*self).start())
    }
}
