//! The fixtures.

use std::sync::Arc;

use es_conformance::{Fixture, Setup};
use es_framework::testing::{FaultPlan, FaultyEngine};
use es_framework::{Engine, MemoryStore, Store};

/// Opens memory stores as values.
pub(crate) struct MemoryByValue;

impl Fixture for MemoryByValue {
    async fn open_with(&self, setup: Setup) -> Store {
        MemoryStore::with(setup.limits, setup.clock).into()
    }
}

/// Opens memory stores behind `Arc<dyn Engine>`.
pub(crate) struct MemoryAsObject;

impl Fixture for MemoryAsObject {
    async fn open_with(&self, setup: Setup) -> Store {
        let engine: Arc<dyn Engine> = Arc::clone(MemoryStore::with(setup.limits, setup.clock).engine());
        Store::from(&engine)
    }
}

/// The memory engine inside one that lets nothing go wrong: the testing kit changes nothing unless it is told to.
pub(crate) struct MemoryWithoutFaults;

impl Fixture for MemoryWithoutFaults {
    async fn open_with(&self, setup: Setup) -> Store {
        let memory = MemoryStore::with(setup.limits, setup.clock);
        FaultyEngine::over(memory.engine(), FaultPlan::none()).store()
    }
}
