//! The file: from lines of text to checked rows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::{Reader, ReaderBuilder, StringRecord};
use es_framework::Fingerprint;
use flate2::bufread::MultiGzDecoder;

use crate::domain::{Flight, FlightId, Movement, Outcome};

/// One row: a flight, and the aircraft that flew it or was scheduled to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The tail number; [`None`] where the file says `NA`.
    pub(crate) tail: Option<String>,
    pub(crate) flight: Flight,
}

/// Why a file cannot be used. Every variant is a problem of the file or the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} has no column {column:?}; its first line must name the columns {}", path.display(), COLUMNS.join(", "))]
    NoColumn { path: PathBuf, column: &'static str },
    #[error("{}, row {row} (line {line}): {column} is {value:?}, expected {expected}; correct or remove this row", path.display())]
    Value { path: PathBuf, row: u64, line: u64, column: &'static str, value: String, expected: &'static str },
    #[error("{}, row {row} (line {line}): {problem}; correct or remove this row", path.display())]
    Row { path: PathBuf, row: u64, line: u64, problem: String },
    #[error("{} cannot be read after row {row}: {source}; get the file again", path.display())]
    Broken { path: PathBuf, row: u64, source: io::Error },
}

/// The columns that are read, by name; any others are only part of what makes a row unique.
const COLUMNS: [&str; 16] = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
];

/// The format of a time of day.
const CLOCK: &str = "a time of day such as 517 for 05:17";

/// The rows of a file, one at a time.
pub(crate) struct Rows {
    path: PathBuf,
    reader: Reader<Box<dyn Read + Send>>,
    /// The index of each of [`COLUMNS`].
    places: [usize; COLUMNS.len()],
    record: StringRecord,
    row: u64,
}

impl Rows {
    /// Opens a file, plain or gzipped; its first two bytes decide which, whatever its name is.
    pub(crate) fn open(path: &Path) -> Result<Self, RowError> {
        let unreadable = |source| RowError::Unreadable { path: path.to_owned(), source };
        let mut file = BufReader::with_capacity(64 << 10, File::open(path).map_err(unreadable)?);
        let is_gzip = file.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
        let text: Box<dyn Read + Send> = if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut reader = ReaderBuilder::new().from_reader(text);
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(csv_error(path, 0, error)),
        };
        let mut places = [0; COLUMNS.len()];
        for (place, column) in places.iter_mut().zip(COLUMNS) {
            *place = header
                .iter()
                .position(|name| name.trim_start_matches('\u{feff}').trim() == column)
                .ok_or_else(|| RowError::NoColumn { path: path.to_owned(), column })?;
        }
        Ok(Self { path: path.to_owned(), reader, places, record: StringRecord::new(), row: 0 })
    }

    fn read(&mut self) -> Result<Option<Row>, RowError> {
        match self.reader.read_record(&mut self.record) {
            Ok(false) => return Ok(None),
            Ok(true) => self.row += 1,
            Err(error) => return Err(csv_error(&self.path, self.row, error)),
        }
        let line = Line { rows: self };
        Ok(Some(line.to_row()?))
    }
}

impl Iterator for Rows {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn csv_error(path: &Path, row: u64, error: csv::Error) -> RowError {
    let path = path.to_owned();
    let line = error.position().map_or(0, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "this is not UTF-8 text".to_owned(),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("this row has {len} columns, expected {expected_len}")
        }
        _ => error.to_string(),
    };
    match error.into_kind() {
        csv::ErrorKind::Io(source) => RowError::Broken { path, row, source },
        _ => RowError::Row { path, row: row + 1, line, problem },
    }
}

/// One line, with its fields by column.
struct Line<'r> {
    rows: &'r Rows,
}

impl Line<'_> {
    fn to_row(&self) -> Result<Row, RowError> {
        let record = &self.rows.record;
        // The whole row, so that two rows that differ anywhere are two flights.
        let facts = Fingerprint::of(record.as_slice().as_bytes()).to_bytes();
        let [f0, f1, f2, f3, ..] = facts;
        let id = FlightId {
            year: self.whole("year", "a year", 1..=9999)?,
            month: self.whole("month", "a month from 1 to 12", 1..=12)?,
            day: self.whole("day", "a day from 1 to 31", 1..=31)?,
            carrier: self.code("carrier")?,
            number: self.whole("flight", "a flight number", 0..=u32::MAX)?,
            origin: self.code("origin")?,
            dest: self.code("dest")?,
            scheduled: self.time_of_day("sched_dep_time")?.ok_or_else(|| self.wrong("sched_dep_time", CLOCK))?,
            facts: u32::from_be_bytes([f0, f1, f2, f3]),
            occurrence: 1,
        };
        let arrival = self.time_of_day("sched_arr_time")?;
        let distance = self.whole("distance", "a number of miles", 0..=u32::MAX)?;
        Ok(Row {
            tail: self.text("tailnum").map(str::to_owned),
            flight: Flight { id, arrival, distance, outcome: self.outcome()? },
        })
    }

    fn outcome(&self) -> Result<Outcome, RowError> {
        let departed = match (self.time_of_day("dep_time")?, self.delay("dep_delay")?) {
            (None, _) => return Ok(Outcome::Cancelled),
            (Some(at), Some(delay)) => Movement { at, delay },
            (Some(_), None) => return Err(self.wrong("dep_delay", "a delay, as there is a departure time")),
        };
        let minutes = self.optional("air_time", "a number of minutes or NA", 0..=u32::MAX)?;
        Ok(match (self.time_of_day("arr_time")?, self.delay("arr_delay")?) {
            (Some(at), Some(delay)) => Outcome::Arrived { departed, arrived: Movement { at, delay }, minutes },
            _ => Outcome::Diverted { departed },
        })
    }

    /// A field; [`None`] if it is `NA` or empty.
    fn text(&self, column: &'static str) -> Option<&str> {
        let place = COLUMNS.iter().zip(&self.rows.places).find(|(name, _)| **name == column);
        let field = place.and_then(|(_, place)| self.rows.record.get(*place)).unwrap_or("").trim();
        (!field.is_empty() && field != "NA").then_some(field)
    }

    /// A short code, such as `UA` or `EWR`.
    fn code(&self, column: &'static str) -> Result<String, RowError> {
        match self.text(column) {
            Some(code) if code.len() <= 8 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(code.to_owned())
            }
            _ => Err(self.wrong(column, "a code of letters and digits")),
        }
    }

    /// Hours and minutes, `517` for 05:17, or `NA`.
    fn time_of_day(&self, column: &'static str) -> Result<Option<u16>, RowError> {
        match self.optional(column, CLOCK, 0..=2400)? {
            Some(time) if time % 100 >= 60 => Err(self.wrong(column, CLOCK)),
            time => Ok(time),
        }
    }

    fn delay(&self, column: &'static str) -> Result<Option<i32>, RowError> {
        self.optional(column, "a whole number of minutes or NA", -100_000..=100_000)
    }

    fn whole<T>(
        &self,
        column: &'static str,
        expected: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, RowError>
    where
        T: std::str::FromStr + PartialOrd,
    {
        self.optional(column, expected, range)?.ok_or_else(|| self.wrong(column, expected))
    }

    fn optional<T>(
        &self,
        column: &'static str,
        expected: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<Option<T>, RowError>
    where
        T: std::str::FromStr + PartialOrd,
    {
        let Some(text) = self.text(column) else { return Ok(None) };
        // Tools without missing integers write the other values of such a column as 2.0.
        let digits = text.strip_suffix(".0").unwrap_or(text);
        match digits.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(column, expected)),
        }
    }

    fn wrong(&self, column: &'static str, expected: &'static str) -> RowError {
        RowError::Value {
            path: self.rows.path.clone(),
            row: self.rows.row,
            line: self.rows.record.position().map_or(0, csv::Position::line),
            column,
            value: self.text(column).unwrap_or("NA").to_owned(),
            expected,
        }
    }
}
