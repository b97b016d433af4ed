//! Reading from a store: pages, loads, and everything that is one statement.

use std::sync::Arc;
use std::time::Duration;

use es_framework::engine::{Load, Loaded, Notifier, Page, Read};
use es_framework::{
    Cell, CellKey, CommandKey, CommandRecord, ListCells, ListStreams, Position, StoreError, StoreId, StreamInfo,
};

use crate::connection::connect::{Connector, Purpose};
use crate::connection::session::Session;
use crate::read::page::{Context, Sizes};
use crate::read::pool::Pool;
use crate::tables::log::LogHead;
use crate::tables::names::Names;
use crate::tables::statements::Statements;
use crate::tables::{cells, commands, snapshots, streams};

/// The reading half of an open store.
#[derive(Debug)]
pub(crate) struct Reader {
    pool: Arc<Pool>,
    statements: Arc<Statements>,
    names: Names,
    sizes: Sizes,
    store: StoreId,
    notifier: Arc<Notifier>,
}

impl Reader {
    pub(crate) fn new(
        connector: Arc<Connector>,
        statements: Arc<Statements>,
        store: StoreId,
        notifier: Arc<Notifier>,
        size: usize,
        patience: Duration,
    ) -> Self {
        let pool = Arc::new(Pool::new(connector, Purpose::Read, size, patience));
        Self { pool, statements, names: Names::default(), sizes: Sizes::default(), store, notifier }
    }

    /// Reads a page.
    pub(crate) async fn page(&self, read: &Read) -> Result<Page, StoreError> {
        let page = || self.pool.run(|session| async move { self.context(&session).page(read).await });
        match page().await {
            Err(StoreError::Corrupt { .. }) => {
                // Or its names were read from a log that was rewound since.
                self.names.forget();
                page().await
            }
            other => other,
        }
    }

    /// Reads a snapshot and the first page of the events after it.
    pub(crate) async fn load(&self, load: &Load) -> Result<Loaded, StoreError> {
        let Load { stream, snapshot: name, until, events, .. } = load;
        let mut loaded = Loaded::default();
        if let Some(name) = name {
            let find =
                |session: Arc<Session>| async move { snapshots::find(&session, &self.statements, stream, name).await };
            let snapshot = self.pool.run(find).await?;
            loaded.snapshot = snapshot.filter(|snapshot| until.is_none_or(|until| snapshot.at <= until.get()));
        }
        if *events > 0 {
            let mut read = Read::new(stream.clone());
            read.events = *events;
            read.after = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
            read.before = until.map(|until| until.next().get());
            loaded.page = self.page(&read).await?;
        }
        Ok(loaded)
    }

    /// Lists streams.
    pub(crate) async fn streams(&self, list: &ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.pool.run(|session| async move { streams::list(&session, &self.statements, list).await }).await
    }

    /// Finds the record of a command.
    pub(crate) async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        let find =
            |session: Arc<Session>| async move { commands::find(&session, &self.statements, &[key.as_str()]).await };
        let found = self.pool.run(find);
        Ok(found.await?.pop())
    }

    /// Finds a cell.
    pub(crate) async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.pool.run(|session| async move { cells::find(&session, &self.statements, key).await }).await
    }

    /// Lists cells.
    pub(crate) async fn cells(&self, list: &ListCells) -> Result<Vec<Cell>, StoreError> {
        self.pool.run(|session| async move { cells::list(&session, &self.statements, list).await }).await
    }

    /// The position of the newest event.
    pub(crate) async fn head(&self) -> Result<Position, StoreError> {
        let seen = self.notifier.head();
        let read = |session: Arc<Session>| async move { LogHead::read(&session, &self.statements).await };
        let head = self.pool.run(read).await?;
        head.check(self.store, seen)?;
        Ok(head.position)
    }

    /// The connections, for other single statements.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Ends the connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    fn context<'a>(&'a self, session: &'a Session) -> Context<'a> {
        Context {
            session,
            statements: &self.statements,
            names: &self.names,
            store: self.store,
            seen: self.notifier.head(),
            sizes: &self.sizes,
        }
    }
}
