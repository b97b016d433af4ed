//! Opening a store.

use std::sync::Arc;
use std::time::Duration;

use es_framework::{Clock, Limits};

use crate::error::OpenError;
use crate::options::{Durability, Settings};
use crate::store::PostgresStore;

/// The longest timeout; what waits longer waits for a person.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl PostgresStore {
    /// Connects to the store in the schema `es` of a database, creating both if they do not exist. For any other
    /// options use [`Self::builder`].
    ///
    /// `url` is a connection string as libpq takes it: `postgres://user:password@host:5432/database`, or
    /// `host=/run/postgresql dbname=database`.
    ///
    /// # Errors
    ///
    /// As for [`Builder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Builder::connect`].
    pub async fn connect(url: &str) -> Result<Self, OpenError> {
        Self::builder().connect(url).await
    }

    /// Returns a builder that configures how a store is opened.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Configures how a store is opened; created by [`PostgresStore::builder`].
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `connect`"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// The schema that holds the store's tables; `es` by default. Each schema holds a store of its own.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.schema = schema.into();
        self
    }

    /// Creates the schema and its tables if they do not exist; on by default. If disabled, a mistyped schema fails with
    /// [`OpenError::Missing`] instead of creating an empty store.
    pub fn create(mut self, create: bool) -> Self {
        self.settings.create = create;
        self
    }

    /// Opens the store for reading and watching only: writes fail with
    /// [`StoreError::ReadOnly`](es_framework::StoreError::ReadOnly). Off by default. Never creates a store, and needs
    /// no more than the right to `SELECT`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
        self
    }

    /// Whether the connection string leads to a pooler that hands out connections per transaction, such as PgBouncer;
    /// off by default. Then nothing is prepared on a connection, and writes of other processes are looked for every
    /// [`Self::poll_interval`], because notifications do not pass such a pooler.
    pub fn pooled(mut self, pooled: bool) -> Self {
        self.settings.pooled = pooled;
        self
    }

    /// What an acknowledged write survives; [`Durability::Full`] by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Number of connections for reading, 1 to 64; 2 by default. Each is shared by up to 16 reads. The store opens at
    /// most three more: one for appends, one for cells and snapshots, and one that listens while there are watchers.
    /// All but the one for appends are opened on first use.
    pub fn readers(mut self, readers: usize) -> Self {
        self.settings.readers = readers.clamp(1, 64);
        self
    }

    /// Maximum number of appends that are queued or being written, 4,096 by default, and of their bytes (payloads,
    /// metadata and ids together), 64 MiB by default. However small, an append counts as at least `bytes / appends`: 16
    /// KiB by default. When the queue is full, callers wait, or get
    /// [`Overloaded`](es_framework::AppendError::Overloaded) if they asked for that. An append larger than the whole
    /// queue waits until it has the queue to itself.
    pub fn queue(mut self, appends: usize, bytes: usize) -> Self {
        self.settings.queue_appends = appends.clamp(1, 1 << 20);
        self.settings.queue_bytes = bytes.clamp(1, 1 << 30);
        self
    }

    /// How long a write waits: for other processes, before it fails with
    /// [`StoreError::Busy`](es_framework::StoreError::Busy); and for a server that cannot be reached, before it fails
    /// with [`StoreError::Io`](es_framework::StoreError::Io). 30 seconds by default, at most a day.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write_timeout = timeout.min(LONGEST);
        self
    }

    /// How long a read waits for the server, connecting again where needed, before it fails with
    /// [`StoreError::Io`](es_framework::StoreError::Io); also the `statement_timeout` of the connections for reading.
    /// 30 seconds by default, at most a day.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = timeout.min(LONGEST);
        self
    }

    /// How often the store looks for writes of other processes while there are watchers and no notifications: because a
    /// pooler does not pass them on, or while the connection that listens is made again. 25 milliseconds by default, at
    /// least 1. With notifications it looks once a second.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval.clamp(Duration::from_millis(1), LONGEST);
        self
    }

    /// The `application_name` of the store's connections, as `pg_stat_activity` shows it; `es-postgres` by default. A
    /// name in the connection string takes precedence.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.application_name = name.into();
        self
    }

    /// Limits on the size of one event and of one append.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// The clock that stamps events; the operating system's by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Connects to the store. Several processes may do that, and even create it, at the same time. Within one process,
    /// connect once and clone the handle.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A schema that is refused is not changed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no store open. It may have created the schema, with an empty store in it.
    pub async fn connect(self, url: &str) -> Result<PostgresStore, OpenError> {
        PostgresStore::open(url, self.settings).await
    }
}
