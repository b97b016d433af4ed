//! Alternating measurements, each in a process of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use tempfile::TempDir;

use crate::Result;
use crate::cases::Case;
use crate::measure::{fsync_micros, median, spread};
use crate::options::{Options, Size};
use crate::peers::Peer;
use crate::spec::{Mode, Outcome, Spec, Work};

/// The argument that makes this program run a single measurement.
pub const MEASURE: &str = "--measure";
/// The numbers of rows per INSERT that are tried for the floor.
const ROWS: [usize; 5] = [1, 8, 16, 32, 64];
/// Peers are slow compared to us; more rounds of them add no information.
const PEER_ROUNDS: usize = 3;

/// The outcome of a case.
#[derive(Debug)]
pub struct Measured {
    /// The case.
    pub case: Case,
    /// Its sides in order, then its peers.
    pub sides: Vec<MeasuredSide>,
}

/// The outcome of one side, round by round; failed rounds are missing.
#[derive(Debug, Clone, Serialize)]
pub struct MeasuredSide {
    /// The side.
    pub label: String,
    /// Its spec, unless it is a peer.
    pub spec: Option<Spec>,
    /// Round by round.
    pub rounds: Vec<Option<Outcome>>,
    /// Why rounds are missing.
    pub failed: Option<String>,
}

impl MeasuredSide {
    fn new(label: &str, spec: Option<Spec>) -> Self {
        Self { label: label.to_owned(), spec, rounds: Vec::new(), failed: None }
    }

    fn push(&mut self, outcome: Result<Outcome>) {
        match outcome {
            Ok(outcome) => self.rounds.push(Some(outcome)),
            Err(error) => {
                progress(&format!("    {} failed: {error}", self.label));
                self.failed = Some(error.to_string());
                self.rounds.push(None);
            }
        }
    }

    /// The median of a figure over the rounds.
    pub fn median(&self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        median(self.rounds.iter().flatten().map(figure))
    }

    /// The events a second.
    pub fn rate(&self) -> f64 {
        self.median(rate)
    }

    /// The outcome of the round in the middle, for a distribution.
    pub fn typical(&self) -> Option<&Outcome> {
        let mut rounds: Vec<_> = self.rounds.iter().flatten().collect();
        rounds.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        rounds.get(rounds.len() / 2).copied()
    }
}

fn rate(outcome: &Outcome) -> f64 {
    crate::measure::figure(outcome.events) / outcome.seconds.max(1e-9)
}

impl Measured {
    /// The ratio of a figure of the engine to that of another side: the median of the rounds, and their spread.
    pub fn ratio(&self, other: usize, figure: impl Fn(&Outcome) -> f64) -> Option<(f64, (f64, f64))> {
        let (engine, other) = (self.sides.first()?, self.sides.get(other)?);
        let pairs = engine.rounds.iter().zip(&other.rounds).filter_map(|(a, b)| Some((a.as_ref()?, b.as_ref()?)));
        let ratios: Vec<f64> = pairs.map(|(a, b)| figure(a) / figure(b)).collect();
        (!ratios.is_empty()).then(|| (median(ratios.iter().copied()), spread(ratios.iter().copied())))
    }

    /// The ratio of events a second.
    pub fn rate_ratio(&self, other: usize) -> Option<(f64, (f64, f64))> {
        self.ratio(other, rate)
    }
}

/// A whole run.
#[derive(Debug)]
pub struct Run {
    /// Case by case.
    pub cases: Vec<Measured>,
    /// The duration of fdatasync of 4 KiB, each time it was measured.
    pub fsync_us: Vec<f64>,
    /// The number of rows per INSERT that was best for the floor.
    pub floor_rows: usize,
    /// The processors.
    pub processors: usize,
    /// The load of the machine before each case.
    pub load: Vec<f64>,
    /// The stores that were created to be read or to grow, and how long that took.
    pub filled: Vec<(String, Outcome)>,
}

/// Runs all selected cases. Calls `after` with the results so far after each case, so that an interrupted run is not
/// lost.
pub fn run(
    options: &Options,
    cases: Vec<Case>,
    peers: &[Peer],
    mut after: impl FnMut(&Run) -> Result<()>,
) -> Result<Run> {
    let folder = tempfile::Builder::new().prefix("compare-").tempdir_in(&options.dir)?;
    let mut stores = Stores { folder: &folder, made: HashMap::new(), filled: Vec::new() };
    let floor_rows = best_rows(&folder, options)?;
    progress(&format!("floor: {floor_rows} rows a statement"));
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut run =
        Run { cases: Vec::new(), fsync_us: Vec::new(), floor_rows, processors, load: Vec::new(), filled: Vec::new() };
    let count = cases.len();
    for (n, case) in cases.into_iter().enumerate() {
        run.fsync_us.push(fsync_micros(folder.path())?);
        run.load.push(machine_load());
        let mode = case.mode.map_or(String::new(), |mode| format!(", {mode}"));
        progress(&format!("{}/{count} {}: {}{mode}", n + 1, case.workload, case.name));
        run.cases.push(measure(options, case, peers, &mut stores, floor_rows));
        run.filled.append(&mut stores.filled);
        after(&run)?;
    }
    Ok(run)
}

fn measure(options: &Options, case: Case, peers: &[Peer], stores: &mut Stores<'_>, rows: usize) -> Measured {
    let mut sides: Vec<_> =
        case.sides.iter().map(|(label, spec)| MeasuredSide::new(label, Some(Spec { rows, ..spec.clone() }))).collect();
    let peers = if case.peer.is_some() { peers } else { &[] };
    sides.extend(peers.iter().map(|peer| MeasuredSide::new(&peer.name, None)));
    for round in 0..options.rounds {
        // In alternating order, so that no side always runs right after the same other one.
        let mut order: Vec<_> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for n in order {
            let Some(side) = sides.get_mut(n) else { continue };
            let outcome = match &side.spec {
                Some(spec) => stores.place(spec).and_then(|spec| child(&spec.0)),
                None if round >= PEER_ROUNDS.min(options.rounds) || side.failed.is_some() => continue,
                None => peer(&case, &side.label, peers, stores.folder),
            };
            side.push(outcome);
        }
    }
    let said = sides.iter().filter(|side| side.failed.is_none() || !side.rounds.is_empty());
    let said: Vec<_> = said.map(|side| format!("{} {}/s", side.label, crate::report::short(side.rate()))).collect();
    progress(&format!("    {}", said.join(", ")));
    Measured { case, sides }
}

fn peer(case: &Case, name: &str, peers: &[Peer], folder: &TempDir) -> Result<Outcome> {
    let peer = peers.iter().find(|peer| peer.name == name).ok_or("no such peer")?;
    let (workload, (_, spec)) = case.peer.zip(case.sides.first()).ok_or("no work for peers")?;
    let own = tempfile::tempdir_in(folder)?;
    peer.run(workload, spec, own.path())
}

/// Where the stores of measurements are.
struct Stores<'f> {
    folder: &'f TempDir,
    made: HashMap<String, PathBuf>,
    filled: Vec<(String, Outcome)>,
}

impl Stores<'_> {
    /// The spec with its folder: a fresh one that is removed when the second part of the result is dropped, or a shared
    /// one.
    fn place(&mut self, spec: &Spec) -> Result<(Spec, Option<TempDir>)> {
        let Some(prepared) = spec.prepared() else {
            let own = tempfile::tempdir_in(self.folder)?;
            return Ok((Spec { dir: own.path().to_owned(), ..spec.clone() }, Some(own)));
        };
        let key = format!("{:?}-{}-{}", prepared.work, prepared.events, prepared.streams);
        if let Some(dir) = self.made.get(&key) {
            return Ok((Spec { dir: dir.clone(), ..spec.clone() }, None));
        }
        let dir = self.folder.path().join(&key);
        std::fs::create_dir(&dir)?;
        progress(&format!("    preparing {key}"));
        let made = child(&Spec { dir: dir.clone(), ..prepared })?;
        if !made.facts.is_empty() {
            let facts: Vec<_> = made.facts.iter().map(|(name, figure)| format!("{name} {figure:.1}")).collect();
            progress(&format!("    {}/s, {}", crate::report::short(rate(&made)), facts.join(", ")));
        }
        self.filled.push((key.clone(), made));
        self.made.insert(key, dir.clone());
        Ok((Spec { dir, ..spec.clone() }, None))
    }
}

/// Runs a measurement in a process of its own.
fn child(spec: &Spec) -> Result<Outcome> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg(MEASURE)
        .arg(serde_json::to_string(spec)?)
        .stderr(Stdio::inherit())
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(format!("the measurement ended with {}", output.status).into());
    }
    let line = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(line.lines().last().unwrap_or_default())?)
}

/// The number of rows per statement that is best for the floor on this machine.
fn best_rows(folder: &TempDir, options: &Options) -> Result<usize> {
    let events = if options.size == Size::Quick { 20_000 } else { 100_000 };
    let spec = Spec { per_append: 1_000, mode: Mode::Full, ..Spec::new(Work::Bulk { ids: false }, events) };
    let mut best = (0.0, 1);
    for rows in ROWS {
        let mut rates = Vec::new();
        for _ in 0..3 {
            let own = tempfile::tempdir_in(folder)?;
            rates.push(rate(&child(&Spec { rows, dir: own.path().to_owned(), ..spec.on_the_floor() })?));
        }
        if median(rates.iter().copied()) > best.0 {
            best = (median(rates), rows);
        }
    }
    Ok(best.1)
}

fn machine_load() -> f64 {
    let load = std::fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Reports progress.
#[expect(clippy::print_stderr, reason = "a program that takes minutes says what it does")]
pub fn progress(line: &str) {
    eprintln!("{line}");
}
