//! Checks the contents of the tables.

use std::collections::{BTreeMap, BTreeSet};

use es_framework::Store;

use crate::domain::FlightEvent;
use crate::figures::{Figured, Figures};

/// What the tables were compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// A direct computation over the file.
    File,
    /// A replay of the log, because it also holds this many flights of other files.
    Log { others: i64 },
}

/// What is in the log, counted without the tables.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) events: u64,
    figured: Figured,
}

/// Reads the whole log, a page at a time.
pub(crate) async fn replay(store: &Store) -> Result<Replay, Box<dyn std::error::Error + Send + Sync>> {
    let mut replay = Replay { events: 0, figured: Figured::default() };
    let mut pages = store.all().read_as::<FlightEvent>().stream();
    while let Some(page) = pages.next_batch().await {
        for event in page? {
            replay.figured.add(event.flight(), &Figures::of_event(&event));
            replay.events += 1;
        }
    }
    Ok(replay)
}

/// Compares every figure of both tables, and returns one line for each that is wrong.
///
/// Every row of the file is in the log by now. So if the log has as many flights as the file has rows, it holds nothing
/// /// else, and the tables must match the file. If it has more, it also holds flights of other files: then the tables
/// /// must match the log.
pub(crate) fn check(tables: &Figured, file: &Figured, replay: &Replay) -> (Against, Vec<String>) {
    let others = replay.figured.total().flights - file.total().flights;
    let (against, expected) =
        if others > 0 { (Against::Log { others }, &replay.figured) } else { (Against::File, file) };
    let mut wrong = Vec::new();
    compare("carrier", &tables.carriers, &expected.carriers, &mut wrong);
    compare("route", &tables.routes, &expected.routes, &mut wrong);
    (against, wrong)
}

fn compare(
    what: &str,
    table: &BTreeMap<String, Figures>,
    expected: &BTreeMap<String, Figures>,
    wrong: &mut Vec<String>,
) {
    let keys: BTreeSet<&String> = table.keys().chain(expected.keys()).collect();
    for key in keys {
        let of = |figures: &BTreeMap<String, Figures>| figures.get(key).copied().unwrap_or_default().values();
        for ((column, is), should) in Figures::COLUMNS.iter().zip(of(table)).zip(of(expected)) {
            if is != should {
                wrong.push(format!("{what} {key}: {column} is {is}, should be {should}"));
            }
        }
    }
}
