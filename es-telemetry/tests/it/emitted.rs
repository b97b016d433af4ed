//! Every metric of the table is emitted, with the labels and under the name that the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use es_framework::observe::{Observer, PublishReport};
use es_framework::testing::{caught_up, eventually};
use es_framework::{Backoff, ExpectedVersion, Policy, Projection, Repository, StateModel, Store};
use es_sqlite::SqliteStore;
use es_telemetry::{
    BUCKETS_OF_COUNTS, BUCKETS_OF_SECONDS, Bounds, ConsumerView, Facade, Kind, METRICS, Meters, Metric, Sink,
    Telemetry, Value, health,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

use crate::bank::{Account, SECRET, Totals, deposit};

const SOON: Duration = Duration::from_secs(30);

/// Everything that can be measured happens at least once.
async fn everything_happens(telemetry: &Telemetry) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db");
    let sqlite = SqliteStore::open(&file).await.unwrap();
    let store = Store::from(&sqlite);
    store.observe(Arc::new(telemetry.clone())).unwrap();

    let accounts = Repository::<Account>::new(&store);
    for cents in [5, 7, 11] {
        accounts.execute("alice", deposit(cents)).await.unwrap();
    }
    accounts.execute("alice", deposit(0)).await.unwrap_err();
    accounts.snapshots_settled().await;
    Repository::<Account>::new(&store).load("alice").await.unwrap();
    // A conflict: another repository has written meanwhile.
    Repository::<Account>::new(&store).execute("alice", deposit(1)).await.unwrap();
    accounts.execute("alice", deposit(1)).await.unwrap();
    let taken = es_framework::CandidateEvent::new("account.deposited", "").unwrap();
    store.open_stream("account-alice").unwrap().write(taken, ExpectedVersion::NoStream).await.unwrap_err();

    // An event that the projector refuses is parked after two attempts.
    let mut policy = Policy::park();
    policy.user_code = Backoff::new(2, Duration::from_millis(1), Duration::from_millis(1));
    let totals = Projection::new(&store, Totals, StateModel::new(&store)).policy(policy).start().await.unwrap();
    let refused = accounts.execute("bob", deposit(13)).await.unwrap();
    caught_up([&totals], refused.position, SOON).await.unwrap();
    eventually("parking", SOON, async || totals.status().parked == 1).await.unwrap();
    let parked = ConsumerView::of(&totals).await;
    assert!(parked.oldest_parked.is_some());
    telemetry.sample(&store, std::slice::from_ref(&parked)).await;
    telemetry.sample_files(&file);

    // Readiness fails on it, and recovers when it is allowed.
    let sick = health(&store, std::slice::from_ref(&parked), &Bounds::default()).await;
    assert_eq!(
        sick.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["totals has parked 1 events, and may have 0"]
    );
    assert!(health(&store, &[parked], &Bounds::default().parked(1)).await.ready);
    totals.stop().await.unwrap();
    let stopped = ConsumerView::of(&totals).await;
    assert!(!health(&store, &[stopped], &Bounds::default().parked(1)).await.ready);

    // There are no relays yet: this report is made by hand.
    telemetry.published(&PublishReport::new("memory", 1, Duration::from_millis(1)));
}

/// Checks a page of Prometheus against the table.
fn check(page: &str) {
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in page.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kinds.insert(name, kind);
        } else if let Some((name, rest)) = line.split_once('{') {
            let found = rest.split_once('}').unwrap().0.split("\",").map(|pair| pair.split_once('=').unwrap().0);
            labels.entry(name).or_default().extend(found);
        }
    }
    for metric in METRICS {
        let name = metric.prometheus();
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            _ => "histogram",
        };
        assert_eq!(kinds.remove(name.as_str()), Some(kind), "{name} is emitted");
        let shown = if metric.kind == Kind::Histogram { format!("{name}_bucket") } else { name };
        let mut found = labels.remove(shown.as_str()).unwrap_or_default();
        found.remove("le");
        assert_eq!(found, metric.labels.iter().copied().collect(), "the labels of {shown}");
    }
    assert!(kinds.is_empty(), "what is emitted is in the table: {kinds:?}");
}

#[tokio::test]
async fn every_metric_is_emitted_through_the_facade_under_its_name_in_prometheus() {
    let recorder = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Suffix("duration".to_owned()), BUCKETS_OF_SECONDS)
        .unwrap()
        .set_buckets(BUCKETS_OF_COUNTS)
        .unwrap()
        .build_recorder();
    let page = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    everything_happens(&Telemetry::to(Facade::new())).await;
    let page = page.render();
    check(&page);
    assert!(!page.contains("alice") && !page.contains(SECRET), "no label names a stream or what is in it");
    for line in [
        "es_append_events_total{outcome=\"written\"} 6",
        "es_append_events_total{outcome=\"conflict\"} 2",
        "es_execute_conflicts_total{category=\"account\"} 1",
        "es_consumer_events_total{consumer=\"totals\",result=\"parked\"} 1",
        "es_consumer_failures_total{consumer=\"totals\",category=\"user code\"} 2",
        "es_consumer_parked{consumer=\"totals\"} 1",
        "es_consumer_state{consumer=\"totals\",state=\"live\"} 1",
        "es_consumer_state{consumer=\"totals\",state=\"failed\"} 0",
        "es_store_position 6",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn every_metric_is_emitted_through_open_telemetry() {
    let exporter = InMemoryMetricExporter::default();
    let provider = SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
    everything_happens(&Telemetry::to(Meters::of(&provider.meter("es")))).await;
    provider.force_flush().unwrap();
    let exported = exporter.get_finished_metrics().unwrap();
    let mut units = BTreeMap::new();
    for metric in exported.iter().flat_map(ResourceMetrics::scope_metrics).flat_map(ScopeMetrics::metrics) {
        units.insert(metric.name().to_owned(), metric.unit().to_owned());
    }
    let expected = METRICS.iter().map(|metric| (metric.name.to_owned(), metric.unit.ucum())).collect();
    assert_eq!(units, expected);
    assert!(!format!("{exported:?}").contains("alice"));
}

/// Notes what does not fit the table: it must not panic, because the store catches the panics of observers.
#[derive(Debug, Default)]
struct Strict {
    values: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Shared(Arc<Strict>);

impl Sink for Shared {
    fn take(&self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Value) {
        self.0.values.fetch_add(1, Ordering::Relaxed);
        let names: Vec<_> = labels.iter().map(|(name, _)| *name).collect();
        let fits = match metric.kind {
            Kind::Counter => matches!(value, Value::Add(_)),
            Kind::Gauge => matches!(value, Value::Set(_)),
            _ => matches!(value, Value::Record(_)),
        };
        if names != metric.labels || !fits {
            self.0.wrong.lock().unwrap().push(format!("{} {labels:?} {value:?}", metric.name));
        }
    }
}

#[tokio::test]
async fn each_sink_is_told_values_that_fit_the_table() {
    let sinks = [Arc::<Strict>::default(), Arc::default()];
    let [first, second] = sinks.each_ref().map(|sink| Shared(Arc::clone(sink)));
    everything_happens(&Telemetry::to(first).and(second)).await;
    let [first, second] = sinks.each_ref().map(|sink| sink.values.load(Ordering::Relaxed));
    assert!(first > 60 && first == second, "{first} and {second}");
    for sink in sinks {
        assert!(sink.wrong.lock().unwrap().is_empty(), "{:?}", sink.wrong);
    }
}
