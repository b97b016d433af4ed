//! Finds the events with a tag: the only file that queries the table `es_tag_event`.
//!
//! An entry is (`tag`, `position`) and `nth`: the number of events that have had the tag so far, this one included.
//! Entries have no checksum, so their neighbours verify them. The entries of a tag are numbered without a gap, in the
//! order of their positions; what lies before the first is an entry of a lower tag, what lies behind the last is the
//! first of a higher one. An entry that a result depends on is confirmed by the row that it leads to: its neighbours on
//! both sides too, because a search that was misled ends next to the entry that misled it.
//! See `docs/decisions/0031-tags.md`.

use std::collections::VecDeque;
use std::sync::LazyLock;

use es_framework::{Position, StoreError};
use tokio_rusqlite::rusqlite::{Connection, Row};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::rows::{Header, REMOVED, TAGGED_COLUMNS};
use crate::tables::stream_index::were_deleted;

/// The entries after a place, of higher tags too.
const AFTER: &str =
    "SELECT tag, position, nth FROM es_tag_event WHERE (tag, position) > (?1, ?2) ORDER BY tag, position";
/// The entries before a place, of lower tags too.
const BEFORE: &str = "SELECT tag, position, nth FROM es_tag_event WHERE (tag, position) < (?1, ?2)
     ORDER BY tag DESC, position DESC";

static ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TAGGED_COLUMNS} FROM es_event NOT INDEXED WHERE position = ?1"));

/// How many entries are read at first, and at most, before the first of them is used.
const CHUNK: usize = 64;
const LARGEST_CHUNK: usize = 1_024;

/// Where the events with a tag end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TagEnd {
    /// The position of the last event.
    pub(crate) position: Position,
    /// The number of events.
    pub(crate) count: i64,
}

/// An entry of the index.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: i64,
    position: i64,
    nth: i64,
}

impl Entry {
    fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        let entry = || Ok(Self { tag: row.get(0)?, position: row.get(1)?, nth: row.get(2)? });
        entry().map_err(errors::store)
    }

    fn place(self) -> u64 {
        self.position.max(0).unsigned_abs()
    }

    /// Checks that the row that the entry leads to has its tag. A row that is damaged itself refutes nothing: whoever
    /// reads it reports it, and the events after it can be read.
    fn confirm(self, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(&ROW).map_err(errors::store)?;
        let mut rows = statement.query([self.position]).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else {
            return self.unless_deleted(connection, "leads to no event");
        };
        let confirmed = Header::of(row).and_then(|header| {
            header.verify(row, connection, names)?;
            Ok(header.event_type == REMOVED || header.has_tag(row, self.tag)?)
        });
        match confirmed {
            Ok(true) | Err(StoreError::Corrupt { .. }) => Ok(()),
            Ok(false) => Err(self.damaged("leads to an event without the tag")),
            Err(error) => Err(error),
        }
    }

    fn damaged(self, reason: &str) -> StoreError {
        let Self { tag, position, .. } = self;
        let at = Some(Position::new(self.place())).filter(|_| position > 0);
        errors::damaged(at, format!("the index over tags is damaged: an entry of tag number {tag} {reason}"))
    }

    /// The same, unless events were deleted.
    fn unless_deleted(self, connection: &Connection, reason: &str) -> Result<(), StoreError> {
        if were_deleted(connection)? { Ok(()) } else { Err(self.damaged(reason)) }
    }
}

/// Returns where the events with this tag number end.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if that cannot be trusted: a tag that has a number has an event.
pub(crate) fn end(connection: &Connection, names: &mut Names, tag: i64) -> Result<TagEnd, StoreError> {
    let mut last = Postings::backward(connection, names, tag, 0, Position::MAX.get())?;
    match last.peek(connection, names)? {
        Some(entry) => {
            entry.confirm(connection, names)?;
            Ok(TagEnd { position: Position::new(entry.place()), count: entry.nth })
        }
        None => Ok(TagEnd::default()),
    }
}

/// Returns the number of events with this tag above `after` and up to `upto`, as far as the index is intact.
pub(crate) fn count(connection: &Connection, tag: i64, after: u64, upto: u64) -> Result<u64, StoreError> {
    let upto_there = |place: u64| -> Result<i64, StoreError> {
        let found = neighbour(connection, BEFORE, tag, place.saturating_add(1))?;
        Ok(found.filter(|entry| entry.tag == tag).map_or(0, |entry| entry.nth))
    };
    Ok(upto_there(upto)?.saturating_sub(upto_there(after)?).max(0).unsigned_abs())
}

/// Verifies up to `limit` entries after one (tag, position, number), and calls `verified` with the result for each.
/// Returns the last of them, unless it was the last of the index.
pub(crate) fn verify(
    connection: &Connection,
    names: &mut Names,
    after: (i64, i64, i64),
    limit: u32,
    mut verified: impl FnMut(Result<(), StoreError>) -> Result<(), StoreError>,
) -> Result<Option<(i64, i64, i64)>, StoreError> {
    let mut statement = connection.prepare_cached(AFTER).map_err(errors::store)?;
    let mut rows = statement.query((after.0, after.1)).map_err(errors::store)?;
    let mut before = Entry { tag: after.0, position: after.1, nth: after.2 };
    for _ in 0..limit {
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
        let entry = Entry::of(row)?;
        let expected = if entry.tag == before.tag { before.nth.saturating_add(1) } else { 1 };
        let follows = if entry.nth == expected { Ok(()) } else { entry.unless_deleted(connection, OUT_OF_ORDER) };
        verified(follows.and_then(|()| entry.confirm(connection, names)))?;
        before = entry;
    }
    Ok(Some((before.tag, before.position, before.nth)))
}

/// Whether the index has an entry for an event with a tag.
pub(crate) fn has_entry(connection: &Connection, tag: i64, position: Position) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM es_tag_event WHERE tag = ?1 AND position = ?2")
        .and_then(|mut statement| statement.exists((tag, position.as_i64())))
        .map_err(errors::store)
}

const OUT_OF_ORDER: &str = "does not follow the one before it, or entries between them are missing";
const WITHOUT_EVENTS: &str = "is missing, although every tag that has a number has an event";

/// The entry next to a place, whatever its tag.
fn neighbour(connection: &Connection, sql: &str, tag: i64, place: u64) -> Result<Option<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query((tag, Position::new(place).as_i64())).map_err(errors::store)?;
    rows.next().map_err(errors::store)?.map(Entry::of).transpose()
}

/// The positions of the events with one tag within a span, one after the other, in either direction.
#[derive(Debug)]
pub(crate) struct Postings {
    tag: i64,
    forward: bool,
    /// The last place that is wanted.
    bound: u64,
    /// The place of the entry read last, or where the span begins.
    at: u64,
    /// The number of the entry read last, or of the one next to the span on its near side; [`None`] if there is none.
    nth: Option<i64>,
    ahead: VecDeque<Entry>,
    chunk: usize,
    finished: bool,
}

impl Postings {
    /// Finds the events above `after`, up to `upto`, in the order of their positions.
    pub(crate) fn forward(
        connection: &Connection,
        names: &mut Names,
        tag: i64,
        after: u64,
        upto: u64,
    ) -> Result<Self, StoreError> {
        let mut postings = Self::new(tag, true, after, upto);
        if let Some(before) = neighbour(connection, BEFORE, tag, after.saturating_add(1))? {
            before.confirm(connection, names)?;
            if before.tag == tag {
                if before.place() > after {
                    return Err(before.damaged(OUT_OF_ORDER));
                }
                postings.nth = Some(before.nth);
            }
        }
        Ok(postings)
    }

    /// Finds the same events from the newest to the oldest.
    pub(crate) fn backward(
        connection: &Connection,
        names: &mut Names,
        tag: i64,
        after: u64,
        upto: u64,
    ) -> Result<Self, StoreError> {
        let mut postings = Self::new(tag, false, upto.saturating_add(1), after.saturating_add(1));
        match neighbour(connection, AFTER, tag, upto)? {
            Some(behind) if behind.tag == tag => {
                behind.confirm(connection, names)?;
                if behind.place() <= upto {
                    return Err(behind.damaged(OUT_OF_ORDER));
                }
                postings.nth = Some(behind.nth);
            }
            behind => postings.ends_before(connection, names, behind)?,
        }
        Ok(postings)
    }

    fn new(tag: i64, forward: bool, at: u64, bound: u64) -> Self {
        let ahead = VecDeque::new();
        Self { tag, forward, bound, at, nth: None, ahead, chunk: CHUNK, finished: false }
    }

    /// The place of the next event.
    pub(crate) fn next(&mut self, connection: &Connection, names: &mut Names) -> Result<Option<u64>, StoreError> {
        Ok(self.peek(connection, names)?.map(Entry::place))
    }

    /// Moves on, if the next event is the one at this place; returns whether it was.
    pub(crate) fn pass(&mut self, place: u64) -> bool {
        let is_next = self.ahead.front().is_some_and(|entry| entry.place() == place);
        if is_next {
            self.ahead.pop_front();
        }
        is_next
    }

    /// The number of the tag.
    pub(crate) fn tag(&self) -> i64 {
        self.tag
    }

    fn peek(&mut self, connection: &Connection, names: &mut Names) -> Result<Option<Entry>, StoreError> {
        if self.ahead.is_empty() && !self.finished {
            self.fill(connection, names)?;
        }
        Ok(self.ahead.front().copied())
    }

    /// Reads the next entries. If it meets damage behind good ones, the next call reports it.
    fn fill(&mut self, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        let mut statement =
            connection.prepare_cached(if self.forward { AFTER } else { BEFORE }).map_err(errors::store)?;
        let mut rows = statement.query((self.tag, Position::new(self.at).as_i64())).map_err(errors::store)?;
        while self.ahead.len() < self.chunk {
            let entry = rows.next().map_err(errors::store)?.map(Entry::of).transpose()?;
            match self.take(connection, names, entry) {
                Ok(()) if self.finished => return Ok(()),
                Ok(()) => {}
                Err(StoreError::Corrupt { .. }) if !self.ahead.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.chunk = (self.chunk * 2).min(LARGEST_CHUNK);
        Ok(())
    }

    /// Takes the next entry of the index, or its end.
    fn take(&mut self, connection: &Connection, names: &mut Names, next: Option<Entry>) -> Result<(), StoreError> {
        let Some(entry) = next.filter(|entry| entry.tag == self.tag) else {
            self.end(connection, names, next)?;
            self.finished = true;
            return Ok(());
        };
        let place = entry.place();
        let onward = if self.forward { place > self.at } else { place < self.at };
        let expected = match (self.forward, self.nth) {
            (true, nth) => Some(nth.unwrap_or(0).saturating_add(1)),
            (false, nth) => nth.map(|nth| nth.saturating_sub(1)),
        };
        if !onward || entry.nth < 1 {
            return Err(entry.damaged(OUT_OF_ORDER));
        }
        if expected.is_some_and(|expected| expected != entry.nth) {
            entry.unless_deleted(connection, OUT_OF_ORDER)?;
        }
        if if self.forward { place > self.bound } else { place < self.bound } {
            // Nobody else looks at the row that it leads to.
            entry.confirm(connection, names)?;
            self.finished = true;
        } else {
            self.ahead.push_back(entry);
        }
        (self.at, self.nth) = (place, Some(entry.nth));
        Ok(())
    }

    /// Checks that the entries of the tag end here, before an entry of another one or at the end of the index.
    fn end(&self, connection: &Connection, names: &mut Names, next: Option<Entry>) -> Result<(), StoreError> {
        let last = Entry { tag: self.tag, position: Position::new(self.at).as_i64(), nth: self.nth.unwrap_or(0) };
        if self.nth.is_none() {
            last.unless_deleted(connection, WITHOUT_EVENTS)?;
        }
        if self.forward {
            return self.ends_before(connection, names, next);
        }
        if last.nth > 1 {
            last.unless_deleted(connection, OUT_OF_ORDER)?;
        }
        next.map_or(Ok(()), |next| next.confirm(connection, names))
    }

    /// Checks what is behind the last entry of the tag: the first of another tag, or the end of the index. If the last
    /// event of the log has the tag, it has an entry.
    fn ends_before(&self, connection: &Connection, names: &mut Names, next: Option<Entry>) -> Result<(), StoreError> {
        if let Some(next) = next {
            if next.nth != 1 || next.tag < self.tag {
                next.unless_deleted(connection, OUT_OF_ORDER)?;
            }
            next.confirm(connection, names)?;
        }
        let mut statement = connection.prepare_cached(&LAST_ROW).map_err(errors::store)?;
        let mut rows = statement.query([]).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(()) };
        let Ok(header) = Header::of(row) else { return Ok(()) };
        let lacks_it = header.event_type != REMOVED
            && header.has_tag(row, self.tag).unwrap_or(false)
            && !has_entry(connection, self.tag, header.position)?;
        if lacks_it { Err(header.damaged("the index over tags lacks an entry for it")) } else { Ok(()) }
    }
}

static LAST_ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TAGGED_COLUMNS} FROM es_event NOT INDEXED ORDER BY position DESC LIMIT 1"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_in_either_direction_without_a_row_of_the_log() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        crate::tables::schema::add_tags(&connection).unwrap();
        for sql in [AFTER, BEFORE] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let mut statement = connection.prepare(&explain).unwrap();
            let plan: Vec<String> =
                statement.query_map((1, 1), |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(plan.len(), 1, "sorted: {plan:?}");
            assert!(plan[0].starts_with("SEARCH es_tag_event USING PRIMARY KEY"), "{plan:?}");
        }
    }
}
