//! What a store tells somebody who measures it.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::append::{Appended, Outcome};
use super::error::{AppendError, ErrorKind};
use super::position::Position;
use crate::panics;

/// Is told what happens in an open store: for metrics, alerts and traces. Every method does nothing by default.
///
/// Attach one with [`Store::observe`](crate::Store::observe). The crate `es-telemetry` has one that makes metrics of
/// what it is told.
///
/// A report is a call on the path that it reports about, by whichever thread is there: a slow observer slows the store
/// down. A panic is caught and logged once; the store continues.
///
/// No report holds the id of a stream, an event or a tenant: there is no bound to their number, and a metric with one
/// value for each of them takes down what collects it. A category of aggregates and the name of a consumer are fixed by
/// the program.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use es_framework::observe::{AppendReport, Observer};
/// use es_framework::{CandidateEvent, ExpectedVersion, MemoryStore};
///
/// #[derive(Debug, Default)]
/// struct Counter(AtomicU64);
///
/// impl Observer for Counter {
///     fn appended(&self, report: &AppendReport) {
///         self.0.fetch_add(report.events as u64, Ordering::Relaxed);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let counter = Arc::new(Counter::default());
/// store.observe(counter.clone())?;
/// store.open_stream("account-alice")?.write(CandidateEvent::new("opened", "")?, ExpectedVersion::Any).await?;
/// assert_eq!(counter.0.load(Ordering::Relaxed), 1);
/// # Ok(()) }
/// ```
pub trait Observer: Debug + Send + Sync + 'static {
    /// An append has ended. One whose future is dropped before is not reported.
    fn appended(&self, report: &AppendReport) {
        let _: &AppendReport = report;
    }

    /// Writes were committed together. Engines without a queue of writes do not report this.
    fn committed(&self, report: &CommitReport) {
        let _: &CommitReport = report;
    }

    /// A command has ended. One whose future is dropped before is not reported.
    fn executed(&self, report: &ExecuteReport) {
        let _: &ExecuteReport = report;
    }

    /// An aggregate was loaded, or a cached state brought up to date.
    fn loaded(&self, report: &LoadReport) {
        let _: &LoadReport = report;
    }

    /// A consumer begins to process a batch. It is called inside the span of the batch, which can be linked to the
    /// spans that wrote its events.
    fn batch_begins(&self, batch: &BatchBegins<'_>) {
        let _: &BatchBegins<'_> = batch;
    }

    /// A consumer has processed a batch.
    fn batch(&self, report: &BatchReport<'_>) {
        let _: &BatchReport<'_> = report;
    }

    /// An attempt of a consumer has failed; it may be repeated.
    fn failed(&self, report: &FailureReport<'_>) {
        let _: &FailureReport<'_> = report;
    }

    /// A consumer has parked events, or parked ones were processed or dropped.
    fn parked(&self, report: &ParkReport<'_>) {
        let _: &ParkReport<'_> = report;
    }

    /// Something was published to another system.
    fn published(&self, report: &PublishReport<'_>) {
        let _: &PublishReport<'_> = report;
    }
}

/// How an append ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppendOutcome {
    /// Its events were written, or there were none to write and every expectation held.
    Written,
    /// All of it was known.
    AlreadyWritten,
    /// A stream was not as expected.
    Conflict,
    /// The queue was full or the store busy; the same append may succeed later.
    Busy,
    /// No state of the store makes it valid.
    Refused,
    /// The store failed.
    Failed,
}

impl AppendOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Written, Self::AlreadyWritten, Self::Conflict, Self::Busy, Self::Refused, Self::Failed];

    pub(super) fn of(result: &Result<Appended, AppendError>) -> Self {
        match result {
            Ok(Appended { outcome: Outcome::Written, .. }) => Self::Written,
            Ok(Appended { outcome: Outcome::AlreadyWritten, .. }) => Self::AlreadyWritten,
            Err(error) => match error.kind() {
                ErrorKind::Conflict => Self::Conflict,
                ErrorKind::Retry => Self::Busy,
                ErrorKind::Caller => Self::Refused,
                _ => Self::Failed,
            },
        }
    }

    /// As the value of a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::AlreadyWritten => "already_written",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One append.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppendReport {
    /// The number of events it asked for.
    pub events: usize,
    /// The bytes that count against [`Limits::append_bytes`](crate::Limits::append_bytes).
    pub bytes: usize,
    /// How it ended.
    pub outcome: AppendOutcome,
    /// The time from the call to the result, waiting included.
    pub duration: Duration,
}

/// A group of writes that share a transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CommitReport {
    /// The number of writes in it.
    pub writes: usize,
    /// The time from the beginning of the transaction to the end of its commit.
    pub duration: Duration,
    /// The number of writes that were waiting after it.
    pub queued: usize,
    /// What those take in the queue, in bytes.
    pub queued_bytes: usize,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExecuteOutcome {
    /// It was executed; it may have written nothing.
    Executed,
    /// It had been executed before, under the same key.
    Known,
    /// The domain rejected it.
    Rejected,
    /// Other writers were faster, or the version was not the expected one.
    Conflict,
    /// It failed.
    Failed,
}

impl ExecuteOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Executed, Self::Known, Self::Rejected, Self::Conflict, Self::Failed];

    /// As the value of a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Known => "known",
            Self::Rejected => "rejected",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// One command.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExecuteReport {
    /// The category of the aggregate.
    pub category: &'static str,
    /// How it ended.
    pub outcome: ExecuteOutcome,
    /// The number of events it wrote.
    pub events: usize,
    /// How many times another writer was faster, so that it was decided again.
    pub conflicts: u32,
    /// Whether the state was in the cache; [`None`] if it came to no decision.
    pub cached: Option<bool>,
    /// The time from its first poll to the result.
    pub duration: Duration,
}

/// What became of the snapshot of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SnapshotResult {
    /// None was asked for: the aggregate has no snapshots, or a cached state was brought up to date.
    NotAsked,
    /// There was none.
    Missing,
    /// The load started from it.
    Used,
    /// It was made with another shape or another `apply`.
    Outdated,
    /// It could not be read.
    Unreadable,
}

impl SnapshotResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::NotAsked, Self::Missing, Self::Used, Self::Outdated, Self::Unreadable];

    /// As the value of a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Missing => "missing",
            Self::Used => "used",
            Self::Outdated => "outdated",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One load of an aggregate.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadReport {
    /// The category of the aggregate.
    pub category: &'static str,
    /// The number of events that were folded.
    pub events_replayed: u64,
    /// What became of the snapshot.
    pub snapshot: SnapshotResult,
    /// Whether it could be loaded.
    pub is_ok: bool,
    /// The time it took.
    pub duration: Duration,
}

impl LoadReport {
    pub(crate) fn of(category: &'static str) -> Self {
        Self { category, events_replayed: 0, snapshot: SnapshotResult::NotAsked, is_ok: true, duration: Duration::ZERO }
    }
}

/// The trace that an event was written in, in the format of [W3C Trace Context](https://www.w3.org/TR/trace-context/).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The header `traceparent`, unchecked.
    pub traceparent: String,
    /// The header `tracestate`, unchecked.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Creates a context.
    pub fn new(traceparent: impl Into<String>, tracestate: Option<String>) -> Self {
        Self { traceparent: traceparent.into(), tracestate }
    }
}

/// A batch that a consumer begins to process.
#[non_exhaustive]
pub struct BatchBegins<'a> {
    /// The consumer.
    pub consumer: &'a str,
    /// The number of its events.
    pub events: usize,
    /// The traces that its events were written in, without repetitions next to each other. Metadata is looked at only
    /// if this is called.
    pub traces: &'a dyn Fn() -> Vec<TraceContext>,
}

impl<'a> BatchBegins<'a> {
    /// The maximum number of [`Self::traces`].
    pub const MAX_TRACES: usize = 32;

    /// Creates a report.
    pub fn new(consumer: &'a str, events: usize, traces: &'a dyn Fn() -> Vec<TraceContext>) -> Self {
        Self { consumer, events, traces }
    }
}

impl Debug for BatchBegins<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBegins")
            .field("consumer", &self.consumer)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

/// One batch of a consumer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchReport<'a> {
    /// The consumer.
    pub consumer: &'a str,
    /// The number of events it processed.
    pub events: usize,
    /// The position it has reached.
    pub position: Position,
    /// The number of positions between that and the head of the log.
    pub lag_events: u64,
    /// The age of the last event of the batch; zero if the consumer has caught up.
    pub lag: Duration,
    /// The time it took, from the first event to the end of the commit.
    pub duration: Duration,
}

impl<'a> BatchReport<'a> {
    /// Creates a report of a consumer that has caught up.
    pub fn new(consumer: &'a str, events: usize, position: Position, duration: Duration) -> Self {
        Self { consumer, events, position, lag_events: 0, lag: Duration::ZERO, duration }
    }

    /// Sets how far the consumer is behind.
    #[must_use]
    pub fn behind(mut self, events: u64, time: Duration) -> Self {
        (self.lag_events, self.lag) = (events, time);
        self
    }
}

/// One failed attempt of a consumer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailureReport<'a> {
    /// The consumer.
    pub consumer: &'a str,
    /// The category of the failure; one of a fixed set.
    pub category: &'a str,
}

impl<'a> FailureReport<'a> {
    /// Creates a report.
    pub fn new(consumer: &'a str, category: &'a str) -> Self {
        Self { consumer, category }
    }
}

/// A change in what a consumer has parked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ParkReport<'a> {
    /// The consumer.
    pub consumer: &'a str,
    /// The number of events that were parked by this change.
    pub events: usize,
    /// The number of events that are parked now.
    pub parked: u64,
}

impl<'a> ParkReport<'a> {
    /// Creates a report.
    pub fn new(consumer: &'a str, events: usize, parked: u64) -> Self {
        Self { consumer, events, parked }
    }
}

/// Something that was published to another system, or could not be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublishReport<'a> {
    /// The destination, one of a fixed set.
    pub destination: &'a str,
    /// The number of events.
    pub events: usize,
    /// Whether they were accepted.
    pub is_ok: bool,
    /// The number of events that are sent and not yet acknowledged.
    pub inflight: usize,
    /// The time it took.
    pub duration: Duration,
}

impl<'a> PublishReport<'a> {
    /// Creates a report of events that were accepted.
    pub fn new(destination: &'a str, events: usize, duration: Duration) -> Self {
        Self { destination, events, is_ok: true, inflight: 0, duration }
    }

    /// Sets whether they were accepted, and how many are not acknowledged yet.
    #[must_use]
    pub fn ended(mut self, is_ok: bool, inflight: usize) -> Self {
        (self.is_ok, self.inflight) = (is_ok, inflight);
        self
    }
}

/// A store that has an observer already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has an observer already; one observer can pass on what it is told")]
#[non_exhaustive]
pub struct AlreadyObserved;

/// An observer whose panics do no harm.
#[derive(Debug)]
pub(crate) struct Observed {
    observer: Arc<dyn Observer>,
    has_panicked: AtomicBool,
}

impl Observed {
    pub(super) fn by(observer: Arc<dyn Observer>) -> Self {
        Self { observer, has_panicked: AtomicBool::new(false) }
    }

    /// Makes a report.
    pub(crate) fn tell(&self, report: impl FnOnce(&dyn Observer)) {
        let told = panics::catch(|| report(&*self.observer));
        if let Err(panic) = told
            && !self.has_panicked.swap(true, Ordering::Relaxed)
        {
            tracing::error!(panic, "the observer of the store panicked; further panics of it are not logged");
        }
    }
}
