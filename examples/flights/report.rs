//! The summary at the end, for people and for programs.

use std::cmp::Reverse;

use examples::{Table, grouped};
use serde::Serialize;

use crate::check::Against;
use crate::figures::{Figured, Figures};
use crate::progress::per_second;

/// Everything in the summary.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Rows of the file.
    pub(crate) rows: u64,
    /// Events in the log now.
    pub(crate) events: u64,
    /// Events that this run wrote.
    pub(crate) written: u64,
    /// From opening the store until both tables were up to date.
    pub(crate) seconds: f64,
    /// The size of the log's file.
    pub(crate) file_bytes: u64,
    pub(crate) tables: Figured,
    pub(crate) against: Against,
    pub(crate) wrong: Vec<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    rows: u64,
    cancelled: i64,
    diverted: i64,
    /// Events in the log, from any run.
    events: u64,
    /// Events written by this run.
    written: u64,
    seconds: f64,
    /// The rate of this run.
    events_per_second: u64,
    file_bytes: u64,
    carriers: Vec<JsonCarrier<'a>>,
}

#[derive(Serialize)]
struct JsonCarrier<'a> {
    carrier: &'a str,
    flights: i64,
    cancelled: i64,
    diverted: i64,
    mean_departure_delay: Option<f64>,
    mean_arrival_delay: Option<f64>,
}

/// How many routes are shown.
const ROUTES: usize = 10;

impl Summary {
    /// One object, its keys in the order of [`Json`].
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let total = self.tables.total();
        let carriers = self.tables.carriers.iter().map(|(carrier, figures)| JsonCarrier {
            carrier,
            flights: figures.flights,
            cancelled: figures.cancelled,
            diverted: figures.diverted,
            mean_departure_delay: figures.mean_departure_delay(),
            mean_arrival_delay: figures.mean_arrival_delay(),
        });
        serde_json::to_string(&Json {
            rows: self.rows,
            cancelled: total.cancelled,
            diverted: total.diverted,
            events: self.events,
            written: self.written,
            seconds: self.seconds,
            events_per_second: per_second(self.written, self.seconds),
            file_bytes: self.file_bytes,
            carriers: carriers.collect(),
        })
    }

    /// Two tables and some lines.
    pub(crate) fn text(&self) -> String {
        let mut carriers =
            Table::new(["carrier", "flights", "cancelled", "diverted", "mean dep. delay", "mean arr. delay"]);
        for (carrier, figures) in &self.tables.carriers {
            row(&mut carriers, carrier, figures);
        }
        row(&mut carriers, "all", &self.tables.total());
        let mut busiest: Vec<_> = self.tables.routes.iter().collect();
        busiest.sort_by_key(|(_, figures)| Reverse(figures.flights));
        let mut routes =
            Table::new(["route", "flights", "cancelled", "diverted", "mean dep. delay", "mean arr. delay"]);
        for (route, figures) in busiest.iter().take(ROUTES) {
            row(&mut routes, route, figures);
        }
        let (rows, events) = (grouped(self.rows), grouped(self.events));
        let shown = busiest.len().min(ROUTES);
        let written = match self.written {
            0 => "nothing new: every flight was in the log already".to_owned(),
            written => format!("{} written, {} a second", grouped(written), grouped(per_second(written, self.seconds))),
        };
        format!(
            "{carriers}\nthe {shown} busiest of {} routes\n\n{routes}\n\
             {rows} rows, {events} events ({written}) in {:.1} s, {:.1} MB\n{}",
            busiest.len(),
            self.seconds,
            megabytes(self.file_bytes),
            self.verdict(),
        )
    }

    /// The result of the check.
    pub(crate) fn verdict(&self) -> String {
        let figures = (self.tables.carriers.len() + self.tables.routes.len()) * Figures::COLUMNS.len();
        let against = match self.against {
            Against::File => "a direct computation over the file".to_owned(),
            Against::Log { others } => {
                let others = grouped(others.unsigned_abs());
                format!("a replay of the log, which also holds {others} flights of other files")
            }
        };
        match self.wrong.as_slice() {
            [] => format!("checked: all {} figures equal {against}", grouped(figures as u64)),
            wrong => format!("WRONG: {} figures differ from {against}\n{}", wrong.len(), wrong.join("\n")),
        }
    }
}

fn row(table: &mut Table, key: &str, figures: &Figures) {
    let mean = |mean: Option<f64>| mean.map_or("-".to_owned(), |mean| format!("{mean:.2}"));
    let count = |count: i64| grouped(count.unsigned_abs());
    table.row([
        &key,
        &count(figures.flights),
        &count(figures.cancelled),
        &count(figures.diverted),
        &mean(figures.mean_departure_delay()),
        &mean(figures.mean_arrival_delay()),
    ]);
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
