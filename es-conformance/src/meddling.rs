//! An engine that runs hooks of the test before it forwards a call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use es_framework::engine::{CommitHooks, Load, Loaded, Notifier, Page, Read};
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, Engine, Limits,
    ListCells, ListStreams, Snapshot, SnapshotError, Store, StoreError, StoreId, StreamInfo,
};

type Hook<T, E> = Box<dyn Fn(T) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send>> + Send + Sync>;

/// An engine that wraps another, whose calls can be counted, delayed, changed or failed.
pub struct Meddling {
    inner: Arc<dyn Engine>,
    append: Hook<Append, AppendError>,
    snapshot: Hook<Snapshot, SnapshotError>,
    read: Hook<Read, StoreError>,
    page: Box<dyn Fn(Page) -> Page + Send + Sync>,
}

impl Meddling {
    /// Wraps the engine of a store, without any hooks yet.
    pub fn with(store: &Store) -> Self {
        Self {
            inner: Arc::clone(store.engine()),
            append: Box::new(|append| Box::pin(async { Ok(append) })),
            snapshot: Box::new(|snapshot| Box::pin(async { Ok(snapshot) })),
            read: Box::new(|read| Box::pin(async { Ok(read) })),
            page: Box::new(|page| page),
        }
    }

    /// Runs `hook` before each append.
    #[must_use]
    pub fn before_append<F>(mut self, hook: impl Fn(Append) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Append, AppendError>> + Send + 'static,
    {
        self.append = Box::new(move |append| Box::pin(hook(append)));
        self
    }

    /// Runs `hook` before each snapshot is saved.
    #[must_use]
    pub fn before_snapshot<F>(mut self, hook: impl Fn(Snapshot) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Snapshot, SnapshotError>> + Send + 'static,
    {
        self.snapshot = Box::new(move |snapshot| Box::pin(hook(snapshot)));
        self
    }

    /// Runs `hook` before each page is read.
    #[must_use]
    pub fn before_read<F>(mut self, hook: impl Fn(Read) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Read, StoreError>> + Send + 'static,
    {
        self.read = Box::new(move |read| Box::pin(hook(read)));
        self
    }

    /// Changes each page that is read, including the one of a load.
    #[must_use]
    pub fn change_page(mut self, change: impl Fn(Page) -> Page + Send + Sync + 'static) -> Self {
        self.page = Box::new(change);
        self
    }

    /// Returns a handle to the wrapped engine.
    pub fn into_store(self) -> Store {
        Store::new(self)
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meddling").field(&self.inner).finish()
    }
}

#[async_trait]
impl Engine for Meddling {
    fn id(&self) -> StoreId {
        self.inner.id()
    }
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.clock()
    }
    fn notifier(&self) -> &Arc<Notifier> {
        self.inner.notifier()
    }
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let append = (self.append)(append).await?;
        self.inner.append(append).await
    }
    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        self.inner.command(key).await
    }
    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        let read = (self.read)(read).await?;
        Ok((self.page)(self.inner.read(read).await?))
    }
    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        let mut loaded = self.inner.load(load).await?;
        loaded.page = (self.page)(loaded.page);
        Ok(loaded)
    }
    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.inner.streams(list).await
    }
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let snapshot = (self.snapshot)(snapshot).await?;
        self.inner.save_snapshot(snapshot).await
    }
    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.inner.cell(key).await
    }
    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.inner.cells(list).await
    }
    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        self.inner.set_cell(key, expected, value).await
    }
    fn commit_hooks(&self) -> Option<&CommitHooks> {
        self.inner.commit_hooks()
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
