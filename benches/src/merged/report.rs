//! The page about the merged index.

use std::fmt::Write as _;

use crate::measure::{figure, median, spread};
use crate::report::short;
use crate::rounds::{Measured, MeasuredSide, Run};
use crate::spec::{Mode, Outcome};

/// The measurements, as tables.
pub fn page(run: &Run, mode: Mode, rounds: usize, others: &str) -> String {
    let (low, high) = spread(run.fsync_us.iter().copied());
    let (idle, busy) = spread(run.load.iter().copied());
    let mut page = format!(
        "# The merged index\n\nMade by `merged_index`, a prototype: see [decision 13](../decisions/0013-merged-index.md) for what \
         the words mean.\n\n{mode}, 100-byte payloads, {rounds} rounds in turns, medians; fdatasync of 4 KiB: median {} µs ({} to {} \
         µs); {} processors, load average {} to {}; plain rusqlite with {} rows a statement.\n\n{others}\n",
        short(median(run.fsync_us.iter().copied())),
        short(low),
        short(high),
        run.processors,
        short(idle),
        short(busy),
        run.floor_rows,
    );
    page.push_str(
        "## Writing and reading\n\nA ratio is the median over the rounds, with the smallest and the largest. A flush is fdatasync of \
         4 KiB right before: where it varies, the disk was busy, and the processor time says more. A load reads all \
         columns of one stream, on a connection of its own. Reopening is what the next process does after a kill: with the \
         merged index it includes reading the end of the log.\n",
    );
    for measured in &run.cases {
        let _infallible = write!(page, "\n### {}\n\n{}", measured.case.name, table(measured));
    }
    page.push_str(
        "\n## What merging costs\n\nSlices are the commits that merged; `entries` the most that one merged. In memory: at the \
         beginning of a run. The rest is what `close` would merge.\n\n\
         | | slices | entries | slice p50 µs | slice worst µs | in memory | bytes each | MiB | rest ms |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for measured in &run.cases {
        if let Some(merged) = measured.sides.first() {
            let of = |name| fact(merged, name);
            let mib = of("entries") * of("entry_bytes") / f64::from(1 << 20);
            let figures = [
                of("slices"),
                of("slice_entries"),
                of("slice_p50_us"),
                of("slice_worst_us"),
                of("entries"),
                of("entry_bytes"),
                mib,
                of("merge_rest_ms"),
            ];
            let _infallible = writeln!(page, "| {} | {} |", measured.case.name, figures.map(short).join(" | "));
        }
    }
    page
}

fn table(measured: &Measured) -> String {
    let mut text =
        "| | events/s | merged is | CPU µs an event | flush µs | commit p50 µs | p99 µs | worst µs | load µs | \
                    reopen ms | bytes an event |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for (n, side) in measured.sides.iter().enumerate() {
        let ratio = measured.rate_ratio(n).filter(|_| n > 0).map_or(String::new(), |(ratio, (low, high))| {
            format!("{} × ({}–{})", short(ratio), short(low), short(high))
        });
        let at = |percentile| {
            side.median(|outcome: &Outcome| outcome.latency.as_ref().map_or(f64::NAN, |l| l.at(percentile)))
        };
        let figures = [
            fact(side, "cpu_us"),
            fact(side, "flush_us"),
            at(50.0),
            at(99.0),
            at(100.0),
            fact(side, "load_us"),
            fact(side, "reopen_ms"),
            fact(side, "bytes_per_event"),
        ];
        let _infallible = writeln!(
            text,
            "| {} | {} | {ratio} | {} |",
            side.label,
            short(side.rate()),
            figures.map(short).join(" | ")
        );
    }
    if let Some(merged) = measured.sides.first() {
        let (written, all) = (merged.median(|outcome| figure(outcome.events)), fact(merged, "events"));
        let _infallible = writeln!(text, "\n{} events a round, {} at its end.", short(written), short(all));
    }
    text
}

fn fact(side: &MeasuredSide, name: &str) -> f64 {
    side.median(|outcome| outcome.facts.get(name).copied().unwrap_or(f64::NAN))
}
