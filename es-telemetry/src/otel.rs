//! OpenTelemetry: metrics, and links between traces.

use std::collections::HashMap;

use es_framework::Provenance;
use es_framework::observe::{BatchBegins, TraceContext};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::buckets::{BUCKETS_OF_COUNTS, BUCKETS_OF_SECONDS};
use crate::sink::{Sink, Value};
use crate::table::{Kind, METRICS, Metric, Unit};

/// Sends metrics to a meter of OpenTelemetry.
#[derive(Debug)]
pub struct Meters {
    instruments: HashMap<&'static str, Instrument>,
}

#[derive(Debug)]
enum Instrument {
    Counter(Counter<u64>),
    Gauge(Gauge<f64>),
    Histogram(Histogram<f64>),
}

impl Meters {
    /// Creates an instrument for each metric.
    pub fn of(meter: &Meter) -> Self {
        Self { instruments: METRICS.iter().map(|metric| (metric.name, instrument(meter, metric))).collect() }
    }
}

fn instrument(meter: &Meter, metric: &'static Metric) -> Instrument {
    let (name, unit, help) = (metric.name, metric.unit.ucum(), metric.help);
    match metric.kind {
        Kind::Counter => Instrument::Counter(meter.u64_counter(name).with_unit(unit).with_description(help).build()),
        Kind::Gauge => Instrument::Gauge(meter.f64_gauge(name).with_unit(unit).with_description(help).build()),
        Kind::Histogram => {
            let buckets = if metric.unit == Unit::Seconds { BUCKETS_OF_SECONDS } else { BUCKETS_OF_COUNTS };
            let histogram = meter.f64_histogram(name).with_unit(unit).with_description(help);
            Instrument::Histogram(histogram.with_boundaries(buckets.to_vec()).build())
        }
    }
}

impl Sink for Meters {
    fn take(&self, metric: &'static Metric, labels: &[(&'static str, &str)], value: Value) {
        let attributes: Vec<_> = labels.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect();
        match (self.instruments.get(metric.name), value) {
            (Some(Instrument::Counter(counter)), Value::Add(by)) => counter.add(by, &attributes),
            (Some(Instrument::Gauge(gauge)), Value::Set(to)) => gauge.record(to, &attributes),
            (Some(Instrument::Histogram(histogram)), Value::Record(value)) => histogram.record(value, &attributes),
            _ => debug_assert!(false, "{} is not in the table, or of another kind", metric.name),
        }
    }
}

/// The provenance of a command that is executed in the current span: its `traceparent` and `tracestate` travel with the
/// events, and the spans of consumers are linked to it. Empty if the current span is not traced by OpenTelemetry.
///
/// ```
/// let provenance = es_telemetry::traced().correlation_id("order-17").actor("alice");
/// # drop(provenance);
/// ```
pub fn traced() -> Provenance {
    let context = Span::current().context();
    let span = context.span();
    match written(span.span_context()) {
        None => Provenance::new(),
        Some(TraceContext { traceparent, tracestate, .. }) => {
            let provenance = Provenance::new().traceparent(traceparent);
            match tracestate {
                Some(tracestate) => provenance.tracestate(tracestate),
                None => provenance,
            }
        }
    }
}

/// Continues a trace that came from outside, such as the headers of a request, in a span. A text that is not a
/// `traceparent` changes nothing. Call it before the span is entered.
pub fn continue_trace(span: &Span, trace: &TraceContext) {
    if let Some(context) = parsed(trace) {
        let parent = opentelemetry::Context::new().with_remote_span_context(context);
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!(%error, "the span cannot continue a trace");
        }
    }
}

/// Links the current span, which is that of the batch, to the traces of its events.
pub(crate) fn link(batch: &BatchBegins<'_>) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    for context in (batch.traces)().iter().filter_map(parsed) {
        span.add_link(context);
    }
}

fn written(context: &SpanContext) -> Option<TraceContext> {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    let state = context.trace_state().header();
    let traceparent = || format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags.to_u8());
    context.is_valid().then(|| TraceContext::new(traceparent(), (!state.is_empty()).then_some(state)))
}

/// Reads a `traceparent` as W3C Trace Context says: of version 00 exactly four fields, of later ones at least those.
fn parsed(trace: &TraceContext) -> Option<SpanContext> {
    let mut fields = trace.traceparent.trim().split('-');
    let (version, trace_id, span_id, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let lower_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_well_formed = lower_hex(version, 2)
        && version != "ff"
        && (version != "00" || fields.next().is_none())
        && lower_hex(trace_id, 32)
        && lower_hex(span_id, 16)
        && lower_hex(flags, 2);
    if !is_well_formed {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    // One that cannot be read is left out; the trace itself is still valid.
    let state = trace.tracestate.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let context = SpanContext::new(trace_id, span_id, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_context_is_read_and_written_as_it_was() {
        let trace = TraceContext::new(TRACE, Some("vendor=1,other=2".to_owned()));
        assert_eq!(written(&parsed(&trace).unwrap()), Some(trace));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later";
        let read = parsed(&TraceContext::new(later, Some("a state that is none".to_owned()))).unwrap();
        assert_eq!(written(&read), Some(TraceContext::new(TRACE, None)));
    }

    #[test]
    fn what_is_no_trace_context_is_left_out() {
        for text in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-1",
        ] {
            assert_eq!(parsed(&TraceContext::new(text, None)), None, "{text}");
        }
    }
}
