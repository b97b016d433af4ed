//! Metrics, traces, dashboards, alerts and health checks for stores and consumers of `es-framework`.
//!
//! It is *not* an exporter: metrics go to the facade `metrics` or to OpenTelemetry, and spans to whatever subscriber of
//! `tracing` the program has. It serves no HTTP either.
//!
//! Everything is made from one table, [`METRICS`]: what is emitted, the [`dashboard`] of Grafana, the [`alerts`] of
//! Prometheus. Both are in the repository, in `docs/grafana`.

mod alerts;
mod buckets;
mod consumer;
mod dashboard;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(doctest)]
mod guides;
mod health;
#[cfg(feature = "otel")]
mod otel;
mod promql;
mod sample;
mod sink;
mod table;
mod telemetry;

pub use alerts::alerts;
pub use buckets::{BUCKETS_OF_COUNTS, BUCKETS_OF_SECONDS};
pub use consumer::ConsumerView;
pub use dashboard::dashboard;
#[cfg(feature = "metrics")]
pub use facade::Facade;
pub use health::{Bounds, Health, Reason, health};
#[cfg(feature = "otel")]
pub use otel::{Meters, continue_trace, traced};
pub use sink::{Sink, Value};
pub use table::{Kind, METRICS, Metric, Unit};
pub use telemetry::Telemetry;
