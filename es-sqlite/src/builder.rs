//! How a store is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use es_framework::{Clock, Limits, StoreError, SystemClock};

use crate::store::SqliteStore;

/// What an acknowledged write survives; see `docs/durability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// `synchronous=FULL`: each commit is flushed to the disk before it is acknowledged; writers that wait share one flush.
    ///
    /// Survives: a crash of the process, of the kernel, a power loss (if the disk keeps what it says it has flushed).
    #[default]
    Full,
    /// `synchronous=NORMAL`: the log is flushed at checkpoints only.
    ///
    /// Survives: a crash of the process. Does not survive: after a crash of the kernel or a power loss the newest
    /// acknowledged writes may be gone; what is left is whole, and positions that were lost are handed out again.
    Normal,
}

/// How a store is opened; made by [`SqliteStore::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `open` or `in_memory`"]
pub struct Builder {
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) settings: Settings,
}

/// What no connection keeps less of, in bytes.
const LEAST_CACHE: usize = 64 << 10;

/// What stays of a builder once the store is open.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) cache_bytes: usize,
    pub(crate) readers: usize,
    pub(crate) queue_appends: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) write_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Settings {
    /// What each reader keeps: a quarter of the writer's. For loads and scans 2 to 16 MiB make no difference that can be
    /// told from noise, since the system's cache of the file answers; but a read of all of a log fills every cache there
    /// is: 63 MiB in all with 16 each, 29 with 4.
    pub(crate) fn reader_cache_bytes(&self) -> usize {
        (self.cache_bytes / 4).max(LEAST_CACHE)
    }
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            durability: Durability::Full,
            cache_bytes: 16 << 20,
            readers: thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 4)),
            queue_appends: 4_096,
            queue_bytes: 64 << 20,
            write_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(12),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
        };
        Self { create: true, read_only: false, settings }
    }
}

impl Builder {
    /// Makes the store if there is nothing at the path; on by default. Switched off, a mistyped path is answered with
    /// [`StoreError::Missing`] instead of an empty store.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens the store for reading and watching only: writes are answered with [`StoreError::ReadOnly`]. Off by default.
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

    /// How long a write waits for other processes until it is answered with [`StoreError::Busy`]; 30 seconds by default.
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
    /// # Errors
    ///
    /// [`StoreError::Missing`], [`StoreError::NotAStore`], [`StoreError::NewerFormat`], and whatever the file system
    /// says. A file that is not a store is not touched.
    pub async fn open(self, path: impl AsRef<Path> + Send) -> Result<SqliteStore, StoreError> {
        let path: PathBuf = path.as_ref().to_owned();
        SqliteStore::open_file(self, path).await
    }

    /// Makes an empty store in memory, private to its handles and gone with the last of them.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if SQLite cannot be started.
    pub async fn in_memory(self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_in_memory(self).await
    }
}
