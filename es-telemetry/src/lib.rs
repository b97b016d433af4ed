//! Metrics, traces, dashboards, alerts and health checks for stores and consumers of `es-framework`.
//!
//! It is *not* an exporter: metrics go to the facade `metrics` or to OpenTelemetry, and spans to whatever subscriber of
//! `tracing` the program has. It serves no HTTP either.
//!
//! Everything is made from one table, [`METRICS`]: what is emitted, the [`dashboard`] of Grafana, the [`alerts`] of
//! Prometheus. Both are in the repository, in `docs/grafana`.

mod buckets;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "otel")]
mod otel;
mod sink;
mod table;
mod telemetry;

pub use buckets::{BUCKETS_OF_COUNTS, BUCKETS_OF_SECONDS};
#[cfg(feature = "metrics")]
pub use facade::Facade;
#[cfg(feature = "otel")]
pub use otel::{Meters, continue_trace, traced};
pub use sink::{Sink, Value};
pub use table::{Kind, METRICS, Metric, Unit};
pub use telemetry::Telemetry;
