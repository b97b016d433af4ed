//! The rules of Prometheus that wake somebody up.

use std::fmt::Write as _;

use crate::promql::{ALERT, count, greatest, quantile, rate};
use crate::table as t;

/// A rule: when it fires, and the section of the guide that says what to do.
struct Rule {
    name: &'static str,
    expression: String,
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    section: &'static str,
}

const GUIDE: &str = "docs/consumers.md";

fn rules() -> Vec<Rule> {
    let consumer = &["consumer"][..];
    let state = |state| format!("{} == 1", greatest(t::CONSUMER_STATE, &format!("{{state=\"{state}\"}}"), consumer));
    let appends = |outcome| count(t::APPEND_DURATION, &format!("{{outcome=\"{outcome}\"}}"), &[], ALERT);
    vec![
        Rule {
            name: "EsConsumerFailed",
            expression: state("failed"),
            lasts: "1m",
            severity: "critical",
            summary: "{{ $labels.consumer }} has failed and stays down until it is started again",
            section: "a-consumer-is-down",
        },
        Rule {
            name: "EsConsumerRetrying",
            expression: state("retrying"),
            lasts: "5m",
            severity: "warning",
            summary: "{{ $labels.consumer }} cannot process an event and tries again",
            section: "a-poison-event",
        },
        Rule {
            name: "EsConsumerWaiting",
            expression: state("waiting"),
            lasts: "5m",
            severity: "critical",
            summary: "the read model of {{ $labels.consumer }}, or the log, is out of order",
            section: "the-read-model-is-down",
        },
        Rule {
            name: "EsConsumerLagging",
            expression: format!("{} > 60", greatest(t::CONSUMER_LAG_SECONDS, "", consumer)),
            lasts: "5m",
            severity: "warning",
            summary: "{{ $labels.consumer }} is more than a minute behind",
            section: "a-consumer-lags",
        },
        Rule {
            name: "EsConsumerParked",
            expression: format!("{} > 0", greatest(t::CONSUMER_PARKED, "", consumer)),
            lasts: "1m",
            severity: "warning",
            summary: "{{ $labels.consumer }} has parked events, and later ones of their keys wait behind them",
            section: "parked-keys",
        },
        Rule {
            name: "EsConsumerParkedForLong",
            expression: format!("{} > 86400", greatest(t::CONSUMER_PARKED_OLDEST, "", consumer)),
            lasts: "5m",
            severity: "critical",
            summary: "{{ $labels.consumer }} has had an event parked for more than a day",
            section: "parked-keys",
        },
        Rule {
            name: "EsAppendsFail",
            expression: format!("{} > 0", appends("failed")),
            lasts: "1m",
            severity: "critical",
            summary: "the store cannot write",
            section: "the-disk-is-full",
        },
        Rule {
            name: "EsAppendsBusy",
            expression: format!("{} > 0", appends("busy")),
            lasts: "5m",
            severity: "warning",
            summary: "appends are refused because the queue is full, the store busy or the disk full",
            section: "the-disk-is-full",
        },
        Rule {
            name: "EsAppendsSlow",
            expression: format!("{} > 1", quantile(0.99, t::APPEND_DURATION, &[], ALERT)),
            lasts: "10m",
            severity: "warning",
            summary: "one append in a hundred takes longer than a second",
            section: "the-disk-is-full",
        },
        Rule {
            name: "EsConflicts",
            expression: format!(
                "{} / {} > 0.2",
                rate(t::EXECUTE_CONFLICTS, "", &["category"], ALERT),
                count(t::EXECUTE_DURATION, "", &["category"], ALERT)
            ),
            lasts: "15m",
            severity: "warning",
            summary: "of five commands on {{ $labels.category }}, more than one is decided again: its aggregates are too large, or written by several processes",
            section: "more-alerts",
        },
        Rule {
            name: "EsWriteAheadLogLarge",
            expression: format!("{} > 268435456", greatest(t::WAL_BYTES, "", &[])),
            lasts: "10m",
            severity: "warning",
            summary: "the -wal file is larger than 256 MiB: a reader keeps it from being emptied",
            section: "more-alerts",
        },
        Rule {
            name: "EsRelayFails",
            expression: format!("{} > 0", rate(t::RELAY_PUBLISHED, "{result=\"failed\"}", &["destination"], ALERT)),
            lasts: "5m",
            severity: "critical",
            summary: "{{ $labels.destination }} does not accept events",
            section: "more-alerts",
        },
    ]
}

/// The alert rules of Prometheus for the metrics of the table, as YAML. The annotation `guide` names the section of the
/// guide that says what to do.
///
/// The repository has them as `docs/grafana/alerts.yml`.
pub fn alerts() -> String {
    let mut yaml = "# Made by es_telemetry::alerts; do not edit.\ngroups:\n  - name: es\n    rules:\n".to_owned();
    for Rule { name, expression, lasts, severity, summary, section } in rules() {
        // A string of JSON is one of YAML.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let _ = write!(
            yaml,
            "      - alert: {name}\n        expr: {}\n        for: {lasts}\n        labels:\n          severity: {severity}\n        \
             annotations:\n          summary: {}\n          guide: {}\n",
            quoted(&expression),
            quoted(summary),
            quoted(&format!("{GUIDE}#{section}")),
        );
    }
    yaml
}
