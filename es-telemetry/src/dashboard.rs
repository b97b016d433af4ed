//! The dashboard of Grafana.

use serde_json::{Value, json};

use crate::promql::{PANEL, count, greatest, mean, quantile, rate};
use crate::table::{self as t, Metric};

/// A graph: its title, the unit of Grafana, and its curves with their legends.
struct Panel {
    title: &'static str,
    help: &'static str,
    unit: &'static str,
    curves: Vec<(String, &'static str)>,
}

fn panel(title: &'static str, of: &Metric, unit: &'static str, curves: Vec<(String, &'static str)>) -> Panel {
    Panel { title, help: of.help, unit, curves }
}

/// The median and the slowest hundredth.
fn slowness(title: &'static str, metric: &Metric, unit: &'static str) -> Panel {
    let curves = vec![(quantile(0.5, metric, &[], PANEL), "median"), (quantile(0.99, metric, &[], PANEL), "p99")];
    panel(title, metric, unit, curves)
}

fn rows() -> Vec<(&'static str, Vec<Panel>)> {
    let consumers = &["consumer"][..];
    let of_consumer =
        |title, metric, unit| panel(title, metric, unit, vec![(greatest(metric, "", consumers), "{{consumer}}")]);
    let by_category = |title, metric, unit| {
        panel(title, metric, unit, vec![(quantile(0.99, metric, &["category"], PANEL), "{{category}}")])
    };
    vec![
        (
            "Consumers",
            vec![
                panel(
                    "State",
                    t::CONSUMER_STATE,
                    "short",
                    vec![(
                        format!("{} == 1", greatest(t::CONSUMER_STATE, "", &["consumer", "state"])),
                        "{{consumer}}: {{state}}",
                    )],
                ),
                of_consumer("Lag in time", t::CONSUMER_LAG_SECONDS, "s"),
                of_consumer("Lag in events", t::CONSUMER_LAG_EVENTS, "short"),
                panel(
                    "Events",
                    t::CONSUMER_EVENTS,
                    "ops",
                    vec![(rate(t::CONSUMER_EVENTS, "", &["consumer", "result"], PANEL), "{{consumer}} {{result}}")],
                ),
                panel(
                    "Failures",
                    t::CONSUMER_FAILURES,
                    "ops",
                    vec![(
                        rate(t::CONSUMER_FAILURES, "", &["consumer", "category"], PANEL),
                        "{{consumer}}: {{category}}",
                    )],
                ),
                of_consumer("Parked", t::CONSUMER_PARKED, "short"),
                of_consumer("Oldest parked event", t::CONSUMER_PARKED_OLDEST, "s"),
                panel(
                    "Batches, p99",
                    t::CONSUMER_BATCH,
                    "s",
                    vec![(quantile(0.99, t::CONSUMER_BATCH, consumers, PANEL), "{{consumer}}")],
                ),
                panel(
                    "Position",
                    t::CONSUMER_POSITION,
                    "short",
                    vec![
                        (greatest(t::CONSUMER_POSITION, "", consumers), "{{consumer}}"),
                        (greatest(t::STORE_POSITION, "", &[]), "head of the log"),
                    ],
                ),
                of_consumer("Rebuilds", t::REBUILD_PROGRESS, "percentunit"),
            ],
        ),
        (
            "Writing",
            vec![
                panel(
                    "Events",
                    t::APPEND_EVENTS,
                    "ops",
                    vec![(rate(t::APPEND_EVENTS, "", &["outcome"], PANEL), "{{outcome}}")],
                ),
                slowness("Appends", t::APPEND_DURATION, "s"),
                panel("Writes in a commit", t::GROUP_SIZE, "short", vec![(mean(t::GROUP_SIZE, PANEL), "mean")]),
                slowness("Commits", t::GROUP_DURATION, "s"),
                panel("Queue", t::QUEUE_APPENDS, "short", vec![(greatest(t::QUEUE_APPENDS, "", &[]), "writes")]),
                panel("Queue in bytes", t::QUEUE_BYTES, "bytes", vec![(greatest(t::QUEUE_BYTES, "", &[]), "bytes")]),
            ],
        ),
        (
            "Commands",
            vec![
                panel(
                    "Commands",
                    t::EXECUTE_DURATION,
                    "ops",
                    vec![(count(t::EXECUTE_DURATION, "", &["category", "outcome"], PANEL), "{{category}} {{outcome}}")],
                ),
                by_category("Commands, p99", t::EXECUTE_DURATION, "s"),
                panel(
                    "Conflicts",
                    t::EXECUTE_CONFLICTS,
                    "ops",
                    vec![(rate(t::EXECUTE_CONFLICTS, "", &["category"], PANEL), "{{category}}")],
                ),
                panel(
                    "Cache",
                    t::CACHE,
                    "ops",
                    vec![(rate(t::CACHE, "", &["category", "result"], PANEL), "{{category}} {{result}}")],
                ),
                by_category("Loads, p99", t::LOAD_DURATION, "s"),
                by_category("Events replayed, p99", t::LOAD_EVENTS, "short"),
                panel(
                    "Snapshots",
                    t::SNAPSHOT_LOADS,
                    "ops",
                    vec![(rate(t::SNAPSHOT_LOADS, "", &["category", "result"], PANEL), "{{category}} {{result}}")],
                ),
            ],
        ),
        (
            "Store",
            vec![
                panel("Database", t::STORE_BYTES, "bytes", vec![(greatest(t::STORE_BYTES, "", &[]), "database")]),
                panel("Write-ahead log", t::WAL_BYTES, "bytes", vec![(greatest(t::WAL_BYTES, "", &[]), "-wal")]),
            ],
        ),
        (
            "Relays",
            vec![
                panel(
                    "Published",
                    t::RELAY_PUBLISHED,
                    "ops",
                    vec![(
                        rate(t::RELAY_PUBLISHED, "", &["destination", "result"], PANEL),
                        "{{destination}} {{result}}",
                    )],
                ),
                panel(
                    "Not acknowledged",
                    t::RELAY_INFLIGHT,
                    "short",
                    vec![(greatest(t::RELAY_INFLIGHT, "", &["destination"]), "{{destination}}")],
                ),
                panel(
                    "Publishing, p99",
                    t::RELAY_DURATION,
                    "s",
                    vec![(quantile(0.99, t::RELAY_DURATION, &["destination"], PANEL), "{{destination}}")],
                ),
            ],
        ),
    ]
}

/// The dashboard of Grafana for the metrics of the table, as JSON to import. It asks for a data source of Prometheus.
///
/// The repository has it as `docs/grafana/es.json`.
pub fn dashboard() -> Value {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let (mut panels, mut y) = (Vec::new(), 0);
    for (title, row) in rows() {
        panels.push(json!({
            "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false, "panels": [],
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        }));
        y += 1;
        let lines = row.len().div_ceil(3);
        for (number, panel) in row.into_iter().enumerate() {
            let targets = panel.curves.iter().zip('A'..).map(|((expr, legend), id)| {
                json!({"refId": id.to_string(), "datasource": source, "expr": expr, "legendFormat": legend})
            });
            panels.push(json!({
                "id": panels.len() + 1, "type": "timeseries", "title": panel.title, "description": panel.help,
                "datasource": source, "targets": targets.collect::<Vec<_>>(),
                "gridPos": {"h": 8, "w": 8, "x": number % 3 * 8, "y": y + number / 3 * 8},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
            }));
        }
        y += lines * 8;
    }
    json!({
        "uid": "es-framework", "title": "Event store and consumers", "tags": ["es-framework"],
        "schemaVersion": 39, "version": 1, "editable": true, "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        ]},
        "panels": panels,
    })
}
