//! How a store is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use es_framework::{Clock, Limits};

use crate::error::OpenError;
use crate::opening::open::Purpose;
use crate::options::{Durability, LEAST_CACHE, Settings};
use crate::store::SqliteStore;

impl SqliteStore {
    /// Opens the store at `path`, and makes it if there is nothing; [`Self::builder`] for anything else.
    ///
    /// # Errors
    ///
    /// As for [`Builder::open`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Builder::open`].
    pub async fn open(path: impl AsRef<Path> + Send) -> Result<Self, OpenError> {
        Self::builder().open(path).await
    }

    /// Makes an empty store in memory, private to its handles and gone with the last of them.
    ///
    /// # Errors
    ///
    /// [`OpenError::Store`] if SQLite cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn in_memory() -> Result<Self, OpenError> {
        Self::builder().in_memory().await
    }

    /// Begins to put together how a store is opened.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// How a store is opened; made by [`SqliteStore::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `open` or `in_memory`"]
pub struct Builder {
    create: bool,
    read_only: bool,
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self { create: true, read_only: false, settings: Settings::default() }
    }
}

impl Builder {
    /// Makes the store if there is nothing at the path; on by default. Switched off, a mistyped path is answered with
    /// [`OpenError::Missing`] instead of an empty store.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the store for reading and watching only: writes are answered with [`StoreError::ReadOnly`](es_framework::StoreError::ReadOnly). Off by default.
    /// Never makes a store.
    ///
    /// SQLite keeps an index of its write-ahead log in a file beside the store, so the folder must be writable unless
    /// another process has the store open. A read-only store cannot remove it: if it was the only one or closes last, the
    /// `-wal` and `-shm` files stay until the next close of one that writes.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What an acknowledged write survives; [`Durability::Full`] by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// The pages that the writer keeps in memory at most, in bytes; 16 MiB by default, at least 64 KiB. Each reader keeps a
    /// quarter of that, also at least 64 KiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes.max(LEAST_CACHE);
        self
    }

    /// The connections, with a thread each, that read at the same time; 1 to 64. As many as there are processors by default,
    /// but at least 2 and at most 4: with more a scan is slower, for they take the processors from each other. Opened when
    /// they are first needed.
    pub fn readers(mut self, readers: usize) -> Self {
        self.settings.readers = readers.clamp(1, 64);
        self
    }

    /// The appends that wait or are being written at most, 4,096 by default, and their bytes (payloads, metadata and ids
    /// together), 64 MiB by default. A small append counts as its share, the bytes by the appends: 16 KiB by default. Beyond
    /// that callers wait, or are answered with
    /// [`Overloaded`](es_framework::AppendError::Overloaded) if they asked for it. An append that is larger than all of
    /// the queue waits until it has the queue to itself.
    pub fn queue(mut self, appends: usize, bytes: usize) -> Self {
        self.settings.queue_appends = appends.clamp(1, 1 << 20);
        self.settings.queue_bytes = bytes.clamp(1, 1 << 30);
        self
    }

    /// How long a write waits for other processes until it is answered with [`StoreError::Busy`](es_framework::StoreError::Busy); 30 seconds by default.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write_timeout = timeout;
        self
    }

    /// How often the store looks for writes of other processes while somebody watches; 12 milliseconds by default, at
    /// least 1. Writes of this process wake watchers at once. While nobody watches nothing is looked for.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// How much one event and one append may hold.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// The clock that events are stamped with; that of the operating system by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Opens the store at `path`. Several processes may have it open, and may make it, at the same time; within one
    /// process open it once and clone the handle.
    ///
    /// Links and a relative path are followed once, now: what becomes of them, or of the process's current folder,
    /// later on makes no difference. If another file takes the place of this one while the store is open, calls fail
    /// with [`StoreError::StoreChanged`](es_framework::StoreError::StoreChanged).
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A file that is not a store is not changed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no store open. It may have made the file, with nothing in it or with an empty store.
    pub async fn open(self, path: impl AsRef<Path> + Send) -> Result<SqliteStore, OpenError> {
        let path: PathBuf = path.as_ref().to_owned();
        let purpose = if self.read_only { Purpose::ReadOnly } else { Purpose::Write { create: self.create } };
        SqliteStore::open_file(path, purpose, self.settings).await
    }

    /// Makes an empty store in memory, private to its handles and gone with the last of them.
    ///
    /// # Errors
    ///
    /// [`OpenError::Store`] if SQLite cannot be started.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn in_memory(self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_in_memory(self.settings).await
    }
}
