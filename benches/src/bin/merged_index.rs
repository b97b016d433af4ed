//! Measures a prototype of the merged index against the index in place, and against none; see
//! `docs/decisions/0013-merged-index.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use benches::cases::Case;
use benches::measure::{file_bytes, median, micros};
use benches::merged::{self, Bounds, WRITE, Writer};
use benches::options::{Options, Size};
use benches::report::short;
use benches::rounds::{MEASURE, progress};
use benches::spec::{Index, Mode, Side, Spec, Work};
use benches::{Result, rounds, work};

const HELP: &str = "Measures a prototype of the merged index; it is no part of the engine.

  cargo run --release -p benches --bin merged_index -- [options]

  --streams N        how many streams; 1,000, 10,000 and 100,000 by default
  --rows-a-commit N  one event each to so many of them; 50 and 1,000 by default
  --events N         how many events a round; 131,072 by default, which fill memory once and are merged once
  --before N         how many events the stores hold at the beginning, at least; 500,000 by default
  --rounds N         how often each is measured, in turns; 5 by default
  --mode MODE        full (fsync before every answer) or normal; full by default
  --out FILE         where the page is written; nowhere by default
  --dir FOLDER       where the stores are made while they are measured; on the disk to be measured";

/// The parsed command line.
struct Asked {
    streams: Vec<u64>,
    rows: Vec<u64>,
    events: u64,
    before: u64,
    rounds: usize,
    mode: Mode,
    out: Option<PathBuf>,
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("merged_index: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        // This program again, for one measurement.
        [MEASURE, spec] => {
            let outcome = runtime.block_on(work::run(&serde_json::from_str(spec)?))?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        // This program again, to be killed.
        [WRITE, path] => match runtime.block_on(merged::write(Path::new(path), |head| println!("{head}")))? {},
        _ => {
            let Some(asked) = Asked::parse(arguments)? else {
                println!("{HELP}");
                return Ok(());
            };
            runtime.block_on(measure(&asked))
        }
    }
}

async fn measure(asked: &Asked) -> Result<()> {
    let folder = tempfile::tempdir_in(&asked.dir)?;
    progress("killing processes that write");
    let killed = format!(
        "{KILLS} processes, one after the other, were killed while they wrote and merged: each time memory and table were what \
         a scan of the log says, and nothing that was committed was missing; {} events at last.",
        merged::kill(folder.path(), KILLS).await?
    );
    progress(&killed);
    let migrated = migrate(&folder.path().join("migrated.db"), asked.rounds).await?;
    progress(&migrated);
    drop(folder);

    let options = Options {
        workloads: Vec::new(),
        rounds: asked.rounds,
        size: Size::Quick,
        peers: false,
        modes: vec![asked.mode],
        out: None,
        dir: asked.dir.clone(),
    };
    let page = |run: &rounds::Run| merged::page(run, asked.mode, asked.rounds, &format!("{killed}\n\n{migrated}\n"));
    let run = rounds::run(&options, cases(asked), &[], |_| Ok(()))?;
    println!("{}", page(&run));
    if let Some(out) = &asked.out {
        std::fs::write(out, page(&run))?;
    }
    Ok(())
}

/// The number of killed processes.
const KILLS: u64 = 8;
/// The numbers of streams and events of the migrated store.
const MIGRATED: (u64, u64) = (10_000, 500_000);
/// The number of entries per transaction of a migration.
const SLICE: usize = 10_000;

/// Migrates copies of a store that has its index in place; returns how long that took.
async fn migrate(path: &Path, rounds: usize) -> Result<String> {
    let (streams, events) = MIGRATED;
    let mut writer = Writer::make(path, Mode::Normal, 16, Index::InPlace, Bounds::USUAL).await?;
    writer.floor.connection.pragma_update(None, "synchronous", "OFF")?;
    writer.begin_streams(streams, &[7; 100])?;
    while writer.floor.position().get() < events {
        writer.append(10_000, &[7; 100])?;
    }
    drop(writer);
    let copy = path.with_extension("copy");
    let (mut filled, mut worst, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        std::fs::copy(path, &copy)?;
        std::fs::File::open(&copy)?.sync_all()?;
        let connection = benches::floor::connect(&copy, Mode::Full).await?;
        merged::make_tables(&connection)?;
        let slices = merged::migrate(&connection, SLICE)?;
        filled.push(slices.iter().map(|slice| micros(*slice)).sum::<f64>() / 1e3);
        worst.push(slices.iter().map(|slice| micros(*slice)).fold(0.0, f64::max) / 1e3);
        let begun = Instant::now();
        merged::switch(&connection)?;
        dropped.push(micros(begun.elapsed()) / 1e3);
    }
    Ok(format!(
        "A store of {events} events in {streams} streams ({} MiB) was migrated {rounds} times (FULL, medians): its table was \
         filled in {} ms, by transactions of {SLICE} entries, the longest {} ms; then the switch, which drops the index, took {} ms.",
        file_bytes(path) >> 20,
        short(median(filled)),
        short(median(worst)),
        short(median(dropped)),
    ))
}

fn cases(asked: &Asked) -> Vec<Case> {
    let mut cases = Vec::new();
    for rows in &asked.rows {
        for streams in &asked.streams {
            let side = |label: &str, index| {
                let spec = Spec::new(Work::Indexed { index, before: asked.before }, asked.events);
                let spec = Spec { mode: asked.mode, streams: *streams, per_append: *rows, side: Side::Floor, ..spec };
                (label.to_owned(), spec)
            };
            cases.push(Case {
                workload: "index",
                name: format!("{streams} streams, {rows} rows a commit"),
                mode: Some(asked.mode),
                sides: vec![
                    side("merged", Index::Merged),
                    side("in place", Index::InPlace),
                    side("no index", Index::Nothing),
                ],
                goals: Vec::new(),
                peer: None,
            });
        }
    }
    cases
}

impl Asked {
    /// Parses the command line; [`None`] if it requests help.
    fn parse(arguments: Vec<String>) -> Result<Option<Self>> {
        let mut asked = Self {
            streams: vec![1_000, 10_000, 100_000],
            rows: vec![50, 1_000],
            events: Bounds::USUAL.run as u64,
            before: 500_000,
            rounds: 5,
            mode: Mode::Full,
            out: None,
            dir: std::env::temp_dir(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--streams" => asked.streams = vec![value()?.parse()?],
                "--rows-a-commit" => asked.rows = vec![value()?.parse()?],
                "--events" => asked.events = value()?.parse()?,
                "--before" => asked.before = value()?.parse()?,
                "--rounds" => asked.rounds = value()?.parse()?,
                "--mode" => {
                    asked.mode = match value()?.as_str() {
                        "full" => Mode::Full,
                        "normal" => Mode::Normal,
                        other => return Err(format!("{other} is neither full nor normal").into()),
                    }
                }
                "--out" => asked.out = Some(value()?.into()),
                "--dir" => asked.dir = value()?.into(),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("there is no option {other}; see --help").into()),
            }
        }
        Ok(Some(asked))
    }
}
