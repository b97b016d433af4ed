//! The comparison: our engine, the floor, and with `--peers` other event stores; see `docs/benchmarks/README.md`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its results")]

use std::path::Path;
use std::process::ExitCode;

use benches::options::{HELP, Options};
use benches::rounds::{MEASURE, Run};
use benches::{Result, cases, peers, report, rounds, work};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words.as_slice() {
        // This program again, for one measurement.
        [MEASURE, spec] => {
            let outcome = runtime()?.block_on(work::run(&serde_json::from_str(spec)?))?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
        // The other process of W9.
        ["--watch", path, events] => {
            runtime()?.block_on(work::watch_elsewhere(Path::new(path), events.parse()?, |line| println!("{line}")))
        }
        _ => compare(arguments),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn compare(arguments: Vec<String>) -> Result<()> {
    let Some(options) = Options::parse(arguments)? else {
        println!("{HELP}");
        return Ok(());
    };
    let peers = if options.peers { peers::find() } else { Vec::new() };
    let write = |run: &Run| options.out.as_ref().map_or(Ok(()), |out| report::write(run, &options, out));
    let run = rounds::run(&options, cases::all(&options), &peers, write)?;
    println!("{}", report::table(&run));
    Ok(())
}
