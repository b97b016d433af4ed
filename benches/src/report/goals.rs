//! Whether goals are met.

use crate::cases::Goal;
use crate::measure::{figure, median};
use crate::rounds::Measured;
use crate::spec::{Outcome, Work};

/// A goal and the measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The goal in words.
    pub goal: String,
    /// The measured figure, in its unit.
    pub found: f64,
    /// Whether that is good enough.
    pub met: bool,
}

/// The maximum memory of any work, in addition to what its caller holds.
const MEMORY_MIB: f64 = 100.0;

/// The goals of a case, including the memory goal that all cases have.
pub fn verdicts(measured: &Measured) -> Vec<Verdict> {
    let mut verdicts: Vec<_> = measured.case.goals.iter().map(|goal| verdict(measured, *goal)).collect();
    if let Some(engine) = measured.sides.first() {
        let peak = engine.median(|outcome| figure(outcome.peak_rss_bytes) / f64::from(1 << 20));
        verdicts.push(at_most(format!("memory ≤ {MEMORY_MIB} MiB"), peak, MEMORY_MIB));
    }
    verdicts
}

fn verdict(measured: &Measured, goal: Goal) -> Verdict {
    let other = measured.sides.get(1).map_or("", |side| side.label.as_str());
    let percentile = |percentile: f64| {
        move |outcome: &Outcome| outcome.latency.as_ref().map_or(f64::NAN, |latency| latency.at(percentile))
    };
    let engine = |figure: &dyn Fn(&Outcome) -> f64| {
        measured.sides.first().map_or(f64::NAN, |side| median(side.rounds.iter().flatten().map(figure)))
    };
    match goal {
        Goal::Ratio(wanted) => {
            let found = measured.rate_ratio(1).map_or(f64::NAN, |(ratio, _)| ratio);
            Verdict { goal: format!("≥ {wanted} × {other}"), found, met: found >= wanted }
        }
        Goal::Cost(wanted) => {
            let cost = |outcome: &Outcome| outcome.seconds / figure(outcome.events);
            let found = measured.ratio(1, cost).map_or(f64::NAN, |(ratio, _)| ratio);
            at_most(format!("cost ≤ {wanted} × {other}"), found, wanted)
        }
        Goal::Latency(at, wanted) => {
            let found = measured.ratio(1, percentile(at)).map_or(f64::NAN, |(ratio, _)| ratio);
            at_most(format!("p{at} ≤ {wanted} × {other}"), found, wanted)
        }
        Goal::Below(at, wanted) => at_most(format!("p{at} ≤ {wanted} µs"), engine(&percentile(at)), wanted),
        Goal::Fact(name, wanted) => {
            let fact = |outcome: &Outcome| outcome.facts.get(name).copied().unwrap_or(f64::NAN);
            at_most(format!("{name} ≤ {wanted}"), engine(&fact), wanted)
        }
        Goal::Bytes(wanted) => {
            let payload = measured.case.sides.first().map_or(0, |(_, spec)| spec.payload);
            let found = engine(&|outcome| bytes_per_event(outcome) - figure(payload as u64));
            at_most(format!("≤ {wanted} bytes an event over the payload"), found, wanted)
        }
    }
}

fn at_most(goal: String, found: f64, wanted: f64) -> Verdict {
    Verdict { goal, found, met: found <= wanted }
}

/// The database's bytes for each event.
pub(super) fn bytes_per_event(outcome: &Outcome) -> f64 {
    figure(outcome.file_bytes) / figure(outcome.events)
}

/// Whether the database's size is meaningful for this work's events: all of them were written by it.
pub(super) fn sized(work: Work) -> bool {
    matches!(work, Work::Bulk { .. } | Work::Single { .. } | Work::Many | Work::Conditional { .. } | Work::Commands)
}
