//! The rows of a page.
//!
//! Every row that SQLite returns is verified, even one that the filter rejects, and it has to be the next one: places
//! have no gaps, unless the store says that rows were deleted. A page that meets damage ends before it, so that
//! everything before it is returned and the next page reports the damage.

use bytes::BytesMut;
use es_framework::engine::{Direction, PAGE_SCAN, Read};
use es_framework::{Mark, Position, StoreError, StoreId, StoredEvent};
use tokio_rusqlite::rusqlite::types::ValueRef;
use tokio_rusqlite::rusqlite::{Connection, Row};

use super::line::{Axis, Line, Span};
use super::wanted::Wanted;
use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::rows::{self, Header, REMOVED};

/// Up to this many rows are read one by one, and each of them is verified; longer stretches are left to SQL, which
/// takes a quarter of the time.
const EACH: u64 = 512;

/// A row that the filter rejects is verified too, unless its payload is longer than this.
const SMALL: usize = 4_096;

/// A page being read.
pub(super) struct Scan<'a> {
    pub(super) connection: &'a Connection,
    pub(super) names: &'a mut Names,
    store: StoreId,
    read: &'a Read,
    pub(super) line: &'a Line,
    wanted: &'a Wanted,
    pub(super) forward: bool,
}

/// The result of a scan.
pub(super) struct Found {
    pub(super) events: Vec<StoredEvent>,
    /// The number of events that were only counted.
    pub(super) counted: u64,
    /// The last place that was scanned.
    pub(super) place: u64,
    /// Whether the whole span was scanned.
    pub(super) end: bool,
    /// The last row, if it was read.
    pub(super) mark: Option<Mark>,
    pub(super) rows: u64,
    bytes: usize,
    buffer: BytesMut,
}

/// Whether a page has room for more events.
#[derive(PartialEq, Eq)]
pub(super) enum Room {
    Left,
    Full,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        names: &'a mut Names,
        store: StoreId,
        read: &'a Read,
        line: &'a Line,
        wanted: &'a Wanted,
    ) -> Self {
        let forward = read.direction == Direction::Forward;
        Self { connection, names, store, read, line, wanted, forward }
    }

    /// Scans the rows of a span, or as many as a page may scan.
    pub(super) fn run(&mut self, span: Span) -> Result<Found, StoreError> {
        if let Some(criteria) = &self.wanted.criteria {
            return self.by_postings(criteria, span);
        }
        if !self.wanted.condition.is_empty() && span.upto - span.after > EACH {
            match self.by_condition(span) {
                Ok(Some(found)) => return Ok(found),
                // Read one by one, the damage is reported where it is.
                Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut found = self.begin(span);
        match self.one_by_one(span, &mut found) {
            Err(StoreError::Corrupt { .. }) if found.rows > 0 => Ok(found),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    pub(super) fn begin(&self, span: Span) -> Found {
        Found {
            events: Vec::new(),
            counted: 0,
            place: if self.forward { span.after } else { span.upto + 1 },
            end: false,
            mark: None,
            rows: 0,
            bytes: 0,
            buffer: rows::buffer(self.read.events, self.read.bytes),
        }
    }

    fn one_by_one(&mut self, span: Span, found: &mut Found) -> Result<(), StoreError> {
        let Line { axis, gaps, .. } = *self.line;
        let places = span.upto - span.after;
        let most = if gaps { PAGE_SCAN as u64 } else { places.min(PAGE_SCAN as u64) };
        let connection = self.connection;
        let mut statement =
            connection.prepare_cached(&axis.query(&self.columns(), "", self.forward)).map_err(errors::store)?;
        let start = found.place;
        let mut rows = axis.run(&mut statement, start, most)?;
        while let Some(row) = rows.next().map_err(|error| self.store_at(found.place, error))? {
            let header = self.header(row)?;
            let place = axis.place(&header);
            if gaps && found.rows == 0 {
                self.verify_border(start, place)?;
            }
            if gaps && self.is_beyond(place, span) {
                self.expect_onward(found.place, &header)?;
                // Its checksum confirms that it belongs there.
                self.verify(&header, row)?;
                (found.place, found.end) = (if self.forward { span.upto } else { span.after + 1 }, true);
                return Ok(());
            }
            self.expect(found.place, &header, row)?;
            if self.take(&header, row, found)? == Room::Full {
                return Ok(());
            }
            found.place = place;
            found.rows += 1;
            found.mark = Some(Mark { position: header.position, checksum: header.checksum });
        }
        found.end = if found.rows == most {
            !gaps && most == places
        } else {
            // There were no more rows.
            self.verify_end(found.place, span)?;
            true
        };
        Ok(())
    }

    /// Called when there are no more rows: checks that all existing ones were seen.
    fn verify_end(&self, place: u64, span: Span) -> Result<(), StoreError> {
        let Line { last, gaps, ends_there, is_sound, .. } = *self.line;
        let all_seen = match self.forward {
            true if gaps => ends_there && place >= last.min(span.upto),
            // The last row was the last one in its place.
            true => !is_sound && ends_there && place == last,
            false => gaps,
        };
        if all_seen { Ok(()) } else { Err(self.missing(place)) }
    }

    /// Lets SQL skip the rows that the filter rejects. That verifies nothing about the rows in between, so they are
    /// counted.
    ///
    /// The SQL has no upper bound to stop at, because a row with a damaged number may be beyond any bound: instead,
    /// such a row is returned. [`None`] if something does not match.
    fn by_condition(&mut self, span: Span) -> Result<Option<Found>, StoreError> {
        let Line { axis, gaps, last, floor, .. } = *self.line;
        let (connection, forward, most) = (self.connection, self.forward, PAGE_SCAN as u64);
        let mut found = self.begin(span);
        let start = found.place;
        let mut part = span;
        if gaps {
            // If there are gaps, a page scans fewer rows.
            let Some(first) = axis.place_after(connection, start, 1, forward)? else { return Ok(None) };
            self.verify_border(start, first)?;
            match forward {
                true if first > start => part.upto = part.upto.min((first - 1).saturating_add(most)),
                false if first < start => part.after = part.after.max(first.saturating_sub(most)),
                _ => return Ok(None),
            }
        } else if forward {
            part.upto = part.upto.min(part.after + most);
        } else {
            part.after = part.after.max(part.upto.saturating_sub(most));
        }
        let condition = &self.wanted.condition;
        let column = axis.column();
        let (edge, sql) = if forward {
            (part.upto, axis.endless(self.names.columns(), &format!(" AND ({condition} OR {column} > ?2)"), true))
        } else {
            (part.after, axis.endless(self.names.columns(), &format!(" AND ({condition} OR {column} <= ?2)"), false))
        };
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        let mut rows = axis.run(&mut statement, start, edge)?;
        let mut before = start;
        let mut is_full = false;
        loop {
            let Some(row) = rows.next().map_err(errors::store)? else {
                // There is nothing beyond the part.
                if if forward { edge < last } else { edge > floor && !gaps } {
                    return Ok(None);
                }
                break;
            };
            let header = self.header(row)?;
            self.expect_onward(before, &header)?;
            before = axis.place(&header);
            if self.is_beyond(before, part) {
                if gaps {
                    self.verify(&header, row)?;
                } else if Some(before) != self.next(if forward { edge } else { edge + 1 }) {
                    return Ok(None);
                }
                break;
            }
            if self.take(&header, row, &mut found)? == Room::Full {
                is_full = true;
                break;
            }
        }
        found.place = match (is_full, forward) {
            (true, true) => before - 1,
            (true, false) => before + 1,
            (false, true) => part.upto,
            (false, false) => part.after + 1,
        };
        found.end = !is_full && found.place == if forward { span.upto } else { span.after + 1 };
        let places = found.place.abs_diff(start);
        if !gaps && places > 0 && axis.place_after(connection, start, places, forward)? != Some(found.place) {
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Adds an event to the page if the filter accepts it.
    pub(super) fn take(&mut self, header: &Header, row: &Row<'_>, found: &mut Found) -> Result<Room, StoreError> {
        let (connection, read) = (self.connection, self.read);
        if header.event_type == REMOVED {
            header.verify_removed(row)?;
            return Ok(Room::Left);
        }
        if !self.wanted.passes(header, row, connection, self.names)? {
            self.verify(header, row)?;
            return Ok(Room::Left);
        }
        if read.count {
            self.verify(header, row)?;
            found.counted += 1;
            return Ok(Room::Left);
        }
        let content = header.content(row)?;
        let is_full = |bytes| found.events.len() >= read.events || bytes > read.bytes && !found.events.is_empty();
        if is_full(found.bytes + content.bytes()) {
            return Ok(Room::Full);
        }
        let event = header.event(content, connection, self.names, self.store, &mut found.buffer)?;
        // Tags count too, and their texts are known only now.
        if !event.tags.is_empty() && is_full(found.bytes + event.bytes()) {
            return Ok(Room::Full);
        }
        found.bytes += event.bytes();
        found.events.push(event);
        Ok(Room::Left)
    }

    pub(super) fn header(&self, row: &Row<'_>) -> Result<Header, StoreError> {
        let header = Header::of(row)?;
        match self.line.axis {
            Axis::Stream(number) if header.stream != number => Err(header.damaged("it is of another stream")),
            _ => Ok(header),
        }
    }

    fn verify(&mut self, header: &Header, row: &Row<'_>) -> Result<(), StoreError> {
        let left_out = !self.wanted.condition.is_empty() && matches!(row.get_ref(8), Ok(ValueRef::Null));
        if left_out { Ok(()) } else { header.verify(row, self.connection, self.names) }
    }

    /// The columns of a row, without the payload if it is long and most likely not needed.
    fn columns(&self) -> String {
        let condition = &self.wanted.condition;
        let columns = self.names.columns();
        if condition.is_empty() {
            return columns.to_owned();
        }
        let payload = format!("CASE WHEN length(payload) <= {SMALL} OR {condition} THEN payload END");
        columns.replacen("payload", &payload, 1)
    }

    fn is_beyond(&self, place: u64, span: Span) -> bool {
        if self.forward { place > span.upto } else { place <= span.after }
    }

    /// If there may be gaps, nothing shows that the first row of a page is really the next one: a search misled by a
    /// damaged number ends next to the row that has it. So the row on the other side of the border is verified.
    fn verify_border(&mut self, start: u64, first: u64) -> Result<(), StoreError> {
        let axis = self.line.axis;
        let mut statement = self
            .connection
            .prepare_cached(&axis.query(self.names.columns(), "", !self.forward))
            .map_err(errors::store)?;
        let mut rows = axis.run(&mut statement, first, 1)?;
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(()) };
        let header = self.header(row)?;
        let place = axis.place(&header);
        if place == start {
            // The read may have started after it precisely because it is damaged.
            return Ok(());
        }
        header.verify(row, self.connection, self.names)?;
        if if self.forward { place <= start } else { place >= start } {
            Ok(())
        } else {
            Err(header.damaged("a search for it was misled"))
        }
    }

    /// Rejects a row that does not come after `before` in the order of the read.
    fn expect_onward(&self, before: u64, header: &Header) -> Result<(), StoreError> {
        let place = self.line.axis.place(header);
        if if self.forward { place > before } else { place < before } {
            Ok(())
        } else {
            Err(header.damaged("it does not lie where its number says"))
        }
    }

    /// Rejects a row that is not the next one after `before`, or, if there may be gaps, not anywhere after it.
    fn expect(&mut self, before: u64, header: &Header, row: &Row<'_>) -> Result<(), StoreError> {
        let place = self.line.axis.place(header);
        if self.line.gaps {
            return self.expect_onward(before, header);
        }
        if Some(place) == self.next(before) {
            return Ok(());
        }
        // If the row is intact, those in between are missing, and reading can continue with it. Otherwise its number is
        // damaged.
        let whole = self.expect_onward(before, header).and_then(|()| header.verify(row, self.connection, self.names));
        let next = Position::new(self.next(before).unwrap_or_default());
        match (whole, self.line.axis) {
            (Ok(()), Axis::All) => {
                let last = if self.forward { place - 1 } else { place + 1 };
                let reason = format!("the events from position {next} to {last} are missing");
                Err(errors::damaged(Some(Position::new(last)), reason))
            }
            (Ok(()), Axis::Stream(_)) => Err(self.missing(before)),
            (Err(StoreError::Corrupt { .. }), Axis::All) => {
                let reason = format!("the row there has the number {place}, or a part of the log is missing");
                Err(errors::damaged(Some(next), reason))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The error for a place that should have a row.
    fn missing(&self, before: u64) -> StoreError {
        let next = self.next(before).unwrap_or_default();
        match self.line.axis {
            Axis::All => {
                errors::damaged(Some(Position::new(next)), "there is no event, and the log does not end there")
            }
            Axis::Stream(_) => {
                let Read { stream, .. } = self.read;
                errors::damaged(None, format!("version {next} of stream {stream} is missing"))
            }
        }
    }

    /// The place after `before` in the order of the read.
    fn next(&self, before: u64) -> Option<u64> {
        if self.forward { before.checked_add(1) } else { before.checked_sub(1) }
    }

    fn store_at(&self, before: u64, error: tokio_rusqlite::rusqlite::Error) -> StoreError {
        match (self.line.axis, self.next(before)) {
            (Axis::All, Some(next)) => errors::store_at(Position::new(next), error),
            _ => errors::store(error),
        }
    }
}
