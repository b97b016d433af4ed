//! What the store's observer is told about a consumer, and the span of a batch.

use std::ops::Range;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::failure::Category;
use super::feed::Events;
use super::run::Run;
use super::work::{Portion, Trouble, Work};
use crate::domain::{Event, Provenance};
use crate::log::observer::{BatchBegins, BatchReport, FailureReport, TraceContext};

impl<W: Work> Run<W> {
    /// Processes a portion in a span of its own, which an observer can link to the traces of its events, and reports
    /// it.
    pub(super) async fn step_observed(&mut self, portion: Portion<W::Event>) -> Result<(), Trouble> {
        let count = portion.range.len();
        let span = tracing::debug_span!(
            "process",
            otel.name = %format_args!("process {}", self.name),
            otel.kind = "consumer",
            consumer = self.name.as_str(),
            events = count
        );
        let position = portion.to.position;
        let last = portion.events.get(portion.range.clone()).and_then(<[_]>::last).map(|event| event.time());
        let Some(observed) = self.store.observed() else { return self.step(portion).instrument(span).await };
        let traces = || traces(&portion.events, portion.range.clone());
        span.in_scope(|| {
            observed.tell(|observer| observer.batch_begins(&BatchBegins::new(self.name.as_str(), count, &traces)));
        });
        let begun = Instant::now();
        let done = self.step(portion).instrument(span).await;
        if done.is_ok() {
            let duration = begun.elapsed();
            let behind = self.store.head().get().saturating_sub(position.get());
            let age = last.filter(|_| behind > 0).map_or(Duration::ZERO, |time| self.store.now().since(time));
            if let Some(observed) = self.store.observed() {
                let report = BatchReport::new(self.name.as_str(), count, position, duration).behind(behind, age);
                observed.tell(|observer| observer.batch(&report));
            }
        }
        done
    }

    pub(super) fn tell_failed(&self, category: Category) {
        if let Some(observed) = self.store.observed() {
            observed.tell(|observer| observer.failed(&FailureReport::new(self.name.as_str(), category.as_str())));
        }
    }
}

/// The traces of some events, without repetitions next to each other: one command may write many events.
fn traces<E: Event>(events: &Events<E>, range: Range<usize>) -> Vec<TraceContext> {
    let mut traces: Vec<TraceContext> = Vec::new();
    for metadata in events.get(range).unwrap_or_default().iter().filter_map(|event| event.metadata()) {
        if traces.len() == BatchBegins::MAX_TRACES {
            break;
        }
        let Some(traceparent) = metadata.text(Provenance::TRACEPARENT) else { continue };
        if traces.last().is_none_or(|last| last.traceparent != traceparent) {
            traces.push(TraceContext::new(traceparent, metadata.text(Provenance::TRACESTATE)));
        }
    }
    traces
}
