//! Several read models that are built anew in one pass over the log.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::builder::Projection;
use super::projector::Projector;
use crate::consumer::{ConsumerSet, RunError, Running, Ticket, tickets};
use crate::log::Store;

type Starting = Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>>;

type Start = Box<dyn FnOnce(Ticket) -> Starting + Send>;

/// Projections whose read models are to be built anew together; see [`Store::rebuilds`].
#[must_use = "nothing is built until it is started"]
pub struct Rebuilds {
    store: Store,
    list: Vec<(String, Start)>,
}

impl Store {
    /// Builds several read models anew, as [`Projection::rebuild`] does for one, and reads the log only once for all of
    /// them.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # struct Totals;
    /// # impl Projector for Totals {
    /// #     type Event = AccountEvent;
    /// #     type Model = StateModel<u64>;
    /// #     type Error = std::convert::Infallible;
    /// #     const NAME: &'static str = "totals";
    /// #     fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, u64>) -> Result<(), Self::Error> {
    /// #         let AccountEvent::Deposited { cents } = event.event();
    /// #         **total += cents;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// # let deposited = AccountEvent::Deposited { cents: 500 }.encode()?;
    /// # store.open_stream("account-alice")?.write(deposited, ExpectedVersion::Any).await?;
    /// let (totals, again) = (StateModel::new(&store), StateModel::new(&store));
    /// let rebuilds = store
    ///     .rebuilds()
    ///     .add(Projection::new(&store, Totals, totals.clone()))
    ///     .add(Projection::new(&store, Totals, again).named("totals-again"))
    ///     .start()
    ///     .await;
    /// if let Some(progress) = rebuilds.get("totals~rebuild").and_then(|running| running.status().rebuild) {
    ///     println!("{} of {} events, {:?} left", progress.done, progress.total, progress.left);
    /// }
    /// rebuilds.finished().await?;
    /// assert_eq!(totals.read(|total| *total), 500);
    /// # Ok(()) }
    /// ```
    pub fn rebuilds(&self) -> Rebuilds {
        Rebuilds { store: self.clone(), list: Vec::new() }
    }
}

impl Rebuilds {
    /// Adds a projection. Only those that read this store share the reading.
    #[expect(clippy::should_implement_trait, reason = "nobody adds projections with `+`")]
    pub fn add<P: Projector>(mut self, projection: Projection<P>) -> Self {
        let name = projection.rebuild_name();
        self.list.push((name, Box::new(move |ticket| Box::pin(projection.rebuild_with(ticket)))));
        self
    }

    /// Starts all of them. Each is a consumer of its own, named `name~rebuild`, and fails alone: one that cannot start
    /// has failed, and the others are built all the same.
    ///
    /// The log is read from the least of their checkpoints, in the order of positions, and each is handed what is behind
    /// its own. The reading goes at the pace of the slowest, which may be four pages behind. One that takes nothing for
    /// three seconds, or has to begin again after an outage or a pause, reads the log for itself from then on.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, those that were started stop. They go on where they were when they are started again.
    pub async fn start(self) -> ConsumerSet {
        let tickets = tickets(&self.store, self.list.len());
        let mut started = Vec::with_capacity(self.list.len());
        for ((name, start), ticket) in self.list.into_iter().zip(tickets) {
            started.push((name, start(ticket).await));
        }
        ConsumerSet::of(started)
    }
}

impl fmt::Debug for Rebuilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(name, _)| name)).finish()
    }
}
