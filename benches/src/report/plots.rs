//! The plots: throughput by workload, cost against size, latencies.

use super::svg::{bars, lines};
use crate::measure::{Latency, figure};
use crate::rounds::{Measured, Run};
use crate::spec::{Spec, Work};

/// The file name and content of each plot that this run has figures for.
pub(super) fn all(run: &Run) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let writes = throughput(run, |work| {
        matches!(work, Work::Bulk { .. } | Work::Single { .. } | Work::Many | Work::Conditional { .. } | Work::Commands)
    });
    if !writes.is_empty() {
        plots.push(("throughput-write.svg".to_owned(), bars("Writing", "events a second", &writes)));
    }
    let reads = throughput(run, |work| {
        matches!(work, Work::Load { snapshot: false } | Work::Scan { .. } | Work::Project { .. })
    });
    if !reads.is_empty() {
        plots.push(("throughput-read.svg".to_owned(), bars("Reading", "events a second", &reads)));
    }
    let cost = cost(run);
    if !cost.is_empty() {
        let sizes = [0.1, 1.0, 10.0].map(|size: f64| (size.log10(), format!("{size} million")));
        let known = |at: &f64| cost.iter().flat_map(|(_, points)| points).any(|(x, _)| (x - at).abs() < 1e-6);
        let ticks: Vec<_> = sizes.into_iter().filter(|(at, _)| known(at)).collect();
        plots.push(("growth.svg".to_owned(), lines("Cost against the size of the store", "µs each", &ticks, &cost)));
    }
    let latencies = latencies(run);
    if !latencies.is_empty() {
        let ticks = (0..).zip(Latency::PERCENTILES).map(|(n, p)| (figure(n), format!("{p}"))).collect::<Vec<_>>();
        plots.push(("latency.svg".to_owned(), lines("Latencies by percentile", "µs", &ticks, &latencies)));
    }
    plots
}

fn title(measured: &Measured) -> String {
    let mode = measured.case.mode.map_or(String::new(), |mode| format!(", {mode}"));
    format!("{} {}{mode}", measured.case.workload, measured.case.name)
}

fn work_of(measured: &Measured) -> Option<&Spec> {
    measured.case.sides.first().map(|(_, spec)| spec)
}

fn throughput(run: &Run, wanted: impl Fn(Work) -> bool) -> Vec<(String, Vec<(String, f64)>)> {
    let cases = run.cases.iter().filter(|measured| work_of(measured).is_some_and(|spec| wanted(spec.work)));
    let group = |measured: &Measured| {
        let sides = measured.sides.iter().map(|side| (side.label.clone(), side.rate()));
        (title(measured), sides.filter(|(_, rate)| rate.is_finite()).collect())
    };
    cases.map(group).collect()
}

/// Microseconds an event, by the logarithm of the millions in the store.
fn cost(run: &Run) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for measured in run.cases.iter().filter(|measured| measured.case.workload == "W11") {
        let work = measured.case.name.split(',').next().unwrap_or_default();
        for side in &measured.sides {
            let Some(spec) = &side.spec else { continue };
            let who = if side.label.starts_with("floor") { "floor" } else { "engine" };
            let point = ((figure(spec.streams) / 1e5).log10(), 1e6 / side.rate());
            let name = format!("{who}, {work}");
            match lines.iter_mut().find(|(known, _)| *known == name) {
                Some((_, points)) if points.iter().any(|(x, _)| (x - point.0).abs() < 1e-6) => {}
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
    }
    for (_, points) in &mut lines {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

/// The percentiles of the engine's appends, loads and wake-ups.
fn latencies(run: &Run) -> Vec<(String, Vec<(f64, f64)>)> {
    let wanted = ["W3", "W4", "W5", "W9"];
    let cases = run.cases.iter().filter(|measured| wanted.contains(&measured.case.workload));
    cases
        .filter_map(|measured| {
            let latency = measured.sides.first()?.typical()?.latency.as_ref()?;
            let points = (0..).zip(&latency.points).map(|(n, (_, us))| (figure(n), us.max(0.1)));
            Some((title(measured), points.collect()))
        })
        .collect()
}
