//! A read model whose calls go wrong as planned.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::faults::{Call, Fault, FaultPlan, Faults, InjectedFault, Next, turns};
use crate::consumer::ModelError;
use crate::domain::Recorded;
use crate::log::{Fingerprint, Position, ProjectionName, StoreError};
use crate::projection::{Batch, Cleared, Projected, Projector, ReadModel};

/// A read model that passes every call on to another one, except for those that go wrong.
///
/// A transaction that goes wrong with [`Fault::Io`] or [`Fault::Crash`] has run and is rolled back, as if its commit had
/// failed: so it also finds out whether a projector keeps something outside of its model. With [`Fault::Busy`], it does
/// not run at all. There are no conflicts in a read model.
///
/// After a crash every call fails. What the process leaves behind is what the other model holds: wrap that one again.
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: u64 }
/// # #[derive(Debug, Default, Serialize, Deserialize)] struct Total { cents: u64 }
/// # struct Totals;
/// # impl Projector for Totals {
/// #     type Event = Deposited; type Model = StateModel<Total>; type Error = std::convert::Infallible;
/// #     const NAME: &'static str = "totals";
/// #     fn project(&self, event: &Recorded<Deposited>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
/// #         total.cents += event.cents; Ok(()) } }
/// use es_framework::testing::{Call, Fault, FaultPlan, FaultyModel, OnFaulty};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::from(MemoryStore::new());
/// store.open_stream("account-a")?.write(Deposited { cents: 5 }.encode()?, ExpectedVersion::Any).await?;
/// let model = StateModel::new(&store);
///
/// // The first transaction prepares the model. The second is committed, but its answer is lost.
/// let plan = FaultPlan::none().at(Call::Transact, 2, Fault::LostAnswer);
/// let faulty = FaultyModel::over(model.clone(), plan);
/// Projection::new(&store, OnFaulty::new(Totals), faulty).catch_up().await.unwrap_err();
///
/// Projection::new(&store, Totals, model.clone()).catch_up().await?;
/// assert_eq!(model.read(|total| total.cents), 5);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyModel<M> {
    inner: M,
    faults: Faults,
}

impl<M: ReadModel> FaultyModel<M> {
    /// Wraps a model.
    pub fn over(model: M, plan: FaultPlan) -> Self {
        Self::sharing(model, Faults::new(plan))
    }

    /// Wraps a model that dies together with whatever else follows these faults.
    pub fn sharing(model: M, faults: Faults) -> Self {
        Self { inner: model, faults }
    }

    /// The faults it follows: how many calls there were, and what went wrong.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn next(&self, call: Call) -> Next {
        self.faults.next(call, |fault| fault != Fault::Conflict)
    }

    /// Runs a call without a body to be rolled back.
    async fn run<T: Send>(
        &self,
        call: Call,
        inner: impl Future<Output = Result<T, ModelError>> + Send,
    ) -> Result<T, ModelError> {
        match self.next(call) {
            Next::Fine => inner.await,
            Next::Dead => Err(dead()),
            Next::Wrong(injected) => match injected.fault {
                Fault::Busy | Fault::Io | Fault::Conflict | Fault::Crash => Err(self.error(injected)),
                Fault::Delay(_) | Fault::LostAnswer | Fault::CrashAfter => self.after(injected, inner).await,
            },
        }
    }

    async fn after<T: Send>(
        &self,
        injected: InjectedFault,
        inner: impl Future<Output = Result<T, ModelError>> + Send,
    ) -> Result<T, ModelError> {
        if let Fault::Delay(others) = injected.fault {
            turns(others).await;
            return inner.await;
        }
        inner.await?;
        Err(self.error(injected))
    }

    fn error(&self, injected: InjectedFault) -> ModelError {
        match injected.fault {
            Fault::Busy => ModelError::failed(StoreError::Busy { waited: std::time::Duration::ZERO }),
            Fault::Crash | Fault::CrashAfter => {
                self.faults.crash();
                dead()
            }
            _ => ModelError::failed(injected),
        }
    }
}

fn dead() -> ModelError {
    ModelError::failed(StoreError::Closed)
}

impl<M: ReadModel> ReadModel for FaultyModel<M> {
    type Tx<'t> = M::Tx<'t>;

    async fn start(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.run(Call::Start, self.inner.start(name)).await
    }

    async fn transact<T, F>(&self, body: F) -> Result<T, ModelError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<T, ModelError> + Send + 'static,
    {
        match self.next(Call::Transact) {
            Next::Fine => self.inner.transact(body).await,
            Next::Dead => Err(dead()),
            Next::Wrong(injected) => match injected.fault {
                Fault::Busy => Err(self.error(injected)),
                Fault::Io | Fault::Conflict | Fault::Crash => {
                    let cause = injected.clone();
                    let rolled_back = self.inner.transact(move |tx: &mut M::Tx<'_>| {
                        body(tx)?;
                        Err::<T, _>(ModelError::failed(cause))
                    });
                    rolled_back
                        .await
                        .and(Err(self.error(injected.clone())))
                        .map_err(|error| self.unless_its_own(error, injected))
                }
                Fault::Delay(_) | Fault::LostAnswer | Fault::CrashAfter => {
                    self.after(injected, self.inner.transact(body)).await
                }
            },
        }
    }

    async fn transact_batch(&self, batch: Batch<Self>) -> Result<(), ModelError> {
        let through = |rolled_back: Option<InjectedFault>| {
            let (fold, run) = (batch.clone(), batch.clone());
            Batch::<M>::new(
                batch.events(),
                batch.bytes(),
                move |tx: &mut M::Tx<'_>| fold.fold(tx),
                |_| {
                    move |tx: &mut M::Tx<'_>| {
                        run.run(tx)?;
                        rolled_back.clone().map_or(Ok(()), |injected| Err(ModelError::failed(injected)))
                    }
                },
            )
        };
        match self.next(Call::Transact) {
            Next::Fine => self.inner.transact_batch(through(None)).await,
            Next::Dead => Err(dead()),
            Next::Wrong(injected) => match injected.fault {
                Fault::Busy => Err(self.error(injected)),
                Fault::Io | Fault::Conflict | Fault::Crash => {
                    let rolled_back = self.inner.transact_batch(through(Some(injected.clone()))).await;
                    rolled_back.map_err(|error| self.unless_its_own(error, injected))
                }
                Fault::Delay(_) | Fault::LostAnswer | Fault::CrashAfter => {
                    self.after(injected, self.inner.transact_batch(through(None))).await
                }
            },
        }
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

    fn at(tx: &mut M::Tx<'_>, position: Position) {
        M::at(tx, position);
    }

    async fn settle(&self, name: &ProjectionName) -> Result<(), ModelError> {
        self.run(Call::Settle, self.inner.settle(name)).await
    }

    async fn shape<F>(&self, prepare: F) -> Result<Fingerprint, ModelError>
    where
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        self.run(Call::Shape, self.inner.shape(prepare)).await
    }

    async fn beside(&self, name: &ProjectionName, generation: u64) -> Result<Self, ModelError> {
        let inner = self.run(Call::Beside, self.inner.beside(name, generation)).await?;
        Ok(Self { inner, faults: self.faults.clone() })
    }

    async fn replace_by<F>(&self, name: &ProjectionName, built: &Self, agree: F) -> Result<(), ModelError>
    where
        F: for<'t> FnOnce(&mut Self::Tx<'t>) -> Result<(), ModelError> + Send + 'static,
    {
        self.run(Call::Replace, self.inner.replace_by(name, &built.inner, agree)).await
    }

    async fn discard(self) -> Result<(), ModelError> {
        let Self { inner, faults } = self;
        Self { inner: inner.clone(), faults }.run(Call::Discard, inner.discard()).await
    }
}

impl<M: ReadModel> FaultyModel<M> {
    /// The error of a transaction that was rolled back on purpose, unless its body had an error of its own.
    fn unless_its_own(&self, error: ModelError, injected: InjectedFault) -> ModelError {
        let is_injected = matches!(&error, ModelError::Failed { source } if source.is::<InjectedFault>());
        if is_injected || injected.fault == Fault::Crash { self.error(injected) } else { error }
    }
}

/// A projector that writes to a [`FaultyModel`] what it would write to its own model.
pub struct OnFaulty<P> {
    projector: Arc<P>,
}

impl<P: Projector> OnFaulty<P> {
    /// Wraps a projector.
    pub fn new(projector: P) -> Self {
        Self { projector: Arc::new(projector) }
    }
}

impl<P> Clone for OnFaulty<P> {
    fn clone(&self) -> Self {
        Self { projector: Arc::clone(&self.projector) }
    }
}

impl<P> fmt::Debug for OnFaulty<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnFaulty").finish_non_exhaustive()
    }
}

impl<P: Projector> Projector for OnFaulty<P> {
    type Event = P::Event;
    type Model = FaultyModel<P::Model>;
    type Error = P::Error;
    const NAME: &'static str = P::NAME;
    const VERSION: u32 = P::VERSION;

    fn prepare(&self, tx: &mut <P::Model as ReadModel>::Tx<'_>) -> Result<(), P::Error> {
        self.projector.prepare(tx)
    }

    fn clear(&self, tx: &mut <P::Model as ReadModel>::Tx<'_>) -> Result<Cleared, P::Error> {
        self.projector.clear(tx)
    }

    fn project(&self, event: &Recorded<P::Event>, tx: &mut <P::Model as ReadModel>::Tx<'_>) -> Result<(), P::Error> {
        self.projector.project(event, tx)
    }

    fn project_batch(
        &self,
        events: &[&Recorded<P::Event>],
        tx: &mut <P::Model as ReadModel>::Tx<'_>,
    ) -> Result<Projected, P::Error> {
        self.projector.project_batch(events, tx)
    }
}
