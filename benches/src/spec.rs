//! A measurement, and its outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use es_sqlite::Durability;
use serde::{Deserialize, Serialize};

use crate::measure::Latency;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Our engine, through its public API.
    Engine,
    /// Plain rusqlite.
    Floor,
}

/// What a commit survives, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// `synchronous=FULL`.
    Full,
    /// `synchronous=NORMAL`.
    Normal,
}

impl Mode {
    /// The engine's setting for it.
    pub fn durability(self) -> Durability {
        match self {
            Self::Full => Durability::Full,
            Self::Normal => Durability::Normal,
        }
    }

    /// The name on command lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        })
    }
}

/// The index from (stream, version) to the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Index {
    /// File format 1's unique index.
    InPlace,
    /// No index: the upper bound.
    Nothing,
    /// The merged index; see [`crate::merged`].
    Merged,
}

/// Where a projection keeps its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Results {
    /// In a value in memory.
    State,
    /// In rows, by one upsert per event.
    Upserts,
    /// In rows, by what comes together for each in a batch.
    Sums,
    /// In rows, each read and written once a batch.
    Rows,
}

/// The work of one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Many events per append, one caller, one stream.
    Bulk {
        /// Whether every event has an id of 12 bytes.
        ids: bool,
    },
    /// One event per append, one caller.
    Single {
        /// Whether every event starts a new stream.
        new_streams: bool,
    },
    /// One event per append, many callers at once, each with its own streams.
    Many,
    /// One event with a tag per append, on the condition that no other event with it came; many callers at once.
    Conditional {
        /// Whether all callers share ten tags, instead of having one each.
        hot: bool,
    },
    /// Reads of `@all` by a query.
    Query {
        /// Whether the query requires a tag that half of all events have, and one that ten have; otherwise one that a
        /// hundred have.
        skewed: bool,
    },
    /// Commands by many callers through the repository.
    Commands,
    /// Decisions across streams by many callers: the example `courses`.
    Courses,
    /// Loads of one aggregate.
    Load {
        /// Whether there is a snapshot at its end.
        snapshot: bool,
    },
    /// A read of `@all`.
    Scan {
        /// Whether only one event in a hundred is wanted.
        filtered: bool,
    },
    /// A projection that catches up.
    Project {
        /// What it changes.
        results: Results,
    },
    /// From a write's return to the event's arrival at a watcher.
    Watch {
        /// The pause between two writes, in microseconds.
        pause_us: u64,
        /// Whether the watcher is another process.
        elsewhere: bool,
    },
    /// Waiting watchers, each on its own stream.
    Watchers,
    /// One event per append, to streams all over a store that is already large.
    Grown {
        /// Whether there is only one caller; otherwise as many as the spec says.
        alone: bool,
    },
    /// Small streams of a store that is already large, loaded one after the other.
    GrownLoad,
    /// Bulk appends while readers overlap: how large the write-ahead log grows.
    Overlapped,
    /// Commits of one event each to random streams, by plain rusqlite.
    Indexed {
        /// With this index.
        index: Index,
        /// The number of events that are there before.
        before: u64,
    },
    /// Creates the store that loads, scans and projections read.
    FillTyped,
    /// Creates the store that queries read.
    FillTagged,
    /// Creates the store that grows.
    FillGrown,
    /// Creates the store with such an index.
    FillIndexed {
        /// With this index.
        index: Index,
    },
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// What is done.
    pub work: Work,
    /// Who does it.
    pub side: Side,
    /// What a commit survives.
    pub mode: Mode,
    /// A folder: empty for works that write a store of their own, with `store.db` for those that read one.
    pub dir: PathBuf,
    /// The total number of events.
    pub events: u64,
    /// The bytes of a payload.
    pub payload: usize,
    /// The number of events per append.
    pub per_append: u64,
    /// The number of concurrent callers.
    pub callers: u64,
    /// The number of streams, per caller or in total.
    pub streams: u64,
    /// The number of rows per statement of the floor.
    pub rows: usize,
}

impl Spec {
    /// The engine's side of some work with 100 bytes an event, FULL; change what is different.
    pub fn new(work: Work, events: u64) -> Self {
        let dir = PathBuf::new();
        let (side, mode) = (Side::Engine, Mode::Full);
        Self { work, side, mode, dir, events, payload: 100, per_append: 1, callers: 1, streams: 1, rows: 16 }
    }

    /// The work that creates the store that this work reads, unless it writes one of its own. Works with an equal
    /// result share the store.
    #[must_use]
    pub fn prepared(&self) -> Option<Self> {
        let mode = Mode::Normal;
        match self.work {
            Work::Load { .. } | Work::Scan { .. } | Work::Project { .. } => {
                Some(Self { mode, per_append: 1_000, streams: self.streams, ..Self::new(Work::FillTyped, self.events) })
            }
            Work::Query { .. } => Some(Self { mode, per_append: 1_000, ..Self::new(Work::FillTagged, self.events) }),
            Work::Grown { .. } | Work::GrownLoad => {
                Some(Self { mode, streams: self.streams, ..Self::new(Work::FillGrown, self.streams * 10) })
            }
            Work::Indexed { index, before } => {
                Some(Self { mode, streams: self.streams, ..Self::new(Work::FillIndexed { index }, before) })
            }
            _ => None,
        }
    }

    /// The same by plain rusqlite.
    #[must_use]
    pub fn on_the_floor(&self) -> Self {
        Self { side: Side::Floor, ..self.clone() }
    }
}

/// The outcome of one measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of processed events.
    pub events: u64,
    /// How long that took.
    pub seconds: f64,
    /// The size of the database afterwards, checkpointed; 0 if it is meaningless.
    #[serde(default)]
    pub file_bytes: u64,
    /// The peak memory of the process.
    #[serde(default)]
    pub peak_rss_bytes: u64,
    /// The processor time of that process, from its start.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// The latencies of single appends, loads or wake-ups.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// Other figures by their names.
    #[serde(default)]
    pub facts: BTreeMap<String, f64>,
    /// Remarks.
    #[serde(default)]
    pub note: String,
}

impl Outcome {
    /// An outcome of this many events in this time.
    pub fn of(events: u64, seconds: f64) -> Self {
        Self { events, seconds, ..Self::default() }
    }

    /// Adds latencies.
    #[must_use]
    pub fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn with_fact(mut self, name: &str, figure: f64) -> Self {
        self.facts.insert(name.to_owned(), figure);
        self
    }
}
