//! What can be chosen about a store, below everything that depends on the choice.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use es_framework::{Clock, Limits, SystemClock};

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

/// The smallest page cache of a connection, in bytes.
pub(crate) const LEAST_CACHE: usize = 64 << 10;

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

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            cache_bytes: 16 << 20,
            readers: thread::available_parallelism().map_or(2, |processors| processors.get().clamp(2, 4)),
            queue_appends: 4_096,
            queue_bytes: 64 << 20,
            write_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(12),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}
