//! Expressions of PromQL, made from metrics of the table.

use crate::table::Metric;

/// The window of rates: chosen by Grafana for the width of a panel, or fixed in an alert.
pub(crate) const PANEL: &str = "$__rate_interval";
pub(crate) const ALERT: &str = "5m";

/// The labels that are kept, as `sum by (…)` wants them.
fn by(labels: &[&str]) -> String {
    if labels.is_empty() { String::new() } else { format!(" by ({})", labels.join(", ")) }
}

/// The rate of a counter for each second.
pub(crate) fn rate(metric: &Metric, only: &str, labels: &[&str], window: &str) -> String {
    format!("sum{} (rate({}{only}[{window}]))", by(labels), metric.prometheus())
}

/// The rate at which values are added to a histogram.
pub(crate) fn count(metric: &Metric, only: &str, labels: &[&str], window: &str) -> String {
    format!("sum{} (rate({}_count{only}[{window}]))", by(labels), metric.prometheus())
}

/// The mean of a histogram.
pub(crate) fn mean(metric: &Metric, window: &str) -> String {
    let name = metric.prometheus();
    format!("sum (rate({name}_sum[{window}])) / sum (rate({name}_count[{window}]))")
}

/// A quantile of a histogram, such as 0.99.
pub(crate) fn quantile(quantile: f64, metric: &Metric, labels: &[&str], window: &str) -> String {
    let labels: Vec<_> = ["le"].iter().chain(labels).copied().collect();
    format!("histogram_quantile({quantile}, sum{} (rate({}_bucket[{window}])))", by(&labels), metric.prometheus())
}

/// The greatest value of a gauge: several processes may report the same thing.
pub(crate) fn greatest(metric: &Metric, only: &str, labels: &[&str]) -> String {
    format!("max{} ({}{only})", by(labels), metric.prometheus())
}
