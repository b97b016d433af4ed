//! Verifies a store, one bounded step after the other.

use std::fmt;

use bytes::BytesMut;
use es_framework::inspect::{Cursor, Finding, List, Verified};
use es_framework::{Position, Snapshot, StoreError, StoreId, Timestamp, Version};
use tokio_rusqlite::rusqlite::{Connection, Row, Rows};

use crate::connection::errors;
use crate::inspect::lists::{self, Keys};
use crate::tables::interned::{self, Names};
use crate::tables::rows::{Header, REMOVED};
use crate::tables::schema::Layout;
use crate::tables::{log, meta, postings, stream_index, streams, tags};

/// Maximum number of rows that one step checks.
const ROWS: u32 = 10_000;
/// Maximum number of list entries that one step checks; they are read one by one.
const ENTRIES: usize = 1_000;

const TABLES: [&str; 9] = [
    "es_meta",
    "es_stream",
    "es_event_type",
    "es_event",
    "es_command",
    "es_cell",
    "es_snapshot",
    // Only in a store with tags.
    "es_tag",
    "es_posting",
];
/// How many of them are in a store without tags.
const PLAIN_TABLES: usize = 7;

/// A step, in the order in which they are taken. A cursor is the step's name and where it continues.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Whether the pages of a table and its indexes are consistent, according to SQLite.
    Structure(usize),
    Meta,
    Streams(Option<Cursor>),
    Types(Option<Cursor>),
    Tags(Option<Cursor>),
    /// Rows of the log after a position, with the time of the row at that position.
    Events(Position, Timestamp),
    /// The versions of each stream, after one version of a stream number.
    Versions(i64, Version),
    /// The postings after one with this term, position and number.
    Postings(i64, i64, i64),
    Commands(Option<Cursor>),
    Cells(Option<Cursor>),
    Snapshots(Option<Cursor>),
    Checkpoints(Option<Cursor>),
}

impl Step {
    const EVENTS: Self = Self::Events(Position::ZERO, Timestamp::from_micros(i64::MIN));

    fn of(cursor: Option<&Cursor>) -> Result<Self, StoreError> {
        let Some(cursor) = cursor else { return Ok(Self::Structure(0)) };
        Self::parse(cursor.as_str()).ok_or_else(|| StoreError::InvalidCursor { cursor: cursor.as_str().to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('/')?;
        let after = || (!rest.is_empty()).then(|| Cursor::new(rest));
        Some(match name {
            "structure" => Self::Structure(rest.parse().ok()?),
            "meta" => Self::Meta,
            "streams" => Self::Streams(after()),
            "types" => Self::Types(after()),
            "tags" => Self::Tags(after()),
            "events" => {
                let (position, time) = rest.split_once('/')?;
                Self::Events(Position::new(position.parse().ok()?), Timestamp::from_micros(time.parse().ok()?))
            }
            "versions" => {
                let (stream, version) = rest.split_once('/')?;
                Self::Versions(stream.parse().ok()?, Version::new(version.parse().ok()?))
            }
            "postings" => {
                let mut numbers = rest.split('/').map(|number| number.parse().ok());
                Self::Postings(numbers.next()??, numbers.next()??, numbers.next()??)
            }
            "commands" => Self::Commands(after()),
            "cells" => Self::Cells(after()),
            "snapshots" => Self::Snapshots(after()),
            "checkpoints" => Self::Checkpoints(after()),
            _ => return None,
        })
    }

    fn cursor(&self) -> Cursor {
        let rest = |after: &Option<Cursor>| after.as_ref().map_or_else(String::new, Cursor::to_string);
        Cursor::new(match self {
            Self::Structure(table) => format!("structure/{table}"),
            Self::Meta => "meta/".to_owned(),
            Self::Streams(after) => format!("streams/{}", rest(after)),
            Self::Types(after) => format!("types/{}", rest(after)),
            Self::Tags(after) => format!("tags/{}", rest(after)),
            Self::Events(position, time) => format!("events/{position}/{}", time.as_micros()),
            Self::Versions(stream, version) => format!("versions/{stream}/{version}"),
            Self::Postings(term, position, nth) => format!("postings/{term}/{position}/{nth}"),
            Self::Commands(after) => format!("commands/{}", rest(after)),
            Self::Cells(after) => format!("cells/{}", rest(after)),
            Self::Snapshots(after) => format!("snapshots/{}", rest(after)),
            Self::Checkpoints(after) => format!("checkpoints/{}", rest(after)),
        })
    }

    /// The step that follows once this one is finished.
    fn next(&self, layout: Layout) -> Option<Self> {
        let tagged = layout == Layout::Tagged;
        let tables = if tagged { TABLES.len() } else { PLAIN_TABLES };
        Some(match self {
            Self::Structure(table) if table + 1 < tables => Self::Structure(table + 1),
            Self::Structure(_) => Self::Meta,
            Self::Meta => Self::Streams(None),
            Self::Streams(_) => Self::Types(None),
            Self::Types(_) if tagged => Self::Tags(None),
            Self::Types(_) | Self::Tags(_) => Self::EVENTS,
            Self::Events(..) => Self::Versions(0, Version::ZERO),
            Self::Versions(..) if tagged => Self::Postings(i64::MIN, 0, 0),
            Self::Versions(..) | Self::Postings(..) => Self::Commands(None),
            Self::Commands(_) => Self::Cells(None),
            Self::Cells(_) => Self::Snapshots(None),
            Self::Snapshots(_) => Self::Checkpoints(None),
            Self::Checkpoints(_) => return None,
        })
    }
}

/// Takes one step, within the caller's read transaction.
pub(super) fn step(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    after: Option<&Cursor>,
) -> Result<Verified, StoreError> {
    let step = Step::of(after)?;
    let mut verified = Verified::default();
    let layout = names.layout;
    let is_of_tags = match &step {
        Step::Structure(table) => *table >= PLAIN_TABLES,
        Step::Tags(_) | Step::Postings(..) => true,
        _ => false,
    };
    if is_of_tags && layout == Layout::Plain {
        return Err(StoreError::InvalidCursor { cursor: step.cursor().to_string() });
    }
    // An end of the log that cannot be believed is a finding of the steps that look at its rows.
    let head = log::find_head(connection)?.position;
    let same = match &step {
        Step::Structure(table) => structure(connection, *table, &mut verified),
        Step::Meta => facts(connection, &mut verified),
        Step::Streams(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Streams,
            |list| lists::stream_numbers(connection, list),
            |number| interned::read_stream(connection, *number, Position::ZERO).map(|_| None),
        ),
        Step::Types(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Types,
            |list| lists::type_numbers(connection, list),
            |number| interned::read_type(connection, *number, Position::ZERO).map(|_| None),
        ),
        Step::Tags(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Tags,
            |list| lists::tag_numbers(connection, list),
            |number| tags::read(connection, *number, Position::ZERO).map(|_| None),
        ),
        Step::Events(position, time) => events(connection, names, store, *position, *time, &mut verified),
        Step::Versions(stream, version) => versions(connection, *stream, *version, &mut verified),
        Step::Postings(term, position, nth) => {
            let mut found = 0;
            let next = postings::verify(connection, names, (*term, *position, *nth), ROWS, |entry| {
                found += 1;
                entry.map_or_else(|error| note(&mut verified, error), |()| Ok(()))
            });
            verified.checked += found;
            next.map(|next| next.map(|(term, position, nth)| Step::Postings(term, position, nth)))
        }
        Step::Commands(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Commands,
            |list| lists::command_keys(connection, list),
            |key| {
                let record = lists::command(connection, key)?;
                let beyond = record.filter(|record| record.appended.position > head);
                Ok(beyond.map(|record| {
                    format!("command {key} is at {}, beyond the end of the log", record.appended.position)
                }))
            },
        ),
        Step::Cells(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Cells,
            |list| lists::cell_keys(connection, list),
            |key| lists::cell(connection, key).map(|_| None),
        ),
        Step::Snapshots(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Snapshots,
            |list| lists::snapshot_keys(connection, list),
            |key| snapshot(connection, key, head),
        ),
        Step::Checkpoints(after) => each(
            &mut verified,
            after.as_ref(),
            Step::Checkpoints,
            |list| lists::checkpoint_names(connection, list),
            |name| {
                let checkpoint = lists::checkpoint(connection, name)?;
                let beyond = checkpoint.store == store && checkpoint.position > head;
                Ok(beyond.then(|| {
                    format!("the checkpoint of {name} is at {}, beyond the end of the log", checkpoint.position)
                }))
            },
        ),
    };
    let same = match same {
        Ok(same) => same,
        // The rest of this table cannot be read; the others can.
        Err(StoreError::Corrupt { position, reason }) => {
            verified.findings.push(Finding::new(reason).at(position));
            None
        }
        Err(error) => return Err(error),
    };
    verified.next = same.or_else(|| step.next(layout)).map(|step| step.cursor());
    Ok(verified)
}

fn structure(connection: &Connection, table: usize, verified: &mut Verified) -> Result<Option<Step>, StoreError> {
    let Some(name) = TABLES.get(table) else { return Ok(None) };
    // The pragma takes a table or a maximum number of findings, and stops at a hundred by itself.
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({name})")).map_err(errors::store)?;
    let mut rows = statement.query([]).map_err(errors::store)?;
    while let Some(row) = rows.next().map_err(errors::store)? {
        let said: String = row.get(0).map_err(errors::store)?;
        if said != "ok" {
            verified.findings.push(Finding::new(format!("{name}: {said}")));
        }
    }
    Ok(None)
}

fn facts(connection: &Connection, verified: &mut Verified) -> Result<Option<Step>, StoreError> {
    meta::store_id(connection)?;
    for key in [meta::GENERATION, meta::POSITION_FLOOR, meta::TIME_FLOOR] {
        meta::integer(connection, key)?;
        verified.checked += 1;
    }
    Ok(None)
}

/// Checks each entry of a page of a list, and records what is wrong with it.
fn each<K: fmt::Display>(
    verified: &mut Verified,
    after: Option<&Cursor>,
    step: impl Fn(Option<Cursor>) -> Step,
    keys: impl Fn(&List) -> Result<Keys<K>, StoreError>,
    mut look: impl FnMut(&K) -> Result<Option<String>, StoreError>,
) -> Result<Option<Step>, StoreError> {
    let Keys { keys, next } = keys(&List::new().limit(ENTRIES).after(after.cloned()))?;
    for key in &keys {
        verified.checked += 1;
        match look(key) {
            Ok(wrong) => verified.findings.extend(wrong.map(Finding::new)),
            Err(error) => note(verified, error)?,
        }
    }
    Ok(next.map(|next| step(Some(next))))
}

fn snapshot(connection: &Connection, key: &str, head: Position) -> Result<Option<String>, StoreError> {
    let Some(Snapshot { stream, name, at, .. }) = lists::snapshot(connection, key)? else { return Ok(None) };
    let end = match streams::number(connection, &stream)? {
        _ if stream.is_all() => head.get(),
        Some(number) => stream_index::version(connection, number)?.get(),
        None => 0,
    };
    Ok((at > end).then(|| format!("the snapshot {name} of {stream} is at {at}, beyond the end at {end}")))
}

fn events(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    after: Position,
    mut time: Timestamp,
    verified: &mut Verified,
) -> Result<Option<Step>, StoreError> {
    let sql = format!("SELECT {} FROM es_event WHERE position > ?1 ORDER BY position LIMIT ?2", names.columns());
    let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
    let mut rows = statement.query((after.as_i64(), ROWS)).map_err(errors::store)?;
    let mut position = after;
    let mut looked_at = 0;
    let mut buffer = BytesMut::new();
    while let Some(row) = rows.next().map_err(errors::store)? {
        looked_at += 1;
        verified.checked += 1;
        let header = match Header::of(row) {
            Ok(header) => header,
            Err(error) => {
                note(verified, error)?;
                // Only its place is sure, for it is the key that the row was found by.
                let at: i64 = row.get(0).map_err(errors::store)?;
                position = position.max(Position::new(at.max(0).unsigned_abs()));
                continue;
            }
        };
        position = header.position;
        let whole = if header.event_type == REMOVED {
            header.verify_removed(row)
        } else {
            header
                .content(row)
                .and_then(|content| header.event(content, connection, names, store, &mut buffer).map(drop))
        };
        match whole.and_then(|()| indexed(connection, names, &header, row)) {
            Ok(()) if header.time < time => {
                verified.findings.push(Finding::new("it is older than the event before it").at(position));
            }
            Ok(()) => time = header.time,
            Err(error) => note(verified, error)?,
        }
    }
    Ok((looked_at == ROWS).then_some(Step::Events(position, time)))
}

/// Checks that an event can be found by its type and each of its tags.
fn indexed(connection: &Connection, names: &Names, header: &Header, row: &Row<'_>) -> Result<(), StoreError> {
    if names.layout == Layout::Plain || header.event_type == REMOVED {
        return Ok(());
    }
    let mut terms = vec![postings::term_of_type(header.event_type)];
    header.each_tag(row, |number| terms.push(number))?;
    for term in terms {
        if !postings::is_posted(connection, term, header.position)? {
            let what = if term > 0 { "tag" } else { "event type" };
            return Err(header.damaged(format!("the posting for {what} number {} is missing", term.unsigned_abs())));
        }
    }
    Ok(())
}

/// Checks that each stream has the versions 1, 2, 3 … without a gap, including the rows of removed events.
fn versions(
    connection: &Connection,
    stream: i64,
    version: Version,
    verified: &mut Verified,
) -> Result<Option<Step>, StoreError> {
    let sql =
        "SELECT stream, version FROM es_event WHERE (stream, version) > (?1, ?2) ORDER BY stream, version LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query((stream, version.as_i64(), ROWS)).map_err(errors::store)?;
    let mut at = (stream, version.as_i64());
    let mut looked_at = 0;
    while let Some((stream, version)) = pair(&mut rows)? {
        looked_at += 1;
        let expected = if stream == at.0 { at.1.saturating_add(1) } else { 1 };
        if version != expected {
            let finding = match interned::read_stream(connection, stream, Position::ZERO) {
                Ok(stream) => {
                    Finding::new(format!("the events from version {expected} to {} are missing", version - 1))
                        .of(stream, None)
                }
                Err(_) => Finding::new(format!("stream number {stream} has a gap before version {version}")),
            };
            verified.findings.push(finding);
        }
        at = (stream, version);
    }
    Ok((looked_at == ROWS).then(|| Step::Versions(at.0, Version::new(at.1.max(0).unsigned_abs()))))
}

fn pair(rows: &mut Rows<'_>) -> Result<Option<(i64, i64)>, StoreError> {
    let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
    let pair = row.get(0).and_then(|stream| Ok((stream, row.get(1)?)));
    pair.map(Some).map_err(errors::store)
}

/// Damage is a finding; any other error ends the step.
fn note(verified: &mut Verified, error: StoreError) -> Result<(), StoreError> {
    match error {
        StoreError::Corrupt { position, reason } => {
            verified.findings.push(Finding::new(reason).at(position));
            Ok(())
        }
        error => Err(error),
    }
}
