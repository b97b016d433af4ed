//! The files in `docs/grafana` are what is generated, and name nothing that is not in the table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use es_telemetry::{Kind, METRICS, alerts, dashboard};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana").join(name)
}

/// A file of the repository, after it was written if `ES_UPDATE=1` is set.
fn read_or_update(name: &str, generated: &str) -> String {
    let file = file(name);
    if std::env::var_os("ES_UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, generated).unwrap();
    }
    fs::read_to_string(&file).unwrap_or_default()
}

fn dashboard_text() -> String {
    format!("{:#}\n", dashboard())
}

#[test]
fn the_files_are_what_is_generated() {
    let why = "docs/grafana is not what is generated; write it with ES_UPDATE=1";
    // As values: with `preserve_order` somewhere in the build, the text has another order.
    let found: serde_json::Value = serde_json::from_str(&read_or_update("es.json", &dashboard_text())).unwrap();
    assert!(found == dashboard(), "{why}");
    assert!(read_or_update("alerts.yml", &alerts()) == alerts(), "{why}");
}

/// The names of metrics in a text: `es_` and what follows.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("es_"));
    words.filter(|word| *word != "es_telemetry").map(ToOwned::to_owned).collect()
}

#[test]
fn every_expression_names_metrics_of_the_table_as_prometheus_has_them() {
    let mut known = BTreeSet::new();
    for metric in METRICS {
        let name = metric.prometheus();
        match metric.kind {
            Kind::Histogram => known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))),
            _ => drop(known.insert(name)),
        }
    }
    for text in [dashboard_text(), alerts()] {
        let named = named(&text);
        assert!(named.len() > 8);
        assert!(named.is_subset(&known), "{:?}", named.difference(&known).collect::<Vec<_>>());
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let shown = named(&dashboard_text());
    for metric in METRICS {
        let name = metric.prometheus();
        assert!(shown.iter().any(|shown| shown.starts_with(&name)), "{name} is not on the dashboard");
    }
}

/// `sum by (label)` over a metric without that label shows one curve without a name.
#[test]
fn legends_and_groupings_use_labels_that_the_metric_has() {
    let dashboard = dashboard();
    let mut checked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (expr, legend) = (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap());
            let name = named(expr).pop_first().unwrap();
            let metric = METRICS.iter().find(|metric| name.starts_with(&metric.prometheus())).unwrap();
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                assert!(metric.labels.contains(&label), "{legend} of {name}");
                assert!(expr.contains(label), "{expr} keeps {label}");
                checked += 1;
            }
        }
    }
    assert!(checked > 20);
}

/// Each alert says where the guide says what to do.
#[test]
fn every_alert_leads_to_a_section_of_the_guide() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/consumers.md")).unwrap();
    let anchor = |heading: &str| {
        heading.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ', "").replace(' ', "-")
    };
    let headings = guide.lines().filter_map(|line| line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")));
    let anchors: BTreeSet<_> = headings.map(anchor).collect();
    let alerts = alerts();
    let wanted: BTreeSet<_> =
        alerts.split("docs/consumers.md#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(wanted.len() > 4);
    for section in wanted {
        assert!(anchors.contains(section), "there is no section {section} in docs/consumers.md");
    }
}
