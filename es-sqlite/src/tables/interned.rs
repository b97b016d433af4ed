//! What the numbers in the rows of events stand for.

use std::sync::Arc;

use es_framework::engine::BoundedMap;
use es_framework::{EventType, Position, StoreError, StreamId, Tag};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::{COLUMNS, TAGGED_COLUMNS};
use crate::tables::schema::Layout;
use crate::tables::tags;

/// The names that a connection has read. A number never comes to mean something else, so what was committed stays
/// valid.
#[derive(Debug)]
pub(crate) struct Names {
    streams: BoundedMap<i64, StreamId>,
    types: BoundedMap<i64, Arc<EventType>>,
    tags: BoundedMap<i64, Tag>,
    /// Adjacent events in the log often have the same stream and type.
    last_stream: Option<(i64, StreamId)>,
    last_type: Option<(i64, Arc<EventType>)>,
    /// The layout of the tables, as of the running transaction.
    pub(crate) layout: Layout,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            streams: BoundedMap::new(16_384),
            types: BoundedMap::new(4_096),
            tags: BoundedMap::new(16_384),
            last_stream: None,
            last_type: None,
            layout: Layout::default(),
        }
    }
}

impl Names {
    /// Forgets everything: numbers assigned in a transaction that was rolled back are assigned again.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The columns of an event that a row is read from.
    pub(crate) fn columns(&self) -> &'static str {
        match self.layout {
            Layout::Plain => COLUMNS,
            Layout::Tagged => TAGGED_COLUMNS,
        }
    }

    pub(crate) fn tag(&mut self, connection: &Connection, id: i64, at: Position) -> Result<&Tag, StoreError> {
        // Looked up twice, because of a limit of the borrow checker.
        if self.tags.get(&id).is_none() {
            self.tags.insert(id, tags::read(connection, id, at)?);
        }
        self.tags.get(&id).map(|tag| &*tag).ok_or_else(|| errors::internal("no such tag"))
    }

    pub(crate) fn stream(&mut self, connection: &Connection, id: i64, at: Position) -> Result<&StreamId, StoreError> {
        if self.last_stream.as_ref().is_none_or(|(last, _)| *last != id) {
            let stream = if let Some(stream) = self.streams.get(&id) {
                stream.clone()
            } else {
                let stream = read_stream(connection, id, at)?;
                self.streams.insert(id, stream.clone());
                stream
            };
            self.last_stream = Some((id, stream));
        }
        self.last_stream.as_ref().map(|(_, stream)| stream).ok_or_else(|| errors::internal("no last stream"))
    }

    pub(crate) fn event_type(
        &mut self,
        connection: &Connection,
        id: i64,
        at: Position,
    ) -> Result<&Arc<EventType>, StoreError> {
        if self.last_type.as_ref().is_none_or(|(last, _)| *last != id) {
            let event_type = if let Some(event_type) = self.types.get(&id) {
                Arc::clone(event_type)
            } else {
                let event_type = Arc::new(read_type(connection, id, at)?);
                self.types.insert(id, Arc::clone(&event_type));
                event_type
            };
            self.last_type = Some((id, event_type));
        }
        self.last_type.as_ref().map(|(_, event_type)| event_type).ok_or_else(|| errors::internal("no last type"))
    }
}

/// Finds the types with a name. The two indexes over names are partial, with and without a shape, and SQLite uses one
/// only if the query says which: without that, each lookup scans all types, and 20,000 types cost quadratic time.
const NAMED: &str = "SELECT id FROM es_event_type WHERE name = ?1 AND shape IS NOT NULL
     UNION ALL SELECT id FROM es_event_type WHERE name = ?1 AND shape IS NULL";
const SHAPED: &str = "SELECT id FROM es_event_type
     WHERE name = ?1 AND schema_version = ?2 AND codec = ?3 AND shape IS NOT NULL AND shape = ?4";
const PLAIN: &str = "SELECT id FROM es_event_type
     WHERE name = ?1 AND schema_version = ?2 AND codec = ?3 AND shape IS NULL";

/// Returns the numbers of the types with one of these names, whatever their schema versions.
pub(crate) fn types_named(connection: &Connection, names: &[impl AsRef<str>]) -> Result<Vec<i64>, StoreError> {
    let mut statement = connection.prepare_cached(NAMED).map_err(errors::store)?;
    let mut ids = Vec::new();
    for name in names {
        let found = statement.query_map([name.as_ref()], |row| row.get::<_, i64>(0)).map_err(errors::store)?;
        for id in found {
            ids.push(id.map_err(errors::store)?);
        }
    }
    Ok(ids)
}

/// Returns the number of a type, if it has one.
pub(crate) fn type_number(connection: &Connection, event_type: &EventType) -> Result<Option<i64>, StoreError> {
    let (name, version, codec) = (event_type.name(), event_type.schema_version(), event_type.codec());
    let number = match event_type.shape() {
        Some(shape) => connection
            .prepare_cached(SHAPED)
            .and_then(|mut statement| statement.query_row((name, version, codec, shape), |row| row.get(0)).optional()),
        None => connection
            .prepare_cached(PLAIN)
            .and_then(|mut statement| statement.query_row((name, version, codec), |row| row.get(0)).optional()),
    };
    number.map_err(errors::store)
}

/// Assigns a number to a type.
pub(crate) fn add_type(connection: &Connection, event_type: &EventType) -> Result<i64, StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO es_event_type (id, name, schema_version, codec, shape, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut statement| {
            let last: i64 =
                connection.query_row("SELECT coalesce(max(id), 0) FROM es_event_type", [], |row| row.get(0))?;
            let id = number_after(last);
            let sum =
                type_sum(id, event_type.name(), event_type.schema_version(), event_type.codec(), event_type.shape());
            let row = (
                id,
                event_type.name(),
                event_type.schema_version(),
                event_type.codec(),
                event_type.shape(),
                sum.stored(),
            );
            statement.execute(row)?;
            Ok(id)
        })
        .map_err(errors::store)
}

/// The number of the next type: 1, 2, 4, 7, 8 …, the numbers with an odd count of one bits. A flipped bit thus never
/// turns one type into another, and a filter by types that SQL evaluates does not skip a damaged event.
fn number_after(last: i64) -> i64 {
    let mut next = last + 1;
    while next.count_ones().is_multiple_of(2) {
        next += 1;
    }
    next
}

/// Returns the numbers of all types; [`None`] if there are more than `limit`.
pub(crate) fn all_types(connection: &Connection, limit: usize) -> Result<Option<Vec<i64>>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM es_event_type NOT INDEXED LIMIT ?1").map_err(errors::store)?;
    let found = statement
        .query_map([i64::try_from(limit + 1).unwrap_or(i64::MAX)], |row| row.get(0))
        .and_then(Iterator::collect::<Result<Vec<i64>, _>>)
        .map_err(errors::store)?;
    Ok((found.len() <= limit).then_some(found))
}

/// The checksum of a stream's row.
pub(crate) fn stream_sum(id: i64, name: &str, category: &str) -> RowSum {
    RowSum::of("stream").integer(id).text(name).text(category)
}

fn type_sum(id: i64, name: &str, schema_version: u32, codec: &str, shape: Option<&str>) -> RowSum {
    let sum = RowSum::of("event_type").integer(id).text(name);
    sum.integer(schema_version.into()).text(codec).optional_text(shape)
}

pub(crate) fn read_stream(connection: &Connection, id: i64, at: Position) -> Result<StreamId, StoreError> {
    let damaged = |reason| errors::damaged(Some(at), format!("stream number {id}{reason}"));
    let mut statement = connection
        .prepare_cached("SELECT name, category, checksum FROM es_stream WHERE id = ?1")
        .map_err(errors::store)?;
    let (name, category, checksum) = statement
        .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i32>(2)?)))
        .optional()
        .map_err(|error| errors::store_at(at, error))?
        .ok_or_else(|| damaged(" is not known"))?;
    if stream_sum(id, &name, &category).stored() != checksum {
        return Err(damaged(": the checksum of its row does not match"));
    }
    StreamId::new(name).map_err(|_| damaged(" has a name that is not valid"))
}

pub(crate) fn read_type(connection: &Connection, id: i64, at: Position) -> Result<EventType, StoreError> {
    let damaged = |reason| errors::damaged(Some(at), format!("event type number {id}{reason}"));
    let mut statement = connection
        .prepare_cached("SELECT name, schema_version, codec, shape, checksum FROM es_event_type WHERE id = ?1")
        .map_err(errors::store)?;
    let (name, schema_version, codec, shape, checksum) = statement
        .query_row([id], |row| {
            let (name, codec): (String, String) = (row.get(0)?, row.get(2)?);
            Ok((name, row.get::<_, u32>(1)?, codec, row.get::<_, Option<String>>(3)?, row.get::<_, i32>(4)?))
        })
        .optional()
        .map_err(|error| errors::store_at(at, error))?
        .ok_or_else(|| damaged(" is not known"))?;
    if type_sum(id, &name, schema_version, &codec, shape.as_deref()).stored() != checksum {
        return Err(damaged(": the checksum of its row does not match"));
    }
    let event_type =
        EventType::new(name, schema_version, codec).map_err(|_| damaged(" has a name that is not valid"))?;
    Ok(match shape {
        Some(shape) => event_type.with_shape(shape),
        None => event_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_turns_no_type_into_another() {
        let mut numbers = vec![];
        while numbers.len() < 300 {
            numbers.push(number_after(numbers.last().copied().unwrap_or(0)));
        }
        assert_eq!(numbers[..6], [1, 2, 4, 7, 8, 11]);
        for number in &numbers {
            assert!((0..63).all(|bit| !numbers.contains(&(number ^ 1 << bit))));
        }
    }

    /// A store with 20,000 types took minutes to write: each new type was searched for in the whole table.
    #[test]
    fn types_are_found_by_an_index() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        for (sql, parameters) in [(NAMED, 1), (SHAPED, 4), (PLAIN, 3)] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            assert_eq!(statement.parameter_count(), parameters);
            for parameter in 1..=parameters {
                statement.raw_bind_parameter(parameter, "x").unwrap();
            }
            let mut rows = statement.raw_query();
            let mut searched = 0;
            while let Some(row) = rows.next().unwrap() {
                let step: String = row.get(3).unwrap();
                assert!(!step.starts_with("SCAN"), "{step}");
                searched += u32::from(step.starts_with("SEARCH es_event_type USING"));
            }
            assert!(searched > 0);
        }
    }
}
