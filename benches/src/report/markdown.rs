//! The table for the terminal and the page.

use std::fmt::Write as _;

use super::goals::{bytes_per_event, sized, verdicts};
use super::short;
use crate::measure::{figure, median, spread};
use crate::options::Options;
use crate::rounds::{Measured, MeasuredSide, Run};
use crate::spec::Outcome;

/// One line per case, for the terminal.
pub fn table(run: &Run) -> String {
    let mut text = format!("{}\n\n", conditions(run));
    for measured in &run.cases {
        let mode = measured.case.mode.map_or(String::new(), |mode| format!(" [{mode}]"));
        let _infallible = writeln!(text, "{} {}{mode}", measured.case.workload, measured.case.name);
        for (n, side) in measured.sides.iter().enumerate() {
            let ratio = if n == 0 { String::new() } else { ratio(measured, n) };
            let _infallible = writeln!(
                text,
                "    {:24} {:>10}/s  {:28} {ratio} cpu {}",
                side.label,
                short(side.rate()),
                latency(side),
                short(side.median(cpu_micros))
            );
        }
        for verdict in verdicts(measured) {
            let word = if verdict.met { "met   " } else { "MISSED" };
            let _infallible = writeln!(text, "    {word} {}: {}", verdict.goal, short(verdict.found));
        }
    }
    text
}

/// The page.
pub(super) fn page(run: &Run, options: &Options, plots: &[String]) -> String {
    let mut page = format!(
        "# Results\n\nMade by `compare`; see [README](README.md) for what the workloads are and how to read this.\n\n{}, \
         {} rounds in turns, medians; size `{}`.\n\n",
        conditions(run),
        options.rounds,
        format!("{:?}", options.size).to_lowercase()
    );
    page.push_str("## Goals\n\n| work | mode | goal | found | |\n|---|---|---|--:|---|\n");
    for measured in &run.cases {
        let mode = measured.case.mode.map_or(String::new(), |mode| mode.to_string());
        for verdict in verdicts(measured) {
            let word = if verdict.met { "met" } else { "**missed**" };
            let _infallible = writeln!(
                page,
                "| {} {} | {mode} | {} | {} | {word} |",
                measured.case.workload,
                measured.case.name,
                verdict.goal,
                short(verdict.found)
            );
        }
    }
    for plot in plots {
        let _infallible = write!(page, "\n![{plot}]({plot})\n");
    }
    page.push_str("\n## Figures\n");
    for measured in &run.cases {
        page.push_str(&case(measured));
    }
    page
}

fn case(measured: &Measured) -> String {
    let mode = measured.case.mode.map_or(String::new(), |mode| format!(", {mode}"));
    let mut text = format!("\n### {} {}{mode}\n\n", measured.case.workload, measured.case.name);
    if let Some((_, spec)) = measured.case.sides.first() {
        let _infallible = writeln!(
            text,
            "{} events of {} bytes, {} an append, {} callers.\n",
            spec.events, spec.payload, spec.per_append, spec.callers
        );
    }
    text.push_str("| | events/s | engine is | p50 µs | p99 µs | CPU µs an event | bytes an event | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (n, side) in measured.sides.iter().enumerate() {
        if side.rounds.iter().flatten().next().is_none() {
            let why = side.failed.as_deref().unwrap_or("not measured");
            let _infallible = writeln!(text, "| {} | {why} | | | | | | |", side.label);
            continue;
        }
        let of = |percentile, name: &str| {
            side.median(|outcome| match &outcome.latency {
                Some(latency) => latency.at(percentile),
                None => outcome.facts.get(name).copied().unwrap_or(f64::NAN),
            })
        };
        let sized = side
            .spec
            .as_ref()
            .map_or(measured.case.sides.first().is_some_and(|(_, spec)| sized(spec.work)), |spec| sized(spec.work));
        let bytes = if sized { side.median(bytes_per_event) } else { f64::NAN };
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            side.label,
            short(side.rate()),
            if n == 0 { String::new() } else { ratio(measured, n) },
            short(of(50.0, "p50_us")),
            short(of(99.0, "p99_us")),
            short(if side.spec.is_some() { side.median(cpu_micros) } else { f64::NAN }),
            short(bytes),
            short(side.median(|outcome| figure(outcome.peak_rss_bytes) / f64::from(1 << 20))),
        );
    }
    for side in &measured.sides {
        let notes: Vec<_> =
            side.rounds.iter().flatten().map(|outcome| outcome.note.as_str()).filter(|n| !n.is_empty()).collect();
        if let Some(note) = notes.first() {
            let _infallible = writeln!(text, "\n{}: {note}", side.label);
        }
        if let Some(outcome) = side.typical().filter(|outcome| side.spec.is_some() && !outcome.facts.is_empty()) {
            let facts: Vec<_> =
                outcome.facts.iter().map(|(name, figure)| format!("{name} {}", short(*figure))).collect();
            let _infallible = writeln!(text, "\n{}: {}", side.label, facts.join(", "));
        }
    }
    text
}

fn ratio(measured: &Measured, other: usize) -> String {
    measured.rate_ratio(other).map_or_else(
        || "–".to_owned(),
        |(ratio, (low, high))| format!("{} × ({}–{})", short(ratio), short(low), short(high)),
    )
}

fn cpu_micros(outcome: &Outcome) -> f64 {
    outcome.cpu_seconds * 1e6 / figure(outcome.events)
}

fn latency(side: &MeasuredSide) -> String {
    let at =
        |percentile| side.median(|outcome| outcome.latency.as_ref().map_or(f64::NAN, |latency| latency.at(percentile)));
    if at(50.0).is_nan() { String::new() } else { format!("p50 {} p99 {} µs", short(at(50.0)), short(at(99.0))) }
}

fn conditions(run: &Run) -> String {
    let (low, high) = spread(run.fsync_us.iter().copied());
    format!(
        "fdatasync of 4 KiB: median {} µs ({} to {} µs); {} processors, load average {} (median); floor with {} rows a statement",
        short(median(run.fsync_us.iter().copied())),
        short(low),
        short(high),
        run.processors,
        short(median(run.load.iter().copied())),
        run.floor_rows
    )
}
