//! The sequence that a read follows: the positions of `@all`, or the versions of one stream.

use es_framework::{Position, StoreError, StreamHead, StreamId, Timestamp, Version};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension, Rows, Statement};

use crate::connection::errors;
use crate::tables::interned::Names;
use crate::tables::log;
use crate::tables::rows::{Header, natural};
use crate::tables::{stream_index, streams};

/// Which numbers are the places of a read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Axis {
    /// Positions.
    All,
    /// The versions of the stream with this number.
    Stream(i64),
}

/// Places above `after`, up to `upto`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) after: u64,
    pub(super) upto: u64,
}

/// The sequence that a read follows, and its bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) axis: Axis,
    /// The head: nothing is beyond it. The highest possible number if the end cannot be trusted.
    pub(super) head: u64,
    /// Nothing at or below it can be read.
    pub(super) floor: u64,
    /// The place of the last row, as stored.
    pub(super) last: u64,
    /// Whether nothing indicates that there was a row after it.
    pub(super) ends_there: bool,
    /// Whether there may be gaps between places.
    pub(super) gaps: bool,
    /// Whether the rows at the end confirm the head.
    pub(super) is_sound: bool,
}

impl Line {
    /// Finds a stream or `@all`; [`None`] if the stream was never written.
    pub(super) fn find(connection: &Connection, stream: &StreamId) -> Result<Option<Self>, StoreError> {
        let (axis, head, last, gaps, follows, ends_there) = if stream.is_all() {
            let log::LogHead { position, last, gaps, follows, ends_there, .. } = log::find_head(connection)?;
            (Axis::All, position.get(), last, gaps, follows, ends_there)
        } else {
            let Some(number) = streams::number(connection, stream)? else { return Ok(None) };
            let stream_index::Found { version, follows, ends_there } = stream_index::find(connection, number)?;
            (Axis::Stream(number), version.get(), version.get(), false, follows, ends_there)
        };
        // If the end cannot be trusted, a scan continues as long as there are rows.
        let is_sound = follows && ends_there;
        let head = if is_sound { head } else { Position::MAX.get() };
        Ok(Some(Self { axis, head, floor: 0, last, gaps, ends_there, is_sound }))
    }

    /// The head of the stream, if it is one.
    pub(super) fn stream_head(&self) -> Option<StreamHead> {
        let Axis::Stream(_) = self.axis else { return None };
        let mut head = StreamHead::at(Version::new(self.head));
        head.floor = Version::new(self.floor);
        Some(head)
    }

    /// Rejects a head that the rows before it do not confirm.
    pub(super) fn sound(&self) -> Result<(), StoreError> {
        match self.axis {
            _ if self.is_sound => Ok(()),
            Axis::All => {
                Err(errors::damaged(None, "the last rows of the log do not follow each other, or some are missing"))
            }
            Axis::Stream(number) => Err(stream_index::unsound(number)),
        }
    }

    /// Finds the last place in the span whose event satisfies `before`, or the span's start. It is a binary search:
    /// neither positions nor times ever decrease.
    ///
    /// What the search reads may be damaged, so the events on both sides of the place it finds are verified. If each is
    /// on its proper side, the place is right however it was found.
    pub(super) fn last_before(
        &self,
        connection: &Connection,
        names: &mut Names,
        span: Span,
        before: impl Fn(Position, Timestamp) -> bool,
    ) -> Result<u64, StoreError> {
        let sql = self.axis.query(&format!("{}, position, time", self.axis.column()), "", true);
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        let Span { after: mut low, upto: mut high } = span;
        // All events up to `low` are earlier, none above `high` is.
        while low < high {
            let middle = low + (high - low) / 2;
            let mut rows = self.axis.run(&mut statement, middle, 1)?;
            let next = match rows.next().map_err(errors::store)? {
                None => None,
                Some(row) => Some(
                    row.get(0)
                        .and_then(|place| Ok((place, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
                        .map_err(errors::store)?,
                ),
            };
            match next {
                Some((place, position, time))
                    if before(Position::new(natural(position, None)?), Timestamp::from_micros(time)) =>
                {
                    low = natural(place, None)?.clamp(middle + 1, high);
                }
                _ => high = middle,
            }
        }
        self.verify_border(connection, names, span, low, before)?;
        Ok(low)
    }

    fn verify_border(
        &self,
        connection: &Connection,
        names: &mut Names,
        span: Span,
        at: u64,
        before: impl Fn(Position, Timestamp) -> bool,
    ) -> Result<(), StoreError> {
        let mut statement =
            connection.prepare_cached(&self.axis.query(names.columns(), "", true)).map_err(errors::store)?;
        let from_border = at > span.after && !self.gaps;
        let mut rows = self.axis.run(&mut statement, if from_border { at - 1 } else { at }, 2)?;
        let mut expected = if from_border { at } else { at + 1 };
        while expected <= span.upto
            && expected <= at + 1
            && let Some(row) = rows.next().map_err(errors::store)?
        {
            let header = Header::of(row)?;
            header.verify(row, connection, names)?;
            let place = self.axis.place(&header);
            let on_its_side = before(header.position, header.time) == (place <= at) || place > span.upto;
            if !on_its_side || place != expected && !self.gaps {
                return Err(header.damaged("a search among the events before it was misled"));
            }
            expected = place + 1;
        }
        Ok(())
    }
}

impl Axis {
    /// The place of a row.
    pub(super) fn place(self, header: &Header) -> u64 {
        match self {
            Self::All => header.position.get(),
            Self::Stream(_) => header.version.get(),
        }
    }

    /// The column of the places.
    pub(super) fn column(self) -> &'static str {
        match self {
            Self::All => "position",
            Self::Stream(_) => "version",
        }
    }

    /// Selects `?2` rows beyond the place `?1`.
    pub(super) fn query(self, columns: &str, conditions: &str, forward: bool) -> String {
        self.endless(columns, conditions, forward) + " LIMIT ?2"
    }

    /// Selects all rows beyond the place `?1`.
    pub(super) fn endless(self, columns: &str, conditions: &str, forward: bool) -> String {
        let (beyond, order) = if forward { ('>', "") } else { ('<', " DESC") };
        let rows = match self {
            Self::All => format!(
                "SELECT {columns} FROM es_event NOT INDEXED WHERE position {beyond} ?1{conditions} ORDER BY position"
            ),
            Self::Stream(_) => stream_index::rows(columns, beyond, conditions),
        };
        rows + order
    }

    /// Runs a query with its first two parameters.
    pub(super) fn run<'s>(
        self,
        statement: &'s mut Statement<'_>,
        place: u64,
        bound: u64,
    ) -> Result<Rows<'s>, StoreError> {
        match self {
            Self::All => statement.query((signed(place), signed(bound))),
            Self::Stream(stream) => statement.query((signed(place), signed(bound), stream)),
        }
        .map_err(errors::store)
    }

    /// Returns the place of the row that is `count` rows beyond a place.
    pub(super) fn place_after(
        self,
        connection: &Connection,
        place: u64,
        count: u64,
        forward: bool,
    ) -> Result<Option<u64>, StoreError> {
        let sql = self.endless(self.column(), "", forward) + " LIMIT 1 OFFSET ?2";
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        let found: Option<i64> = match self {
            Self::All => statement.query_row((signed(place), signed(count) - 1), |row| row.get(0)),
            Self::Stream(stream) => statement.query_row((signed(place), signed(count) - 1, stream), |row| row.get(0)),
        }
        .optional()
        .map_err(errors::store)?;
        found.map(|found| natural(found, None)).transpose()
    }
}

/// A place as SQL stores it; anything beyond the highest possible one is clamped to it.
fn signed(place: u64) -> i64 {
    Position::new(place).as_i64()
}
