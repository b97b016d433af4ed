//! Opening a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use es_framework::{Clock, Limits};

use crate::error::OpenError;
use crate::opening::open::Purpose;
use crate::options::{Durability, LEAST_CACHE, Settings};
use crate::store::SqliteStore;

impl SqliteStore {
    /// Opens the store at `path`, creating it if it does not exist. For any other options use [`Self::builder`].
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

    /// Creates an empty store in memory, private to its handles and gone with the last of them.
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

    /// Returns a builder that configures how a store is opened.
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Configures how a store is opened; created by [`SqliteStore::builder`].
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
    /// Creates the store if there is nothing at the path; on by default. If disabled, a mistyped path fails with
    /// [`OpenError::Missing`] instead of creating an empty store.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the store for reading and watching only: writes fail with
    /// [`StoreError::ReadOnly`](es_framework::StoreError::ReadOnly). Off by default. Never creates a store.
    ///
    /// SQLite keeps an index of its write-ahead log in a file next to the store, so the folder must be writable unless
    /// another process has the store open. A read-only store cannot remove that file: if it is the only one open or the
    /// last to close, the `-wal` and `-shm` files stay until a store that can write is next closed.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What an acknowledged write survives; [`Durability::Full`] by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Maximum size of the writer's page cache, in bytes; 16 MiB by default, at least 64 KiB. Each reader caches a
    /// quarter of that, also at least 64 KiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.settings.cache_bytes = bytes.max(LEAST_CACHE);
        self
    }

    /// Number of connections, each with its own thread, that read concurrently; 1 to 64. Defaults to the number of
    /// processors, but at least 2 and at most 4: with more, scans get slower because the connections compete for
    /// processors. Connections are opened on first use.
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

    /// How long a write waits for other processes before it fails with
    /// [`StoreError::Busy`](es_framework::StoreError::Busy); 30 seconds by default.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write_timeout = timeout;
        self
    }

    /// How often the store checks for writes of other processes while there are watchers; 12 milliseconds by default,
    /// at least 1. Writes of this process wake watchers at once. Without watchers there is no polling.
    ///
    /// On Linux this is only a fallback: the operating system reports writes of other processes (inotify), which are
    /// then noticed within about a millisecond. The store polls if no more files can be watched, and on file systems
    /// that do not report what others write. While this process writes, too, reports are ignored for up to this
    /// interval.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval.max(Duration::from_millis(1));
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

    /// Opens the store at `path`. Several processes may open it, and even create it, at the same time. Within one
    /// process, open it once and clone the handle.
    ///
    /// Links and a relative path are resolved once, now: later changes to them, or to the process's current folder,
    /// make no difference. If another file replaces this one while the store is open, calls fail with
    /// [`StoreError::StoreChanged`](es_framework::StoreError::StoreChanged).
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A file that is not a store is not changed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no store open. It may have created the file, empty or with an empty store in it.
    pub async fn open(self, path: impl AsRef<Path> + Send) -> Result<SqliteStore, OpenError> {
        let path: PathBuf = path.as_ref().to_owned();
        let purpose = if self.read_only { Purpose::ReadOnly } else { Purpose::Write { create: self.create } };
        SqliteStore::open_file(path, purpose, self.settings).await
    }

    /// Creates an empty store in memory, private to its handles and gone with the last of them.
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
