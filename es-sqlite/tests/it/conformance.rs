//! The contract, on a file, in memory, and through `Arc<dyn Engine>`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use es_conformance::{Durable, Fixture, Setup, Shared};
use es_framework::{Engine, Store, StoreId};
use es_sqlite::{Builder, Durability, SqliteStore};
use tempfile::TempDir;

fn builder(setup: Setup) -> Builder {
    // Flushes guard against power losses, which no test here causes.
    SqliteStore::builder().durability(Durability::Normal).limits(setup.limits).clock(setup.clock)
}

#[derive(Default)]
struct InMemory;

impl Fixture for InMemory {
    async fn open_with(&self, setup: Setup) -> Store {
        builder(setup).in_memory().await.unwrap().into()
    }
}

struct OnFile {
    folder: TempDir,
    paths: Mutex<HashMap<StoreId, PathBuf>>,
}

impl OnFile {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), paths: Mutex::default() }
    }

    fn path(&self, store: &Store) -> PathBuf {
        self.paths.lock().unwrap()[&store.id()].clone()
    }
}

impl Fixture for OnFile {
    async fn open_with(&self, setup: Setup) -> Store {
        let path = self.folder.path().join(format!("{}.db", self.paths.lock().unwrap().len()));
        let store = builder(setup).open(&path).await.unwrap();
        self.paths.lock().unwrap().insert(store.id(), path);
        store.into()
    }
}

impl Durable for OnFile {
    async fn reopen_with(&self, store: Store, setup: Setup) -> Store {
        let path = self.path(&store);
        store.close().await.unwrap();
        builder(setup).create(false).open(path).await.unwrap().into()
    }
}

impl Shared for OnFile {
    async fn second(&self, store: &Store) -> Store {
        builder(Setup::default()).create(false).open(self.path(store)).await.unwrap().into()
    }
}

/// The handle that works for any engine, as in an application that chooses its engine at run time.
struct Dynamic(OnFile);

impl Fixture for Dynamic {
    async fn open_with(&self, setup: Setup) -> Store {
        let engine: Arc<dyn Engine> = Arc::clone(self.0.open_with(setup).await.engine());
        engine.into()
    }
}

mod in_memory {
    use super::InMemory;
    es_conformance::conformance!(InMemory);
    es_conformance::conformance_inspected!(InMemory);
    es_conformance::conformance_inline!(InMemory);
}

mod on_file {
    use super::OnFile;
    es_conformance::conformance!(OnFile::new());
    es_conformance::conformance_durable!(OnFile::new());
    es_conformance::conformance_shared!(OnFile::new());
    es_conformance::conformance_inspected!(OnFile::new());
    es_conformance::conformance_inline!(OnFile::new());
    es_conformance::conformance_inline_durable!(OnFile::new());
    es_conformance::conformance_inline_shared!(OnFile::new());
}

mod dynamic {
    use super::{Dynamic, OnFile};
    es_conformance::conformance!(Dynamic(OnFile::new()));
    es_conformance::conformance_inline!(Dynamic(OnFile::new()));
}
