//! The options of a store, below everything that depends on them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use es_framework::{Clock, Limits, SystemClock};

/// What an acknowledged write survives; see `docs/durability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// `synchronous=FULL`: each commit is flushed to disk before it is acknowledged; waiting writers share one flush.
    ///
    /// Survives: a crash of the process or the kernel, and a power loss (if the disk really keeps what it reports as
    /// flushed).
    #[default]
    Full,
    /// `synchronous=NORMAL`: the log is flushed at checkpoints only.
    ///
    /// Survives: a crash of the process. Does not survive: after a crash of the kernel or a power loss the newest
    /// acknowledged writes may be gone. What is left is consistent, and lost positions are assigned again.
    Normal,
}

/// The smallest page cache of a connection, in bytes.
pub(crate) const LEAST_CACHE: usize = 64 << 10;

/// What remains of a builder once the store is open.
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
    /// The cache size of each reader: a quarter of the writer's. For loads and scans, 2 to 16 MiB make no measurable
    /// difference, since reads are served from the system's file cache. But a read of the whole log fills every cache:
    /// 63 MiB in total with 16 MiB each, 29 with 4.
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
