//! Writes down the results.

mod goals;
mod markdown;
mod plots;
mod svg;

use std::path::Path;

use serde_json::{Value, json};

pub use goals::{Verdict, verdicts};
pub use markdown::table;

use crate::Result;
use crate::measure::median;
use crate::options::Options;
use crate::rounds::{Measured, MeasuredSide, Run};

/// Writes `results.json`, `results.md` and the plots into a folder.
pub fn write(run: &Run, options: &Options, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("results.json"), serde_json::to_string(&json_of(run, options))? + "\n")?;
    let plots = plots::all(run);
    for (name, svg) in &plots {
        std::fs::write(out.join(name), svg)?;
    }
    let names: Vec<_> = plots.into_iter().map(|(name, _)| name).collect();
    std::fs::write(out.join("results.md"), markdown::page(run, options, &names))?;
    Ok(())
}

fn json_of(run: &Run, options: &Options) -> Value {
    json!({
        "size": format!("{:?}", options.size).to_lowercase(),
        "rounds": options.rounds,
        "processors": run.processors,
        "fsync_us": {"median": median(run.fsync_us.iter().copied()), "all": run.fsync_us},
        "load_average": run.load,
        "floor_rows_per_statement": run.floor_rows,
        "filled": run.filled,
        "cases": run.cases.iter().map(case_json).collect::<Vec<_>>(),
    })
}

fn case_json(measured: &Measured) -> Value {
    let ratios = (1..measured.sides.len()).map(|n| measured.rate_ratio(n).map(|(ratio, _)| ratio));
    json!({
        "workload": measured.case.workload,
        "name": measured.case.name,
        "mode": measured.case.mode,
        "ratios": ratios.collect::<Vec<_>>(),
        "goals": verdicts(measured).iter().map(|verdict| json!({
            "goal": verdict.goal, "found": verdict.found, "met": verdict.met,
        })).collect::<Vec<_>>(),
        "sides": measured.sides.iter().map(side_json).collect::<Vec<_>>(),
    })
}

fn side_json(side: &MeasuredSide) -> Value {
    json!({
        "label": side.label,
        "events_per_second": side.rate(),
        "spec": side.spec.as_ref().map(|spec| json!({
            "work": format!("{:?}", spec.work), "events": spec.events, "payload": spec.payload,
            "per_append": spec.per_append, "callers": spec.callers, "streams": spec.streams, "mode": spec.mode,
        })),
        "failed": side.failed,
        "rounds": side.rounds,
    })
}

/// A figure with a suitable number of digits.
pub fn short(figure: f64) -> String {
    match figure {
        f if !f.is_finite() => "–".to_owned(),
        f if f.abs() >= 1e6 => format!("{:.2} M", f / 1e6),
        f if f.abs() >= 1e5 => format!("{:.0},000", f / 1e3),
        f if f.abs() >= 1e4 => format!("{:.1} k", f / 1e3),
        f if f.abs() >= 100.0 => format!("{f:.0}"),
        f if f.abs() >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}
