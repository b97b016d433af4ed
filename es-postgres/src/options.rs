//! The options of a store, below everything that depends on them.

use std::sync::Arc;
use std::time::Duration;

use es_framework::{Clock, Limits, SystemClock};

/// What an acknowledged write survives; see `docs/postgres.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Durability {
    /// A commit is acknowledged once the server has flushed it to disk. If the server is configured to wait for
    /// standbys as well (`synchronous_commit = on` or `remote_apply` with `synchronous_standby_names`), it does. A
    /// weaker setting of the server, the database or the role (`off`, `local`, `remote_write`) is raised to `on`.
    ///
    /// Survives: a crash of this process, of the server and of its machine, if the disk keeps what it reports as
    /// flushed and the server runs with `fsync = on`.
    #[default]
    Full,
    /// `synchronous_commit = off`: a commit is acknowledged before it is flushed, which happens within a second.
    ///
    /// Survives: a crash of this process. Does not survive: after a crash of the server the newest acknowledged writes
    /// may be gone. What is left is consistent, and lost positions are assigned again.
    Normal,
}

/// What remains of a builder once the store is open.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) schema: String,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) pooled: bool,
    pub(crate) durability: Durability,
    pub(crate) readers: usize,
    pub(crate) queue_appends: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) write_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) application_name: String,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: "es".to_owned(),
            create: true,
            read_only: false,
            pooled: false,
            durability: Durability::Full,
            readers: 2,
            queue_appends: 4_096,
            queue_bytes: 64 << 20,
            write_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(25),
            application_name: "es-postgres".to_owned(),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}
