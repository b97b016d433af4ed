//! What the store's observer is told about a consumer, and the span of a batch.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::failure::Category;
use super::feed::Events;
use super::run::Run;
use super::work::{Portion, Trouble, Work, position_of};
use crate::domain::{Event, Provenance};
use crate::log::Timestamp;
use crate::log::observer::{BatchBegins, BatchReport, FailureReport, ParkReport, TraceContext};

impl<W: Work> Run<W> {
    /// Processes a portion, of which `count` events are not parked, in a span of its own that an observer can link to
    /// the traces of its events, and reports it.
    pub(super) async fn step_observed(&mut self, portion: Portion<W::Event>, count: usize) -> Result<(), Trouble> {
        let span = tracing::debug_span!(
            "process",
            otel.name = %format_args!("process {}", self.name),
            otel.kind = "consumer",
            consumer = self.name.as_str(),
            events = count
        );
        let Some(observed) = self.store.observed() else { return self.step(portion).instrument(span).await };
        let traces = || traces(&portion.events, portion.range.clone());
        span.in_scope(|| {
            observed.tell(|observer| observer.batch_begins(&BatchBegins::new(self.name.as_str(), count, &traces)));
        });
        let (events, range, skip) = (Arc::clone(&portion.events), portion.range.clone(), portion.skip.clone());
        let begun = Instant::now();
        let done = self.step(portion).instrument(span).await;
        let duration = begun.elapsed();
        // Those before an event that cannot be processed are applied.
        let end = match &done {
            Ok(()) => range.end,
            Err(Trouble::Event { position, .. }) => events.partition_point(|event| event.position() < *position),
            Err(_) => range.start,
        };
        let applied = range.start..end.clamp(range.start, range.end);
        let count = applied.len() - skip.iter().filter(|index| applied.contains(index)).count();
        if let Some(last) = events.get(applied).and_then(<[_]>::last) {
            self.tell_batch(count, last.time(), duration);
        }
        done
    }

    fn tell_batch(&self, count: usize, last: Timestamp, duration: Duration) {
        let Some(observed) = self.store.observed() else { return };
        // What is built anew cannot be seen yet: queries show the position that was reported last.
        let rebuilding = self.rebuilding;
        let position = if rebuilding { self.report.position() } else { position_of(self.checkpoint.as_ref()) };
        let behind = self.store.head().get().saturating_sub(position.get());
        let age = if behind > 0 && !rebuilding { self.store.now().since(last) } else { Duration::ZERO };
        let report = BatchReport::new(self.name.as_str(), count, position, duration).behind(behind, age);
        observed.tell(|observer| observer.batch(&report));
    }

    pub(super) fn tell_failed(&self, category: Category) {
        if let Some(observed) = self.store.observed() {
            observed.tell(|observer| observer.failed(&FailureReport::new(self.name.as_str(), category.as_str())));
        }
    }

    /// `before` is how many events were parked before this change.
    pub(super) fn tell_parked(&self, before: usize) {
        if let Some(observed) = self.store.observed() {
            let parked = self.parking.len();
            let report = ParkReport::new(self.name.as_str(), parked.saturating_sub(before), parked as u64);
            observed.tell(|observer| observer.parked(&report));
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
