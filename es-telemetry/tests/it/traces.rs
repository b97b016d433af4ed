//! A request, its command, the events and their projection are one story of linked spans.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use es_framework::observe::TraceContext;
use es_framework::testing::caught_up;
use es_framework::{Projection, Repository, StateModel, Store};
use es_sqlite::SqliteStore;
use es_telemetry::{ConsumerView, Sink, Telemetry, continue_trace, traced};
use opentelemetry::trace::{SpanId, SpanKind, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::bank::{Account, SECRET, Totals, deposit};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[derive(Debug)]
struct Nowhere;

impl Sink for Nowhere {
    fn take(&self, _: &'static es_telemetry::Metric, _: &[(&'static str, &str)], _: es_telemetry::Value) {}
}

async fn open(file: &Path) -> Store {
    let store = Store::from(SqliteStore::open(file).await.unwrap());
    store.observe(Arc::new(Telemetry::to(Nowhere))).unwrap();
    store
}

fn of<'s>(spans: &'s [SpanData], name: &str) -> Vec<&'s SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// A request is served by one process, and what it wrote is projected by another. Returns what the projection noted.
async fn story() -> String {
    // The file is opened twice, as two processes open it: one serves requests, the other projects.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db");
    let [serving, projecting] = [open(&file).await, open(&file).await];
    let accounts = Repository::<Account>::new(&serving);
    let model = StateModel::new(&projecting);
    let totals = Projection::new(&projecting, Totals, model.clone()).start().await.unwrap();

    // As an HTTP handler does it: the headers of the request, a span for the request, a command inside of it.
    let headers = TraceContext::new(format!("00-{TRACE_ID}-{CALLER}-01"), Some("vendor=1".to_owned()));
    let request = tracing::info_span!("POST /accounts");
    continue_trace(&request, &headers);
    let executed = async { accounts.execute("alice", deposit(5)).provenance(traced()).await.unwrap() };
    let receipt = executed.instrument(request).await;
    caught_up([&totals], receipt.position, Duration::from_secs(30)).await.unwrap();
    totals.stop().await.unwrap();
    let last = serving.consumer("totals").status().await.unwrap().unwrap();
    let seen_by_the_other = ConsumerView::stored("totals", &last);
    assert_eq!(seen_by_the_other, ConsumerView::of(&totals).await);
    accounts.snapshots_settled().await;
    model.read(|total| total.note.clone())
}

#[tokio::test]
async fn a_request_its_command_the_events_and_their_projection_elsewhere_are_one_story() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("es"));
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    // A span that another test meets first, to which nobody listens, is switched off for all. So the story makes every
    // one of its spans known, all are looked at again by who listens here, and then it counts.
    story().await;
    tracing::callsite::rebuild_interest_cache();
    exporter.reset();

    let noted = story().await;
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let [request] = of(&spans, "POST /accounts")[..] else { panic!("one request: {spans:?}") };
    assert_eq!(request.span_context.trace_id().to_string(), TRACE_ID);
    assert_eq!(request.parent_span_id.to_string(), CALLER);
    let [execute] = of(&spans, "execute account")[..] else { panic!("one command: {spans:?}") };
    assert_eq!(execute.parent_span_id, request.span_context.span_id());
    for name in ["load", "append"] {
        let [span] = of(&spans, name)[..] else { panic!("one {name}: {spans:?}") };
        assert_eq!(span.parent_span_id, execute.span_context.span_id(), "{name}");
        assert_eq!(span.span_context.trace_id().to_string(), TRACE_ID);
    }
    let [process] = of(&spans, "process totals")[..] else { panic!("one batch: {spans:?}") };
    assert_eq!(process.span_kind, SpanKind::Consumer);
    assert_ne!(process.parent_span_id, execute.span_context.span_id(), "a batch may have many parents: it is linked");
    let links: Vec<_> = process.links.iter().map(|link| &link.span_context).collect();
    let [link] = links[..] else { panic!("one link: {links:?}") };
    assert_eq!(link.trace_id().to_string(), TRACE_ID);
    assert_eq!(link.span_id(), request.span_context.span_id());
    assert_eq!(link.trace_state().header(), "vendor=1");
    assert!(link.is_remote() && link.span_id() != SpanId::INVALID);

    assert_eq!(noted, SECRET, "the payload went all the way");
    for span in &spans {
        assert!(!format!("{span:?}").contains(SECRET), "the payload is in {span:?}");
    }
}
