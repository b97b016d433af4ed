//! From what a store reports to metrics.

use std::sync::Arc;

use es_framework::observe::{
    AppendReport, BatchBegins, BatchReport, CommitReport, ExecuteReport, FailureReport, LoadReport, Observer,
    ParkReport, PublishReport, SnapshotResult,
};

use crate::sink::{Sink, Value};
use crate::table::{self, Metric};

/// Makes metrics of what a store reports; cheap to clone.
///
/// ```
/// use std::sync::Arc;
///
/// use es_framework::MemoryStore;
/// use es_telemetry::{Metric, Sink, Telemetry, Value};
///
/// /// Prints every value.
/// #[derive(Debug)]
/// struct Print;
///
/// impl Sink for Print {
///     fn take(&self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Value) {
///         println!("{} {labels:?} {value:?}", metric.name);
///     }
/// }
///
/// let store = MemoryStore::new();
/// let telemetry = Telemetry::to(Print);
/// store.observe(Arc::new(telemetry.clone()))?;
/// # Ok::<(), es_framework::observe::AlreadyObserved>(())
/// ```
#[derive(Debug, Clone)]
pub struct Telemetry {
    sinks: Arc<[Arc<dyn Sink>]>,
}

impl Telemetry {
    /// Sends metrics to a sink.
    pub fn to(sink: impl Sink) -> Self {
        Self { sinks: Arc::new([Arc::new(sink)]) }
    }

    /// Sends them to another sink too.
    #[must_use]
    pub fn and(&self, sink: impl Sink) -> Self {
        let sink: Arc<dyn Sink> = Arc::new(sink);
        Self { sinks: self.sinks.iter().cloned().chain([sink]).collect() }
    }

    pub(crate) fn take(&self, metric: &'static Metric, values: &[&str], value: Value) {
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        let mut labels = [("", ""); 2];
        let used = metric.labels.iter().zip(values).zip(&mut labels);
        let used = used.map(|((name, value), label)| *label = (name, value)).count();
        for sink in &*self.sinks {
            sink.take(metric, labels.get(..used).unwrap_or_default(), value);
        }
    }

    fn add(&self, metric: &'static Metric, values: &[&str], by: impl TryInto<u64>) {
        self.take(metric, values, Value::Add(by.try_into().unwrap_or(u64::MAX)));
    }

    pub(crate) fn set(&self, metric: &'static Metric, values: &[&str], to: f64) {
        self.take(metric, values, Value::Set(to));
    }

    fn record(&self, metric: &'static Metric, values: &[&str], value: f64) {
        self.take(metric, values, Value::Record(value));
    }
}

/// For a gauge or a histogram; exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 53 bits")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

fn count(count: usize) -> f64 {
    number(count as u64)
}

impl Observer for Telemetry {
    fn appended(&self, report: &AppendReport) {
        let outcome = [report.outcome.as_str()];
        self.add(table::APPEND_EVENTS, &outcome, report.events);
        self.record(table::APPEND_DURATION, &outcome, report.duration.as_secs_f64());
    }

    fn committed(&self, report: &CommitReport) {
        self.record(table::GROUP_SIZE, &[], count(report.writes));
        self.record(table::GROUP_DURATION, &[], report.duration.as_secs_f64());
        self.set(table::QUEUE_APPENDS, &[], count(report.queued));
        self.set(table::QUEUE_BYTES, &[], count(report.queued_bytes));
    }

    fn executed(&self, report: &ExecuteReport) {
        let category = report.category;
        self.record(table::EXECUTE_DURATION, &[category, report.outcome.as_str()], report.duration.as_secs_f64());
        self.add(table::EXECUTE_CONFLICTS, &[category], report.conflicts);
        if let Some(cached) = report.cached {
            self.add(table::CACHE, &[category, if cached { "hit" } else { "miss" }], 1_u64);
        }
    }

    fn loaded(&self, report: &LoadReport) {
        let category = report.category;
        let outcome = if report.is_ok { "ok" } else { "failed" };
        self.record(table::LOAD_EVENTS, &[category], number(report.events_replayed));
        self.record(table::LOAD_DURATION, &[category, outcome], report.duration.as_secs_f64());
        if report.snapshot != SnapshotResult::NotAsked {
            self.add(table::SNAPSHOT_LOADS, &[category, report.snapshot.as_str()], 1_u64);
        }
    }

    fn batch_begins(&self, batch: &BatchBegins<'_>) {
        #[cfg(feature = "otel")]
        crate::otel::link(batch);
        #[cfg(not(feature = "otel"))]
        let _: &BatchBegins<'_> = batch;
    }

    fn batch(&self, report: &BatchReport<'_>) {
        let consumer = [report.consumer];
        self.add(table::CONSUMER_EVENTS, &[report.consumer, "processed"], report.events);
        self.record(table::CONSUMER_BATCH, &consumer, report.duration.as_secs_f64());
        self.set(table::CONSUMER_POSITION, &consumer, number(report.position.get()));
        self.set(table::CONSUMER_LAG_EVENTS, &consumer, number(report.lag_events));
        self.set(table::CONSUMER_LAG_SECONDS, &consumer, report.lag.as_secs_f64());
    }

    fn failed(&self, report: &FailureReport<'_>) {
        self.add(table::CONSUMER_FAILURES, &[report.consumer, report.category], 1_u64);
    }

    fn parked(&self, report: &ParkReport<'_>) {
        if report.events > 0 {
            self.add(table::CONSUMER_EVENTS, &[report.consumer, "parked"], report.events);
        }
        self.set(table::CONSUMER_PARKED, &[report.consumer], number(report.parked));
    }

    fn published(&self, report: &PublishReport<'_>) {
        let destination = [report.destination];
        let result = if report.is_ok { "ok" } else { "failed" };
        self.add(table::RELAY_PUBLISHED, &[report.destination, result], report.events);
        self.set(table::RELAY_INFLIGHT, &destination, count(report.inflight));
        self.record(table::RELAY_DURATION, &destination, report.duration.as_secs_f64());
    }
}
