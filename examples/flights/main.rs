//! A month or a year of real flights, turned into events and back into figures.
//!
//! ```text
//! cargo run --release --example flights -- examples/data/flights-2013-01.csv.gz
//! cargo run --release --example flights -- FILE.csv[.gz] [--db PATH] [--json]
//! ```
//!
//! Every row becomes a command on the aircraft that flew it, so `aircraft-N14228` is the log book of one aircraft: a
//! flight is scheduled, and then cancelled, or departs and is diverted, or departs and arrives. Meanwhile two
//! projections maintain a table per carrier and one per route. At the end every figure of both is checked against a
//! direct computation over the file.
//!
//! Kill it when you like: run again with the same `--db`, it continues where it was; run a third time, it adds nothing.
//! A second file may go into the same database; the tables are then checked against a replay of the log.
//!
//! It ends with 0 if all figures are right, with 1 if not or if the store failed, and with 2 if the command line, the
//! file or the path cannot be used.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod args;
mod check;
mod domain;
mod figures;
mod load;
mod progress;
mod projections;
mod report;
mod rows;

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use es_framework::Projection;
use es_sqlite::{SqliteModel, SqliteStore};
use examples::{chain, fresh_path, grouped};

use crate::args::{Args, Request, USAGE};
use crate::figures::Figured;
use crate::load::{LoadError, load, survey};
use crate::progress::Progress;
use crate::projections::{Carriers, Routes, read_tables};
use crate::report::Summary;

/// How long the tables may take to catch up once all is written.
const CATCH_UP: Duration = Duration::from_secs(600);

type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no summary.
enum Failure {
    /// The user can fix it: exit code 2.
    Input(String),
    /// The store or a table failed: exit code 1.
    Broken(BoxError),
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(args)) => args,
        Ok(Request::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("flights: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&args).await {
        Ok(summary) => {
            match args.json.then(|| summary.json()) {
                None => println!("{}", summary.text()),
                Some(Ok(json)) => println!("{json}"),
                Some(Err(error)) => {
                    eprintln!("flights: {error}");
                    return ExitCode::FAILURE;
                }
            }
            if summary.wrong.is_empty() {
                return ExitCode::SUCCESS;
            }
            eprintln!("flights: {}", summary.verdict());
            ExitCode::FAILURE
        }
        Err(Failure::Input(problem)) => {
            eprintln!("flights: {problem}");
            ExitCode::from(2)
        }
        Err(Failure::Broken(error)) => {
            eprintln!("flights: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Summary, Failure> {
    eprintln!("reading {}", args.file.display());
    let file = args.file.clone();
    let surveyed = tokio::task::spawn_blocking(move || survey(&file)).await.map_err(broken)?;
    let figured = surveyed.map_err(|error| Failure::Input(chain(&error)))?;

    let db = args.db.clone().unwrap_or_else(|| fresh_path("flights"));
    let outcome = run_on(&db, args, figured).await;
    if args.db.is_none() {
        remove(&db);
    }
    outcome
}

async fn run_on(db: &Path, args: &Args, file: Figured) -> Result<Summary, Failure> {
    let cannot_open = |error: &(dyn Error + 'static)| Failure::Input(format!("{}: {}", db.display(), chain(error)));
    let rows = file.total().flights.unsigned_abs();
    let progress = Arc::new(Progress::new(rows));

    // Two readers, one per projection: each additional one would have up to 16 MiB of pages of its own.
    let store = SqliteStore::builder().readers(2).open(db).await.map_err(|error| cannot_open(&error))?;
    // In a separate file the tables never compete with the log's only writer.
    let model = SqliteModel::open(tables_path(db)).await.map_err(|error| cannot_open(&error))?;
    let start = store.all().metrics().await.map_err(broken)?.position;
    eprintln!("writing {} rows to {}, which is at position {start}", grouped(rows), db.display());

    let outcome = async {
        let carriers = Projection::new(&store, Carriers::new(), model.clone()).start().await?;
        let routes = Projection::new(&store, Routes::new(), model.clone()).start().await?;

        let reporter = progress.report();
        let loaded = load(&args.file, &store, &progress).await;
        reporter.finish();
        loaded?;

        let head = store.all().metrics().await?.position;
        carriers.wait_for(head, CATCH_UP).await?;
        routes.wait_for(head, CATCH_UP).await?;
        let seconds = progress.seconds();
        carriers.stop().await?;
        routes.stop().await?;
        Ok::<_, BoxError>((read_tables(&model).await?, check::replay(&store).await?, seconds))
    }
    .await;
    // Closed in any case, so that no -wal file is left behind.
    let closed = (model.close().await, store.close().await);
    let (tables, replay, seconds) = outcome.map_err(from_load)?;
    closed.0.map_err(broken)?;
    closed.1.map_err(broken)?;

    let (against, wrong) = check::check(&tables, &file, &replay);
    let file_bytes = std::fs::metadata(db).map_err(broken)?.len();
    let written = progress.events();
    Ok(Summary { rows, events: replay.events, written, seconds, file_bytes, tables, against, wrong })
}

/// The tables' file is next to the log's.
fn tables_path(db: &Path) -> PathBuf {
    let mut path = OsString::from(db);
    path.push(".tables");
    path.into()
}

/// Removes a temporary store. It is closed, so there are no other files.
fn remove(db: &Path) {
    for path in [db.to_owned(), tables_path(db)] {
        // A file that cannot be removed is left to the cleanup of the folder for temporary files.
        drop(std::fs::remove_file(path));
    }
}

fn broken(error: impl Into<BoxError>) -> Failure {
    Failure::Broken(error.into())
}

/// The file may have changed since it was checked; that is still a problem of the file.
fn from_load(error: BoxError) -> Failure {
    match error.downcast::<LoadError>() {
        Ok(error) => match *error {
            LoadError::Rows(rows) => Failure::Input(chain(&rows)),
            error => broken(error),
        },
        Err(error) => Failure::Broken(error),
    }
}
