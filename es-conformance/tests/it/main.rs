//! Checks that the engine of the guide "Write an engine in a day" fulfils the contract.

#[path = "../../examples/an_engine/engine.rs"]
mod engine;

/// The engine over trees.
mod trees {
    use es_conformance::{Fixture, Setup};
    use es_framework::Store;

    use crate::engine::TreeEngine;

    struct Trees;

    impl Fixture for Trees {
        async fn open_with(&self, setup: Setup) -> Store {
            Store::new(TreeEngine::new(setup.limits, setup.clock))
        }
    }

    es_conformance::conformance!(Trees);
    es_conformance::conformance_inline!(Trees);
}
