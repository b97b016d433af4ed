//! The read models of the memory engine, with a row for each event.

use es_conformance::ledger::{Ledger, Row};
use es_conformance::{Fixture, Setup, Shared};
use es_framework::{BoxError, Cleared, MemoryStore, StateModel, StateTx, Store};

use crate::processes::{Processes, Tells};

/// A state in memory, over a memory store.
pub(crate) struct StateInMemory;

impl Fixture for StateInMemory {
    async fn open_with(&self, setup: Setup) -> Store {
        MemoryStore::with(setup.limits, setup.clock).into()
    }
}

/// A state in memory, over a store that several handles share.
pub(crate) struct StateOfProcesses(Processes);

impl StateOfProcesses {
    pub(crate) fn new() -> Self {
        Self(Processes::that_tell(Tells::Head))
    }
}

impl Fixture for StateOfProcesses {
    async fn open_with(&self, setup: Setup) -> Store {
        self.0.open_with(setup).await
    }
}

impl Shared for StateOfProcesses {
    async fn second(&self, store: &Store) -> Store {
        self.0.second(store).await
    }
}

macro_rules! states {
    ($($fixture:ty)*) => {
        $(impl Ledger for $fixture {
            type Model = StateModel<Vec<Row>>;

            async fn model(&self, store: &Store) -> Self::Model {
                StateModel::new(store)
            }

            async fn after_death(&self, store: &Store, model: Self::Model) -> Self::Model {
                drop(model);
                StateModel::new(store)
            }

            fn prepare(_: &mut StateTx<'_, Vec<Row>>) -> Result<(), BoxError> {
                Ok(())
            }

            fn write(rows: &mut StateTx<'_, Vec<Row>>, row: Row) -> Result<(), BoxError> {
                rows.push(row);
                Ok(())
            }

            fn clear(_: &mut StateTx<'_, Vec<Row>>) -> Result<Cleared, BoxError> {
                Ok(Cleared::Nothing)
            }

            async fn rows(&self, model: &Self::Model) -> Vec<Row> {
                model.read(Clone::clone)
            }
        })*
    };
}

states!(StateInMemory StateOfProcesses);
