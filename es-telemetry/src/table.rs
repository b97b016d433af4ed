//! The one table of metrics, from which everything else is made.

/// What kind of a value a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A number of things; says which, in the singular.
    Of(&'static str),
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// In the notation of [UCUM](https://ucum.org/ucum), as OpenTelemetry wants it.
    pub fn ucum(self) -> String {
        match self {
            Self::Of(thing) => format!("{{{thing}}}"),
            Self::Seconds => "s".to_owned(),
            Self::Bytes => "By".to_owned(),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Of(_) => "",
            Self::Seconds => "_seconds",
            Self::Bytes => "_bytes",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, in the notation of OpenTelemetry.
    pub name: &'static str,
    /// What kind of a value it has.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The names of its labels, each with a bounded number of values.
    pub labels: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
}

impl Metric {
    /// Its name in Prometheus: with underscores, its unit, and `_total` if it is a counter.
    ///
    /// OpenTelemetry's exporters and Prometheus's receiver for OTLP make this of it, and so does
    /// `metrics-exporter-prometheus` with `with_recommended_naming(true)`.
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        if !name.ends_with(self.unit.suffix()) {
            name.push_str(self.unit.suffix());
        }
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

macro_rules! table {
    ($($constant:ident: $kind:ident, $unit:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub(crate) const $constant: &Metric = &Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric that this crate emits.
        ///
        /// No label names a stream, an event or a tenant: their number has no bound.
        pub const METRICS: &[&Metric] = &[$($constant),*];
    };
}

table! {
    APPEND_EVENTS: Counter, Unit::Of("event"), "es.append.events", ["outcome"],
        "Events of appends, by how the append ended";
    APPEND_DURATION: Histogram, Unit::Seconds, "es.append.duration", ["outcome"],
        "Time from the call of an append to its result, waiting included";
    GROUP_SIZE: Histogram, Unit::Of("append"), "es.append.group.size", [],
        "Writes that shared a commit";
    GROUP_DURATION: Histogram, Unit::Seconds, "es.append.group.duration", [],
        "Time from the beginning of a shared transaction to the end of its commit";
    QUEUE_APPENDS: Gauge, Unit::Of("append"), "es.queue.appends", [],
        "Writes that waited after the last commit";
    QUEUE_BYTES: Gauge, Unit::Bytes, "es.queue.bytes", [],
        "What the writes that waited after the last commit take in the queue";

    EXECUTE_DURATION: Histogram, Unit::Seconds, "es.execute.duration", ["category", "outcome"],
        "Time of a command, from its first poll to its result";
    EXECUTE_CONFLICTS: Counter, Unit::Of("conflict"), "es.execute.conflicts", ["category"],
        "Decisions that were made again because another writer was faster";
    LOAD_EVENTS: Histogram, Unit::Of("event"), "es.load.events_replayed", ["category"],
        "Events that were folded to load an aggregate or to bring a cached one up to date";
    LOAD_DURATION: Histogram, Unit::Seconds, "es.load.duration", ["category", "outcome"],
        "Time of a load";
    SNAPSHOT_LOADS: Counter, Unit::Of("load"), "es.snapshot.loads", ["category", "result"],
        "Loads that asked for a snapshot, by what became of it";
    CACHE: Counter, Unit::Of("command"), "es.cache", ["category", "result"],
        "Commands, by whether the repository had the state of the aggregate";

    STORE_POSITION: Gauge, Unit::Of("event"), "es.store.position", [],
        "Position of the newest event";
    STORE_BYTES: Gauge, Unit::Bytes, "es.store.bytes", [],
        "Size of the database file";
    WAL_BYTES: Gauge, Unit::Bytes, "es.wal.bytes", [],
        "Size of the write-ahead log next to the database file";

    CONSUMER_POSITION: Gauge, Unit::Of("event"), "es.consumer.position", ["consumer"],
        "Position that a consumer has reached";
    CONSUMER_LAG_EVENTS: Gauge, Unit::Of("event"), "es.consumer.lag.events", ["consumer"],
        "Positions between a consumer and the head of the log";
    CONSUMER_LAG_SECONDS: Gauge, Unit::Seconds, "es.consumer.lag.seconds", ["consumer"],
        "How far a consumer is behind in time; 0 if it has caught up";
    CONSUMER_STATE: Gauge, Unit::Of("state"), "es.consumer.state", ["consumer", "state"],
        "1 for the state that a consumer is in, 0 for the others";
    CONSUMER_EVENTS: Counter, Unit::Of("event"), "es.consumer.events", ["consumer", "result"],
        "Events of a consumer that were processed or parked";
    CONSUMER_FAILURES: Counter, Unit::Of("failure"), "es.consumer.failures", ["consumer", "category"],
        "Failed attempts of a consumer, by what failed";
    CONSUMER_PARKED: Gauge, Unit::Of("event"), "es.consumer.parked", ["consumer"],
        "Events of a consumer that are parked";
    CONSUMER_PARKED_OLDEST: Gauge, Unit::Seconds, "es.consumer.parked.oldest.seconds", ["consumer"],
        "Age of the oldest event that a consumer has parked; 0 if there is none";
    CONSUMER_BATCH: Histogram, Unit::Seconds, "es.consumer.batch.duration", ["consumer"],
        "Time of a batch, from its first event to the end of its commit";
    REBUILD_PROGRESS: Gauge, Unit::Of("share"), "es.rebuild.progress", ["consumer"],
        "Share of the log that a rebuild has processed; 1 while there is none";

    RELAY_PUBLISHED: Counter, Unit::Of("event"), "es.relay.published", ["destination", "result"],
        "Events that were published to another system";
    RELAY_INFLIGHT: Gauge, Unit::Of("event"), "es.relay.inflight", ["destination"],
        "Events that were sent to another system and are not acknowledged yet";
    RELAY_DURATION: Histogram, Unit::Seconds, "es.relay.duration", ["destination"],
        "Time from sending events to another system to its acknowledgement";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_here_and_in_prometheus() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        let prometheus: BTreeSet<_> = METRICS.iter().map(|metric| metric.prometheus()).collect();
        assert_eq!((names.len(), prometheus.len()), (METRICS.len(), METRICS.len()));
        assert!(METRICS.iter().all(|metric| metric.name.starts_with("es.")));
    }

    #[test]
    fn a_unit_is_said_once() {
        assert_eq!(CONSUMER_LAG_SECONDS.prometheus(), "es_consumer_lag_seconds");
        assert_eq!(APPEND_DURATION.prometheus(), "es_append_duration_seconds");
        assert_eq!(APPEND_EVENTS.prometheus(), "es_append_events_total");
    }

    /// A label with a value for each stream takes down what collects it.
    #[test]
    fn no_label_names_what_has_no_bound() {
        let allowed = ["outcome", "category", "result", "consumer", "state", "destination"];
        for metric in METRICS {
            assert!(metric.labels.iter().all(|label| allowed.contains(label)), "{}", metric.name);
        }
    }
}
