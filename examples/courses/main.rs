//! Rules that cut across streams: course capacity, ten courses a student, unique user names, gap-free invoice numbers,
//! and forms that are sent twice.
//!
//! ```text
//! cargo run --release --example courses              # a new file in the folder for temporary files
//! cargo run --release --example courses -- PATH      # a new file at PATH
//! cargo run --release --example courses -- --memory  # a store in memory
//! ```
//!
//! 64 callers work at the same time, and each form is sent twice at once. At the end the log is replayed, and every rule
//! is checked after every event.
//!
//! * `school.rs`: events with tags, aggregates, views, and one [`Decide`](es_framework::Decide) for each command
//! * `load.rs`: the callers
//! * `audit.rs`: the rules once more, checked against the log alone

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod audit;
mod load;
mod school;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use es_framework::{MemoryStore, Store};
use es_sqlite::SqliteStore;
use examples::{Table, chain, fresh_path, grouped};

use crate::school::{MOST_COURSES, Register, Subscribe, Taken};

type BoxError = Box<dyn Error + Send + Sync>;

/// How many callers work at the same time.
const CALLERS: u64 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    let told = if argument.as_deref().is_some_and(|argument| argument == "--memory") {
        println!("The school keeps its events in memory\n");
        story(&MemoryStore::new()).await
    } else {
        let path = argument.map_or_else(|| fresh_path("courses"), PathBuf::from);
        if path.exists() {
            eprintln!("courses: {} is there already; the story needs a new file, name another", path.display());
            return ExitCode::from(2);
        }
        println!("The school keeps its events in {}\n", path.display());
        match SqliteStore::open(&path).await {
            Ok(store) => story(&store).await,
            Err(error) => Err(error.into()),
        }
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("courses: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn story(store: &Store) -> Result<(), BoxError> {
    println!("1. {CALLERS} callers at the same time, each form sent twice");
    let figures = load::run(store, CALLERS).await?;
    let mut table = Table::new(["command", "made", "known", "refused", "why"]);
    for (command, outcomes) in &figures.commands {
        let mut refused = outcomes.refused.iter();
        let (why, count) = refused.next().map_or(("", 0), |(why, count)| (why.as_str(), *count));
        table.row([command, &outcomes.made, &outcomes.known, &count, &why]);
        for (why, count) in refused {
            table.row([&"", &"", &"", count, why]);
        }
    }
    println!("{table}");
    let each = figures.took / u32::try_from(figures.decisions())?;
    println!("   {} decisions, one every {} µs\n", grouped(figures.decisions()), each.as_micros());

    println!("2. A form that was answered is answered the same way again");
    let form = Register { student: "late".to_owned(), name: "late".to_owned() };
    for attempt in ["first", "again"] {
        let decided = store.decide(form.clone()).key("form-late").await?;
        let known = if decided.was_known { "known already, nothing written" } else { "written" };
        println!("   {attempt}: {known}, position {}", decided.position);
    }
    let full = store.decide(Subscribe { student: "late".to_owned(), course: "c00".to_owned() }).await;
    let seats = store.view(Taken::of("c00")).await?;
    let answer = full.map_or_else(|why| why.to_string(), |_| "done".to_owned());
    println!("   subscribing to c00: {answer}; {} of {} seats are taken\n", seats.seats, load::SEATS);

    println!("3. The audit: every rule after every event");
    let audited = audit::audit(store).await?;
    println!(
        "   {} events: {} students with unique names, {} courses full and none overbooked,",
        grouped(audited.events),
        audited.students(),
        audited.full
    );
    println!(
        "   the busiest student takes {} of {MOST_COURSES} courses, invoices 1 to {} without a gap",
        audited.busiest, audited.invoices
    );
    store.close().await?;
    Ok(())
}
