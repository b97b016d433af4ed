//! The contract, on a schema of a server, and through `Arc<dyn Engine>`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use es_conformance::{Durable, Fixture, Setup, Shared};
use es_framework::{Engine, Store, StoreId};
use es_postgres::{Builder, Durability};

use crate::server;
use crate::support::{self, Schemas};

fn builder(schema: &str, setup: Setup) -> Builder {
    // Flushes guard against crashes of the server, which no test here causes.
    support::builder(schema).durability(Durability::Normal).limits(setup.limits).clock(setup.clock)
}

pub(crate) struct OnServer {
    url: &'static str,
    schemas: Schemas,
    names: Mutex<HashMap<StoreId, String>>,
}

impl OnServer {
    /// [`None`] if there is no server, so that the test has nothing to do.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { url: server::shared()?, schemas: Schemas::default(), names: Mutex::default() })
    }

    fn schema(&self, store: &Store) -> String {
        self.names.lock().unwrap()[&store.id()].clone()
    }
}

impl Fixture for OnServer {
    async fn open_with(&self, setup: Setup) -> Store {
        let schema = self.schemas.add();
        let store = builder(&schema, setup).connect(self.url).await.unwrap();
        self.names.lock().unwrap().insert(store.id(), schema);
        store.into()
    }
}

impl Durable for OnServer {
    async fn reopen_with(&self, store: Store, setup: Setup) -> Store {
        let schema = self.schema(&store);
        store.close().await.unwrap();
        builder(&schema, setup).create(false).connect(self.url).await.unwrap().into()
    }
}

impl Shared for OnServer {
    async fn second(&self, store: &Store) -> Store {
        let schema = self.schema(store);
        builder(&schema, Setup::default()).create(false).connect(self.url).await.unwrap().into()
    }
}

/// Stores behind a pooler that hands out connections per transaction: PgBouncer if it is installed, and otherwise the
/// server itself, used in the same way.
struct Pooled(OnServer);

impl Pooled {
    fn new() -> Option<Self> {
        let server = OnServer::new()?;
        let url = server::pooler().unwrap_or(server.url);
        Some(Self(OnServer { url, ..server }))
    }
}

impl Fixture for Pooled {
    async fn open_with(&self, setup: Setup) -> Store {
        let schema = self.0.schemas.add();
        let store = builder(&schema, setup).pooled(true).connect(self.0.url).await.unwrap();
        self.0.names.lock().unwrap().insert(store.id(), schema);
        store.into()
    }
}

impl Durable for Pooled {
    async fn reopen_with(&self, store: Store, setup: Setup) -> Store {
        let schema = self.0.schema(&store);
        store.close().await.unwrap();
        builder(&schema, setup).pooled(true).create(false).connect(self.0.url).await.unwrap().into()
    }
}

impl Shared for Pooled {
    /// One behind the pooler, and one that is not.
    async fn second(&self, store: &Store) -> Store {
        let (schema, url) = (self.0.schema(store), server::shared().unwrap());
        let count = self.0.names.lock().unwrap().len();
        let builder = builder(&schema, Setup::default()).create(false);
        if count.is_multiple_of(2) {
            builder.connect(url).await
        } else {
            builder.pooled(true).connect(self.0.url).await
        }
        .unwrap()
        .into()
    }
}

/// The handle that works for any engine, as in an application that chooses its engine at run time.
struct Dynamic(OnServer);

impl Fixture for Dynamic {
    async fn open_with(&self, setup: Setup) -> Store {
        let engine: Arc<dyn Engine> = Arc::clone(self.0.open_with(setup).await.engine());
        engine.into()
    }
}

mod on_server {
    use super::OnServer;
    es_conformance::conformance!(or_nothing!(OnServer::new()));
    es_conformance::conformance_durable!(or_nothing!(OnServer::new()));
    es_conformance::conformance_shared!(or_nothing!(OnServer::new()));
}

mod dynamic {
    use super::{Dynamic, OnServer};
    es_conformance::conformance!(or_nothing!(OnServer::new().map(Dynamic)));
}

mod pooled {
    use super::Pooled;
    es_conformance::conformance_durable!(or_nothing!(Pooled::new()));
    es_conformance::conformance_shared!(or_nothing!(Pooled::new()));
    mod filters {
        use super::Pooled;

        #[test]
        fn c3_every_filter_answers_what_the_evaluator_says() {
            es_conformance::run(async {
                let fixture = or_nothing!(Pooled::new());
                es_conformance::filters::c3_every_filter_answers_what_the_evaluator_says(&fixture).await;
            });
        }

        #[test]
        fn every_engine_answers_like_the_model() {
            es_conformance::run(async {
                let fixture = or_nothing!(Pooled::new());
                es_conformance::model::every_engine_answers_like_the_model(&fixture).await;
            });
        }
    }
}
