//! The facade `metrics`.

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, with_recorder};

use crate::sink::{Sink, Value};
use crate::table::{Kind, METRICS, Metric, Unit};

/// Sends metrics to the recorder of the facade [`metrics`], and so to whichever exporter the program has installed.
///
/// Install the exporter first. For Prometheus, use `metrics-exporter-prometheus` with `with_recommended_naming(true)`,
/// so that names are those of the dashboard, and with buckets, so that distributions can be added up:
///
/// ```
/// use es_telemetry::{BUCKETS_OF_COUNTS, BUCKETS_OF_SECONDS, Facade, Telemetry};
/// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorder = PrometheusBuilder::new()
///     .with_recommended_naming(true)
///     .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), BUCKETS_OF_SECONDS)?
///     .set_buckets(BUCKETS_OF_COUNTS)?
///     .build_recorder();
/// let page = recorder.handle(); // `page.render()` is what `/metrics` returns
/// metrics::set_global_recorder(recorder)?;
/// let telemetry = Telemetry::to(Facade::new());
/// # drop((page, telemetry));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Facade;

const METADATA: Metadata<'static> = Metadata::new("es_telemetry", Level::INFO, Some(module_path!()));

impl Facade {
    /// Describes every metric to the recorder that is installed now.
    pub fn new() -> Self {
        with_recorder(|recorder| {
            for metric in METRICS {
                describe(recorder, metric);
            }
        });
        Self
    }
}

fn describe(recorder: &dyn Recorder, metric: &'static Metric) {
    let unit = match metric.unit {
        Unit::Of(_) => metrics::Unit::Count,
        Unit::Seconds => metrics::Unit::Seconds,
        Unit::Bytes => metrics::Unit::Bytes,
    };
    let (name, help) = (metric.name.into(), SharedString::const_str(metric.help));
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, Some(unit), help),
        Kind::Gauge => recorder.describe_gauge(name, Some(unit), help),
        Kind::Histogram => recorder.describe_histogram(name, Some(unit), help),
    }
}

impl Sink for Facade {
    fn take(&self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Value) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        let key = Key::from_parts(metric.name, labels);
        with_recorder(|recorder| match value {
            Value::Add(by) => recorder.register_counter(&key, &METADATA).increment(by),
            Value::Set(to) => recorder.register_gauge(&key, &METADATA).set(to),
            Value::Record(value) => recorder.register_histogram(&key, &METADATA).record(value),
        });
    }
}
