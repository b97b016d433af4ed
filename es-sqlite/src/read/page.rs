//! One page of a stream or of `@all`.

use std::fmt::Write;

use es_framework::{
    Clause, Direction, Filter, Mark, PAGE_SCAN, Page, Position, Read, StoreError, StoreId, StreamHead, Timestamp,
    Version,
};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::interned::{self, Names};
use crate::tables::log;
use crate::tables::rows::{self, COLUMNS, Header, REMOVED, natural};

/// More numbers than this in one `IN (…)` are left to the filter.
const IN_LIMIT: usize = 64;

/// What a page goes along: positions, or the versions of one stream.
#[derive(Debug, Clone, Copy)]
enum Axis {
    All,
    Stream(i64),
}

/// The part of the axis that can hold what is wanted: places above `after`, up to `upto`.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: u64,
    upto: u64,
}

/// What the query of a page asks for besides the span.
#[derive(Debug)]
struct Wanted {
    /// Conditions in SQL.
    sql: String,
    /// What is left for the one evaluator.
    filter: Filter,
}

/// Reads a page, within a transaction of the caller's.
pub(crate) fn read(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    read: &Read,
) -> Result<Page, StoreError> {
    let forward = read.direction == Direction::Forward;
    let axis = if read.stream.is_all() {
        Some(Axis::All)
    } else {
        log::stream_number(connection, &read.stream)?.map(Axis::Stream)
    };
    let head = match axis {
        Some(Axis::All) => log::head(connection)?.0.get(),
        Some(Axis::Stream(stream)) => log::version(connection, stream)?.get(),
        None => 0,
    };
    let low = read.after.min(head);
    let high = read.before.map_or(head, |before| before.saturating_sub(1).min(head)).max(low);
    let mut page = Page::default();
    page.head = head;
    page.stream = (!read.stream.is_all()).then(|| StreamHead::at(Version::new(head)));
    page.end = true;
    page.scanned = if forward { high.max(read.after) } else { low + 1 };
    if read.events == 0 {
        // Asked for the head only.
        page.end = low == high;
        page.scanned = if forward { read.after } else { high + 1 };
        return Ok(page);
    }
    if let Some(axis) = axis
        && low < high
    {
        let (wanted, span) = Wanted::of(connection, axis, &read.filter, Span { after: low, upto: high })?;
        if let Some(span) = span {
            scan(connection, names, store, axis, read, &wanted, span, &mut page)?;
        }
    }
    if forward && read.stream.is_all() {
        page.mark = mark(connection, page.scanned.min(head))?;
    }
    Ok(page)
}

#[expect(clippy::too_many_arguments, reason = "the parts of one page, in one place only")]
fn scan(
    connection: &Connection,
    names: &mut Names,
    store: StoreId,
    axis: Axis,
    read: &Read,
    wanted: &Wanted,
    span: Span,
    page: &mut Page,
) -> Result<(), StoreError> {
    let forward = read.direction == Direction::Forward;
    let most = PAGE_SCAN as u64;
    let Some(first) = first(connection, axis, span, forward)? else { return Ok(()) };
    // Rows at most, where places have no gaps; where they have, a page looks at fewer.
    let part = if forward {
        Span { after: first - 1, upto: span.upto.min(first - 1 + most) }
    } else {
        Span { after: span.after.max(first.saturating_sub(most)), upto: first }
    };
    let sql = axis.query(&wanted.sql, forward);
    let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
    let bounds = (signed(part.after), signed(part.upto));
    let mut found = match axis {
        Axis::All => statement.query(bounds),
        Axis::Stream(stream) => statement.query((bounds.0, bounds.1, stream)),
    }
    .map_err(errors::store)?;
    let mut buffer = rows::buffer(read.events, read.bytes);
    let mut bytes = 0;
    while let Some(row) = found.next().map_err(errors::store)? {
        let header = Header::of(row)?;
        if header.event_type == REMOVED {
            header.verify_removed(row)?;
            continue;
        }
        if !wanted.filter.is_empty() && !header.passes(&wanted.filter, row, connection, names)? {
            continue;
        }
        let content = header.content(row)?;
        bytes += content.bytes();
        if page.events.len() >= read.events || (bytes > read.bytes && !page.events.is_empty()) {
            let place = match axis {
                Axis::All => header.position.get(),
                Axis::Stream(_) => header.version.get(),
            };
            page.end = false;
            page.scanned = if forward { place - 1 } else { place + 1 };
            return Ok(());
        }
        page.events.push(header.event(content, connection, names, store, &mut buffer)?);
    }
    if forward && part.upto < span.upto {
        page.end = false;
        page.scanned = part.upto;
    }
    if !forward && part.after > span.after {
        page.end = false;
        page.scanned = part.after + 1;
    }
    Ok(())
}

impl Axis {
    fn query(self, conditions: &str, forward: bool) -> String {
        let order = if forward { "" } else { " DESC" };
        match self {
            Self::All => format!(
                "SELECT {COLUMNS} FROM es_event NOT INDEXED WHERE position > ?1 AND position <= ?2{conditions} \
                 ORDER BY position{order}"
            ),
            // Names no index: a later feature may do without the one that SQLite takes, and this build may still read.
            Self::Stream(_) => format!(
                "SELECT {COLUMNS} FROM es_event \
                 WHERE stream = ?3 AND version > ?1 AND version <= ?2{conditions} ORDER BY version{order}"
            ),
        }
    }
}

impl Wanted {
    /// Takes from a filter what SQL and the span can answer; no span if nothing can be wanted.
    fn of(
        connection: &Connection,
        axis: Axis,
        filter: &Filter,
        mut span: Span,
    ) -> Result<(Self, Option<Span>), StoreError> {
        let mut sql = String::new();
        let mut left = Filter::new();
        for clause in filter.clauses() {
            match (clause, axis) {
                (Clause::Types(names), _) if names.len() <= IN_LIMIT => {
                    push_in(&mut sql, "type", &interned::types_named(connection, names)?);
                }
                (Clause::Streams(streams), Axis::All) if streams.len() <= IN_LIMIT => {
                    let mut numbers = Vec::with_capacity(streams.len());
                    for stream in streams {
                        numbers.extend(log::stream_number(connection, stream)?);
                    }
                    push_in(&mut sql, "stream", &numbers);
                }
                (Clause::After(position), Axis::All) => span.after = span.after.max(position.get()),
                (Clause::Before(position), Axis::All) => span.upto = span.upto.min(position.get().saturating_sub(1)),
                (Clause::Since(time), Axis::All) => {
                    span.after = span.after.max(last_before(connection, span, *time)?);
                }
                (Clause::Until(time), Axis::All) => {
                    let after = Timestamp::from_micros(time.as_micros().saturating_add(1));
                    if after != *time {
                        span.upto = span.upto.min(last_before(connection, span, after)?);
                    }
                }
                _ => left = left.and(clause.clone()),
            }
        }
        Ok((Self { sql, filter: left }, (span.after < span.upto).then_some(span)))
    }
}

fn push_in(sql: &mut String, column: &str, numbers: &[i64]) {
    // The plus keeps SQLite from looking for an index: the rows are to come in the order of the axis.
    let _infallible = write!(sql, " AND +{column} IN (");
    for (i, number) in numbers.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _infallible = write!(sql, "{comma}{number}");
    }
    sql.push(')');
}

/// The last position in the span whose event was written before `time`, or the span's start: times never decrease.
fn last_before(connection: &Connection, span: Span, time: Timestamp) -> Result<u64, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT position, time FROM es_event WHERE position > ?1 ORDER BY position LIMIT 1")
        .map_err(errors::store)?;
    let Span { after: mut low, upto: mut high } = span;
    // All events up to `low` are earlier, none above `high` is.
    while low < high {
        let middle = low + (high - low) / 2;
        let next = statement
            .query_row([signed(middle)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()
            .map_err(errors::store)?;
        match next {
            Some((position, at)) if at < time.as_micros() => low = natural(position, None)?,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first place in the span, in the order of the read, that holds an event.
fn first(connection: &Connection, axis: Axis, span: Span, forward: bool) -> Result<Option<u64>, StoreError> {
    let Axis::All = axis else {
        // Versions have no gaps.
        return Ok(Some(if forward { span.after + 1 } else { span.upto }));
    };
    let (sql, bound) = if forward {
        ("SELECT position FROM es_event WHERE position > ?1 ORDER BY position LIMIT 1", span.after)
    } else {
        ("SELECT position FROM es_event WHERE position <= ?1 ORDER BY position DESC LIMIT 1", span.upto)
    };
    let first: Option<i64> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([signed(bound)], |row| row.get(0)).optional())
        .map_err(errors::store)?;
    let Some(first) = first else { return Ok(None) };
    let first = natural(first, None)?;
    Ok((first > span.after && first <= span.upto).then_some(first))
}

/// The last event at or below a position.
fn mark(connection: &Connection, upto: u64) -> Result<Option<Mark>, StoreError> {
    let mark: Option<(i64, i32)> = connection
        .prepare_cached("SELECT position, checksum FROM es_event WHERE position <= ?1 ORDER BY position DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([signed(upto)], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(errors::store)?;
    let Some((position, checksum)) = mark else { return Ok(None) };
    Ok(Some(Mark { position: Position::new(natural(position, None)?), checksum: checksum.cast_unsigned() }))
}

/// A place as SQL has it; what is beyond the highest there can be is the highest.
fn signed(place: u64) -> i64 {
    Position::new(place).as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::open;

    #[test]
    fn a_stream_is_read_by_its_index_in_either_direction() {
        let connection = open::memory(1 << 20).unwrap();
        for conditions in ["", " AND +type IN (1,2)"] {
            for forward in [true, false] {
                let explain = format!("EXPLAIN QUERY PLAN {}", Axis::Stream(1).query(conditions, forward));
                let plan = connection.query_row(&explain, (0, 10, 1), |row| row.get::<_, String>(3)).unwrap();
                assert!(plan.starts_with("SEARCH es_event USING INDEX es_event_version"), "{plan}");
            }
        }
    }
}
