//! The end of the log, and the facts about the store: the table `es_writer` and the newest row of `es_event`.

use es_framework::{Mark, Position, StoreError, StoreId, Timestamp};
use tokio_postgres::Row;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{Uuid, natural};
use crate::tables::row_sum::RowSum;
use crate::tables::schema::FORMAT;
use crate::tables::statements::Statements;

/// The features that this release can preserve when it writes; see `write_requires` in `docs/postgres.md`.
const FEATURES: [&str; 0] = [];

/// The end of the log, and the facts about the store, as of one statement.
#[derive(Debug, Clone)]
pub(crate) struct LogHead {
    pub(crate) store: StoreId,
    /// Rises with every change that is not an append.
    pub(crate) generation: i64,
    /// The last position that was assigned.
    pub(crate) position: Position,
    /// The time of the last event.
    pub(crate) time: Timestamp,
    /// The newest row, if it is at [`Self::position`] or below.
    pub(crate) mark: Option<Mark>,
    /// Whether there may be gaps between positions: only if rows were removed.
    pub(crate) gaps: bool,
    /// The highest numbers of streams and types.
    pub(crate) last_stream: i64,
    pub(crate) last_type: i32,
    write_requires: String,
}

impl LogHead {
    /// Reads the end of the log.
    pub(crate) async fn read(session: &Session, statements: &Statements) -> Result<Self, Failure> {
        let rows = session.query(&statements.head, &[]).await?;
        Self::of(rows.first())
    }

    fn of(row: Option<&Row>) -> Result<Self, Failure> {
        let row = row.ok_or_else(|| errors::changed("its writer's row is gone"))?;
        let store: Uuid = row.try_get(0)?;
        let store = StoreId::from_bytes(store.0);
        let (format, generation): (i32, i64) = (row.try_get(1)?, row.try_get(2)?);
        let (position_floor, time_floor): (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
        let write_requires: String = row.try_get(5)?;
        check_format(format)?;
        let sum = writer_sum(store, format, generation, position_floor, time_floor, &write_requires);
        if sum.stored() != row.try_get::<_, i32>(6)? {
            return Err(errors::damaged(None, "the checksum of the row of `es_writer` does not match").into());
        }
        let (position, time): (Option<i64>, Option<i64>) = (row.try_get(7)?, row.try_get(8)?);
        let checksum: Option<i32> = row.try_get(9)?;
        let last = natural(position.unwrap_or(0), None)?;
        let time = time.unwrap_or(i64::MIN).max(time_floor.unwrap_or(i64::MIN));
        Ok(Self {
            store,
            generation,
            position: Position::new(last.max(natural(position_floor.unwrap_or(0), None)?)),
            time: Timestamp::from_micros(time),
            mark: checksum.map(|checksum| Mark { position: Position::new(last), checksum: checksum.cast_unsigned() }),
            gaps: generation > 0 || position_floor.is_some(),
            last_stream: row.try_get::<_, Option<i64>>(10)?.unwrap_or(0),
            last_type: row.try_get::<_, Option<i32>>(11)?.unwrap_or(0),
            write_requires,
        })
    }

    /// Rejects a store that this release would damage by writing.
    pub(crate) fn check_write_requires(&self) -> Result<(), StoreError> {
        let mut named = self.write_requires.split(',').map(str::trim).filter(|feature| !feature.is_empty());
        match named.find(|feature| !FEATURES.contains(feature)) {
            Some(feature) => Err(StoreError::WriteRequires { feature: feature.to_owned() }),
            None => Ok(()),
        }
    }

    /// Rejects another store, or an older state of this one: after a failover or a restore the newest events may be
    /// gone, and positions that were seen would be assigned again.
    pub(crate) fn check(&self, store: StoreId, seen: Position) -> Result<(), StoreError> {
        check_store(self.store, store)?;
        if self.position >= seen {
            return Ok(());
        }
        Err(errors::changed(format!(
            "the log was rewound from position {seen} to {}, by a failover or a restore that lost its newest events",
            self.position
        )))
    }
}

/// Rejects a store that took the place of the one that was opened.
pub(crate) fn check_store(found: StoreId, opened: StoreId) -> Result<(), StoreError> {
    if found == opened {
        return Ok(());
    }
    Err(errors::changed(format!("its schema now holds the store {found} instead of {opened}")))
}

/// Rejects a store whose format was changed while it was open.
pub(crate) fn check_format(found: i32) -> Result<(), StoreError> {
    match u32::try_from(found) {
        Ok(FORMAT) => Ok(()),
        found => Err(StoreError::FormatChanged { opened: FORMAT, found: found.unwrap_or_default() }),
    }
}

/// The channel on which a store's commits are announced.
pub(crate) fn channel(store: StoreId) -> String {
    format!("es_{store}")
}

/// The checksum of the row of `es_writer`.
pub(crate) fn writer_sum(
    store: StoreId,
    format: i32,
    generation: i64,
    position_floor: Option<i64>,
    time_floor: Option<i64>,
    write_requires: &str,
) -> RowSum {
    let sum = RowSum::of("writer").blob(&store.to_bytes()).integer(format.into()).integer(generation);
    let sum = position_floor.map_or(sum.null(), |floor| sum.integer(floor));
    let sum = time_floor.map_or(sum.null(), |floor| sum.integer(floor));
    sum.text(write_requires)
}
