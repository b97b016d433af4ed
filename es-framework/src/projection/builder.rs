//! Configuring a projection: a projector, the log it reads and the model it writes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::buckets::{BUCKETS, Part};
use super::generation::OnChange;
use super::projector::Projector;
use super::work::{Projecting, Purpose};
use crate::consumer::{self, Consumer, Lease, Policy, RunError, Running, StartFrom, Startable, Ticket};
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
/// totals.reached(position, std::time::Duration::from_secs(5)).await?;
/// assert_eq!(model.read(|total| total.cents), 500);
/// totals.stop().await?;
/// # Ok(()) }
/// ```
///
/// # Checkpoints
///
/// A batch of events and the checkpoint are committed together. Stretches of the log without events for the projector
/// only move the position that [`Running::status`] shows and that [`Running::reached`] waits for. They cost no
/// transaction: the checkpoint is written with the next batch, when the projection ends, or with the first such stretch
/// after it has been behind for five seconds. If the process is killed in between, it reads those five seconds of the
/// log again, and nothing takes effect twice.
#[derive(Debug)]
#[must_use = "a projection does nothing until it is started"]
pub struct Projection<P: Projector> {
    store: Store,
    projector: Arc<P>,
    model: P::Model,
    name: String,
    part: Part,
    filter: Filter,
    policy: Policy,
    start_from: StartFrom,
    on_change: OnChange,
    lease: Option<Lease>,
}

impl<P: Projector> Projection<P> {
    /// Creates a projection.
    pub fn new(store: impl Into<Store>, projector: P, model: P::Model) -> Self {
        Self {
            store: store.into(),
            projector: Arc::new(projector),
            part: Part::WHOLE,
            model,
            name: P::NAME.to_owned(),
            filter: Filter::new(),
            policy: Policy::default(),
            start_from: StartFrom::Beginning,
            on_change: OnChange::default(),
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

    /// Sets what it does if the read model was built by another version of the projector, or with other tables: it does
    /// not start by default.
    pub fn on_change(mut self, on_change: OnChange) -> Self {
        self.on_change = on_change;
        self
    }

    /// Lets only one runner of this name run at a time, over all processes on the store; see [`Lease`] for when that is
    /// needed.
    pub fn lease(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Divides the projection into `count` partitions, at most 32: each has a part of the keys, the order of which is kept,
    /// and runs for itself, in this process or in others. The key of an event is its stream, or what
    /// [`Policy::park_by`] says.
    ///
    /// Each partition is a consumer of its own, named `name#0`, `name#1` and so on, with the records of all of them in the
    /// same read model. Start all of them, in one process or spread over several; with a [lease](Self::lease) each runs in
    /// one of them, and others stand by. The number may be another at the next start, and 1 again: what is kept is how far
    /// each part of the keys has got, so that no event is lost or applied twice.
    ///
    /// That holds while processes with different numbers run at the same time, too, as during an upgrade. With a lease they
    /// share the keys that several of them have, which is slow, and a partition stands by as long as its namesake runs;
    /// keys of which no running partition has its lease wait until all numbers agree. Without a lease, those that lose a
    /// part of their keys end with [`ModelError::TakenOver`](crate::ModelError::TakenOver).
    ///
    /// It pays off where a read model can be written by several at once, or where the projector itself takes long. An
    /// SQLite file has one writer.
    ///
    /// A partition cannot be reset, moved back or built anew alone: do that with the projection as a whole.
    ///
    /// # Errors
    ///
    /// [`RunError::Partitions`] if `count` is 0 or over 32, or the projection [starts](Self::start_from) at the present,
    /// which would be another one for each of them.
    pub fn partitions(self, count: u32) -> Result<Vec<Self>, RunError> {
        let refused = |reason: &str| RunError::Partitions { name: self.name.clone(), reason: reason.to_owned() };
        if !(1..=BUCKETS).contains(&count) {
            return Err(refused("their number must be between 1 and 32"));
        }
        if self.start_from == StartFrom::Present {
            return Err(refused("each would start at another present; start after a position"));
        }
        let Self { store, projector, model, name, part: _, filter, policy, start_from, on_change, lease } = self;
        let parts = (0..count).map(|index| Self {
            store: store.clone(),
            projector: Arc::clone(&projector),
            model: model.clone(),
            name: name.clone(),
            part: Part { index, of: count },
            filter: filter.clone(),
            policy: policy.clone(),
            start_from,
            on_change,
            lease: lease.clone(),
        });
        Ok(parts.collect())
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
        consumer::start(self.into_consumer(Purpose::Run)?).await
    }

    /// Builds the read model anew from the beginning, beside the one that answers meanwhile, and replaces it in one
    /// transaction when it has reached the end of the log. Then it ends: [`Running::finished`] returns the position.
    ///
    /// A projection of the same name may run at the same time, here or in another process: it goes on with the old read
    /// model, and after the replacement with the new one. If it is of another version, it then ends with
    /// [`RunError::ProjectorChanged`].
    ///
    /// Killed or stopped, it goes on where it was when it is started again, and the old read model stays. Where the new one
    /// is built meanwhile, and what the replacement costs, is up to the read model. Parked events are those of the new
    /// one afterwards.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`]; [`ModelError::NotAllowed`](crate::ModelError::NotAllowed) if the read model cannot be built
    /// beside itself.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::start`].
    pub async fn rebuild(self) -> Result<Running, RunError> {
        consumer::start(self.into_consumer(Purpose::Rebuild)?).await
    }

    /// Builds the read model anew, reading the log together with others.
    pub(super) async fn rebuild_with(self, ticket: Ticket) -> Result<Running, RunError> {
        let consumer = self.into_consumer(Purpose::Rebuild)?;
        consumer::start(Consumer { ticket: Some(ticket), ..consumer }).await
    }

    /// The name under which it is built anew.
    pub(super) fn rebuild_name(&self) -> String {
        format!("{}~rebuild", self.name)
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
        consumer::catch_up(self.into_consumer(Purpose::Run)?).await
    }

    pub(super) fn into_consumer(self, purpose: Purpose) -> Result<Consumer<Projecting<P>>, RunError> {
        let rebuild = self.rebuild_name();
        let Self { store, projector, model, name, part, filter, policy, start_from, on_change, lease } = self;
        let name = ProjectionName::new(name)?;
        let wanted = filter.types(P::Event::names());
        let mut work = Projecting::new(store.id(), name.clone(), projector, model);
        // Each has a status of its own.
        let name = match purpose {
            Purpose::Rebuild => ProjectionName::new(rebuild)?,
            Purpose::Run if part != Part::WHOLE => ProjectionName::new(format!("{name}#{}", part.index))?,
            Purpose::Run => name,
        };
        (work.purpose, work.on_change, work.policy, work.consumer) = (purpose, on_change, policy.clone(), name.clone());
        work.part = if purpose == Purpose::Rebuild { Part::WHOLE } else { part };
        let start_from = if purpose == Purpose::Rebuild { StartFrom::Beginning } else { start_from };
        Ok(Consumer { store, name, work, wanted, policy, start_from, lease, ticket: None })
    }
}

impl<P: Projector> Startable for Projection<P> {
    fn name(&self) -> String {
        if self.part == Part::WHOLE { self.name.clone() } else { format!("{}#{}", self.name, self.part.index) }
    }

    fn start(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>> {
        Box::pin((*self).start())
    }
}
