//! Finds events by tags and types: the only file that queries the table `es_posting`.
//!
//! A term is a tag, by its number, or a type, by its negated number. A posting is (`term`, `position`) and `nth`: how
//! many postings of the term there are up to this one. A tag has a posting for each of its events. A type has one for
//! its first event in each block of 1,024 positions, which costs an event next to nothing.
//!
//! Postings have no checksum, so their neighbours verify them. Those of a term are numbered without a gap, in the order
//! of their positions; before the first is a posting of a lower term, and after the last is the first of a higher one. A
//! posting that a result depends on is confirmed by the row it leads to. So are its neighbours on both sides, because a
//! search that was misled ends next to the posting that misled it. See `docs/decisions/0031-tags-in-sqlite.md`.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

use es_framework::{Position, StoreError};
use tokio_rusqlite::rusqlite::{Connection, Row};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::rows::{Header, REMOVED, TAGGED_COLUMNS};
use crate::tables::stream_index::were_deleted;

/// The postings after a place, of higher terms too.
const AFTER: &str =
    "SELECT term, position, nth FROM es_posting WHERE (term, position) > (?1, ?2) ORDER BY term, position";
/// The postings before a place, of lower terms too.
const BEFORE: &str = "SELECT term, position, nth FROM es_posting WHERE (term, position) < (?1, ?2)
     ORDER BY term DESC, position DESC";

static ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TAGGED_COLUMNS} FROM es_event NOT INDEXED WHERE position = ?1"));
static LAST_ROW: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {TAGGED_COLUMNS} FROM es_event NOT INDEXED ORDER BY position DESC LIMIT 1"));

/// How many postings are read at first, and at most, before the first of them is used.
const CHUNK: usize = 64;
const LARGEST_CHUNK: usize = 1_024;

/// The number of positions in a block, as a power of two.
const BLOCK_BITS: u32 = 10;

const OUT_OF_ORDER: &str = "does not follow the one before it, or postings between them are missing";
const WITHOUT_EVENTS: &str = "should be here: every tag and every type has an event";

/// The block of a place.
pub(crate) fn block(place: u64) -> u64 {
    place >> BLOCK_BITS
}

/// The first place of a block; 0, where there is no event, is in the first one.
pub(crate) fn first_of(block: u64) -> u64 {
    block << BLOCK_BITS
}

/// The last place of a block.
pub(crate) fn last_of(block: u64) -> u64 {
    (block << BLOCK_BITS) | ((1 << BLOCK_BITS) - 1)
}

/// The term of a type.
pub(crate) fn term_of_type(event_type: i64) -> i64 {
    event_type.saturating_neg()
}

/// The last posting of a term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TermEnd {
    /// Its position.
    pub(crate) position: Position,
    /// The number of postings.
    pub(crate) count: i64,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Posting {
    term: i64,
    position: i64,
    nth: i64,
}

impl Posting {
    fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        let posting = || Ok(Self { term: row.get(0)?, position: row.get(1)?, nth: row.get(2)? });
        posting().map_err(errors::store)
    }

    fn place(self) -> u64 {
        self.position.max(0).unsigned_abs()
    }

    /// Checks that the event it leads to has the term. An event that is damaged itself refutes nothing: whoever reads it
    /// reports it, and the events around it can be read.
    fn confirm(self, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(&ROW).map_err(errors::store)?;
        let mut rows = statement.query([self.position]).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else {
            return self.unless_deleted(connection, "leads to no event");
        };
        let confirmed = Header::of(row).and_then(|header| {
            header.verify(row, connection, names)?;
            has_term(&header, row, self.term)
        });
        match confirmed {
            Ok(true) | Err(StoreError::Corrupt { .. }) if self.is_only_one(connection)? => Ok(()),
            Ok(true) | Err(StoreError::Corrupt { .. }) => Err(self.damaged("is not the only one of its block")),
            Ok(false) => Err(self.damaged("leads to an event that does not have it")),
            Err(error) => Err(error),
        }
    }

    /// Whether a posting of a type is the only one of its block. One that was moved into another block is not.
    fn is_only_one(self, connection: &Connection) -> Result<bool, StoreError> {
        if self.term > 0 {
            return Ok(true);
        }
        let block = block(self.place());
        let bounds = [first_of(block), last_of(block)].map(|place| Position::new(place).as_i64());
        let count: i64 = connection
            .prepare_cached("SELECT count(*) FROM es_posting WHERE term = ?1 AND position BETWEEN ?2 AND ?3")
            .and_then(|mut statement| statement.query_row((self.term, bounds[0], bounds[1]), |row| row.get(0)))
            .map_err(errors::store)?;
        Ok(count <= 1)
    }

    fn damaged(self, reason: &str) -> StoreError {
        let what = if self.term > 0 { "tag" } else { "event type" };
        let at = Some(Position::new(self.place())).filter(|_| self.position > 0);
        let number = self.term.unsigned_abs();
        errors::damaged(at, format!("the postings are damaged: one of {what} number {number} {reason}"))
    }

    /// The same, unless events were deleted.
    fn unless_deleted(self, connection: &Connection, reason: &str) -> Result<(), StoreError> {
        if were_deleted(connection)? { Ok(()) } else { Err(self.damaged(reason)) }
    }
}

/// Whether an event has a term; one whose content was removed has those it had.
fn has_term(header: &Header, row: &Row<'_>, term: i64) -> Result<bool, StoreError> {
    Ok(header.event_type == REMOVED
        || if term > 0 { header.has_tag(row, term)? } else { term_of_type(header.event_type) == term })
}

/// Adds the postings of the events that were written before there were any, and returns the last one of each type. Those
/// events have no tags.
pub(crate) fn make(connection: &Connection) -> Result<HashMap<i64, TermEnd>, StoreError> {
    let mut events = connection
        .prepare("SELECT position, type FROM es_event NOT INDEXED ORDER BY position")
        .map_err(errors::store)?;
    let mut insert = connection
        .prepare("INSERT INTO es_posting (term, position, nth) VALUES (?1, ?2, ?3)")
        .map_err(errors::store)?;
    let mut ends: HashMap<i64, TermEnd> = HashMap::new();
    let mut rows = events.query([]).map_err(errors::store)?;
    while let Some(row) = rows.next().map_err(errors::store)? {
        let (position, event_type): (i64, i64) =
            row.get(0).and_then(|position| Ok((position, row.get(1)?))).map_err(errors::store)?;
        let place = position.max(0).unsigned_abs();
        let end = ends.entry(event_type).or_default();
        if event_type == REMOVED || end.count > 0 && block(end.position.get()) == block(place) {
            continue;
        }
        *end = TermEnd { position: Position::new(place), count: end.count + 1 };
        insert.execute((term_of_type(event_type), position, end.count)).map_err(errors::store)?;
    }
    Ok(ends)
}

/// Returns the last posting of a term.
///
/// # Errors
///
/// [`StoreError::Corrupt`] if it cannot be trusted: a term that has a number has an event.
pub(crate) fn end(connection: &Connection, names: &mut Names, term: i64) -> Result<TermEnd, StoreError> {
    let mut last = Postings::backward(connection, names, term, 0, Position::MAX.get())?;
    let Some(posting) = last.peek(connection, names)? else { return Ok(TermEnd::default()) };
    posting.confirm(connection, names)?;
    Ok(TermEnd { position: Position::new(posting.place()), count: posting.nth })
}

/// Returns the number of postings of a term above `after` and up to `upto`, as far as they are intact.
pub(crate) fn count(connection: &Connection, term: i64, after: u64, upto: u64) -> Result<u64, StoreError> {
    let up_to = |place: u64| -> Result<i64, StoreError> {
        let found = neighbour(connection, BEFORE, term, place.saturating_add(1))?;
        Ok(found.filter(|posting| posting.term == term).map_or(0, |posting| posting.nth))
    };
    Ok(up_to(upto)?.saturating_sub(up_to(after)?).max(0).unsigned_abs())
}

/// Verifies up to `limit` postings after one (term, position, nth), and calls `verified` with the result for each.
/// Returns the last of them, unless it was the last of all.
pub(crate) fn verify(
    connection: &Connection,
    names: &mut Names,
    after: (i64, i64, i64),
    limit: u32,
    mut verified: impl FnMut(Result<(), StoreError>) -> Result<(), StoreError>,
) -> Result<Option<(i64, i64, i64)>, StoreError> {
    let mut statement = connection.prepare_cached(AFTER).map_err(errors::store)?;
    let mut rows = statement.query((after.0, after.1)).map_err(errors::store)?;
    let mut before = Posting { term: after.0, position: after.1, nth: after.2 };
    for _ in 0..limit {
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
        let posting = Posting::of(row)?;
        let expected = if posting.term == before.term { before.nth.saturating_add(1) } else { 1 };
        let follows = if posting.nth == expected { Ok(()) } else { posting.unless_deleted(connection, OUT_OF_ORDER) };
        verified(follows.and_then(|()| posting.confirm(connection, names)))?;
        before = posting;
    }
    Ok(Some((before.term, before.position, before.nth)))
}

/// Whether there is a posting for a term of the event at this position, or, for a type, of an earlier one of its block.
pub(crate) fn is_posted(connection: &Connection, term: i64, position: Position) -> Result<bool, StoreError> {
    let first = if term > 0 { position } else { Position::new(first_of(block(position.get()))) };
    connection
        .prepare_cached("SELECT 1 FROM es_posting WHERE term = ?1 AND position BETWEEN ?2 AND ?3")
        .and_then(|mut statement| statement.exists((term, first.as_i64(), position.as_i64())))
        .map_err(errors::store)
}

/// The posting next to a place, whatever its term.
fn neighbour(connection: &Connection, sql: &str, term: i64, place: u64) -> Result<Option<Posting>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
    let mut rows = statement.query((term, Position::new(place).as_i64())).map_err(errors::store)?;
    rows.next().map_err(errors::store)?.map(Posting::of).transpose()
}

/// The places of the postings of one term within a span, one after the other, in either direction.
#[derive(Debug)]
pub(crate) struct Postings {
    term: i64,
    forward: bool,
    /// The last place that is wanted.
    bound: u64,
    /// The place of the posting read last, or where the span begins.
    at: u64,
    /// The number of the posting read last, or of the one next to the span on its near side; [`None`] if there is none.
    nth: Option<i64>,
    ahead: VecDeque<Posting>,
    /// The place of the posting that was confirmed last.
    confirmed: Option<u64>,
    chunk: usize,
    finished: bool,
}

impl Postings {
    /// Finds the postings above `after`, up to `upto`, in the order of their positions.
    pub(crate) fn forward(
        connection: &Connection,
        names: &mut Names,
        term: i64,
        after: u64,
        upto: u64,
    ) -> Result<Self, StoreError> {
        let mut postings = Self::new(term, true, after, upto);
        if let Some(before) = neighbour(connection, BEFORE, term, after.saturating_add(1))? {
            before.confirm(connection, names)?;
            if before.term == term {
                if before.place() > after {
                    return Err(before.damaged(OUT_OF_ORDER));
                }
                postings.nth = Some(before.nth);
            }
        }
        Ok(postings)
    }

    /// Finds the same postings from the newest to the oldest.
    pub(crate) fn backward(
        connection: &Connection,
        names: &mut Names,
        term: i64,
        after: u64,
        upto: u64,
    ) -> Result<Self, StoreError> {
        let mut postings = Self::new(term, false, upto.saturating_add(1), after.saturating_add(1));
        match neighbour(connection, AFTER, term, upto)? {
            Some(behind) if behind.term == term => {
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

    fn new(term: i64, forward: bool, at: u64, bound: u64) -> Self {
        let ahead = VecDeque::new();
        Self { term, forward, bound, at, nth: None, ahead, confirmed: None, chunk: CHUNK, finished: false }
    }

    /// The term.
    pub(crate) fn term(&self) -> i64 {
        self.term
    }

    /// The place of the next posting.
    pub(crate) fn next(&mut self, connection: &Connection, names: &mut Names) -> Result<Option<u64>, StoreError> {
        Ok(self.peek(connection, names)?.map(Posting::place))
    }

    /// Moves on, if the next posting is at this place; returns whether it was.
    pub(crate) fn pass(&mut self, place: u64) -> bool {
        let is_next = self.ahead.front().is_some_and(|posting| posting.place() == place);
        if is_next {
            self.ahead.pop_front();
        }
        is_next
    }

    /// Moves on behind the next posting.
    pub(crate) fn pop(&mut self) {
        self.ahead.pop_front();
    }

    /// Confirms the next posting by the row it leads to: only then it is certain that none was before it.
    pub(crate) fn confirm(&mut self, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        match self.ahead.front() {
            Some(posting) if self.confirmed != Some(posting.place()) => {
                posting.confirm(connection, names)?;
                self.confirmed = Some(posting.place());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn peek(&mut self, connection: &Connection, names: &mut Names) -> Result<Option<Posting>, StoreError> {
        if self.ahead.is_empty() && !self.finished {
            self.fill(connection, names)?;
        }
        Ok(self.ahead.front().copied())
    }

    /// Reads the next postings. If it meets damage behind good ones, the next call reports it.
    fn fill(&mut self, connection: &Connection, names: &mut Names) -> Result<(), StoreError> {
        let sql = if self.forward { AFTER } else { BEFORE };
        let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
        let mut rows = statement.query((self.term, Position::new(self.at).as_i64())).map_err(errors::store)?;
        while self.ahead.len() < self.chunk {
            let posting = rows.next().map_err(errors::store)?.map(Posting::of).transpose()?;
            match self.take(connection, names, posting) {
                Ok(()) if self.finished => return Ok(()),
                Ok(()) => {}
                Err(StoreError::Corrupt { .. }) if !self.ahead.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.chunk = (self.chunk * 2).min(LARGEST_CHUNK);
        Ok(())
    }

    /// Takes the next row of the table, or its end.
    fn take(&mut self, connection: &Connection, names: &mut Names, next: Option<Posting>) -> Result<(), StoreError> {
        let Some(posting) = next.filter(|posting| posting.term == self.term) else {
            self.end(connection, names, next)?;
            self.finished = true;
            return Ok(());
        };
        let place = posting.place();
        let onward = if self.forward { place > self.at } else { place < self.at };
        let expected = match (self.forward, self.nth) {
            (true, nth) => Some(nth.unwrap_or(0).saturating_add(1)),
            (false, nth) => nth.map(|nth| nth.saturating_sub(1)),
        };
        if !onward || posting.nth < 1 {
            return Err(posting.damaged(OUT_OF_ORDER));
        }
        if expected.is_some_and(|expected| expected != posting.nth) {
            posting.unless_deleted(connection, OUT_OF_ORDER)?;
        }
        if if self.forward { place > self.bound } else { place < self.bound } {
            // Nobody else looks at the row it leads to.
            posting.confirm(connection, names)?;
            self.finished = true;
        } else {
            self.ahead.push_back(posting);
        }
        (self.at, self.nth) = (place, Some(posting.nth));
        Ok(())
    }

    /// Checks that the postings of the term end here, before one of another term or at the end of the table.
    fn end(&self, connection: &Connection, names: &mut Names, next: Option<Posting>) -> Result<(), StoreError> {
        let nth = self.nth.unwrap_or(0);
        let last = Posting { term: self.term, position: Position::new(self.at).as_i64(), nth };
        if self.nth.is_none() {
            last.unless_deleted(connection, WITHOUT_EVENTS)?;
        }
        if self.forward {
            return self.ends_before(connection, names, next);
        }
        if nth > 1 {
            last.unless_deleted(connection, OUT_OF_ORDER)?;
        }
        next.map_or(Ok(()), |next| next.confirm(connection, names))
    }

    /// Checks what is behind the last posting of the term: the first of another term, or the end of the table. If the
    /// last event of the log has the term, it has to be there.
    fn ends_before(&self, connection: &Connection, names: &mut Names, next: Option<Posting>) -> Result<(), StoreError> {
        if let Some(next) = next {
            if next.nth != 1 || next.term < self.term {
                next.unless_deleted(connection, OUT_OF_ORDER)?;
            }
            next.confirm(connection, names)?;
        }
        let mut statement = connection.prepare_cached(&LAST_ROW).map_err(errors::store)?;
        let mut rows = statement.query([]).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(()) };
        let Ok(header) = Header::of(row) else { return Ok(()) };
        let lacks_it = header.event_type != REMOVED
            && has_term(&header, row, self.term).unwrap_or(false)
            && !is_posted(connection, self.term, header.position)?;
        if lacks_it {
            Err(header.damaged("it cannot be found by its tags or its type: a posting is missing"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postings_are_found_in_either_direction_without_a_row_of_the_log() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        crate::tables::schema::add_tags(&connection).unwrap();
        for sql in [AFTER, BEFORE] {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let mut statement = connection.prepare(&explain).unwrap();
            let plan: Vec<String> =
                statement.query_map((1, 1), |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(plan.len(), 1, "sorted: {plan:?}");
            assert!(plan[0].starts_with("SEARCH es_posting USING PRIMARY KEY"), "{plan:?}");
        }
    }
}
