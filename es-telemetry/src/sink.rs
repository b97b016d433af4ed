//! Where values go.

use std::fmt::Debug;

use crate::table::Metric;

/// A new value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Adds to a counter.
    Add(u64),
    /// Sets a gauge.
    Set(f64),
    /// Adds a value to a histogram.
    Record(f64),
}

/// A destination for metrics.
///
/// This crate has two, `Facade` and `Meters`; implement it for another one.
pub trait Sink: Debug + Send + Sync + 'static {
    /// Takes a value; the labels are those of the metric, in its order.
    fn take(&self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Value);
}
