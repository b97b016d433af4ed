//! What the numbers in the rows of events stand for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use es_framework::engine::BoundedMap;
use es_framework::{EventType, Position, StoreError, StreamId};
use tokio_postgres::Row;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::tables::row_sum::RowSum;
use crate::tables::statements::Statements;

/// The names that a store's readers have read, shared by all of them. A number never comes to mean something else.
#[derive(Debug)]
pub(crate) struct Names {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    streams: BoundedMap<i64, StreamId>,
    types: BoundedMap<i32, Arc<EventType>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { known: Mutex::new(Known { streams: BoundedMap::new(65_536), types: BoundedMap::new(4_096) }) }
    }
}

/// The names of one page.
#[derive(Debug, Default)]
pub(crate) struct PageNames {
    streams: HashMap<i64, StreamId>,
    types: HashMap<i32, Arc<EventType>>,
    /// What is wrong with rows that were found damaged.
    damage: Vec<String>,
}

impl PageNames {
    pub(crate) fn stream(&self, id: i64, at: Position) -> Result<&StreamId, StoreError> {
        self.streams.get(&id).ok_or_else(|| self.unknown("stream", id, at))
    }

    pub(crate) fn event_type(&self, id: i32, at: Position) -> Result<&Arc<EventType>, StoreError> {
        self.types.get(&id).ok_or_else(|| self.unknown("event type", id.into(), at))
    }

    fn unknown(&self, what: &str, id: i64, at: Position) -> StoreError {
        let reasons = if self.damage.is_empty() { String::new() } else { format!("; {}", self.damage.join("; ")) };
        errors::damaged(Some(at), format!("{what} number {id} is not known{reasons}"))
    }

    /// Notes a damaged row, so that only the events that need it are damaged.
    fn take<T>(&mut self, read: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Failure::Refused(StoreError::Corrupt { reason, .. })) => {
                self.damage.push(reason);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Names {
    /// Finds the names of the rows of a page; a number that stands for nothing is left out. Those that no page had
    /// before are read.
    pub(crate) async fn of(
        &self,
        numbers: impl Iterator<Item = (i64, i32)> + Send,
        session: &Session,
        statements: &Statements,
    ) -> Result<PageNames, Failure> {
        let mut page = PageNames::default();
        let (mut streams, mut types) = (Vec::new(), Vec::new());
        {
            let mut known = self.lock();
            let mut last = None;
            for (stream, event_type) in numbers {
                if last == Some((stream, event_type)) {
                    continue;
                }
                last = Some((stream, event_type));
                if let Entry::Vacant(unknown) = page.streams.entry(stream) {
                    match known.streams.get(&stream) {
                        Some(name) => drop(unknown.insert(name.clone())),
                        None => streams.push(stream),
                    }
                }
                if let Entry::Vacant(unknown) = page.types.entry(event_type) {
                    match known.types.get(&event_type) {
                        Some(name) => drop(unknown.insert(Arc::clone(name))),
                        None => types.push(event_type),
                    }
                }
            }
        }
        if streams.is_empty() && types.is_empty() {
            return Ok(page);
        }
        streams.sort_unstable();
        streams.dedup();
        types.sort_unstable();
        types.dedup();
        if !streams.is_empty() {
            for row in session.query(&statements.streams_by_id, &[&streams]).await? {
                let Some((id, name)) = page.take(stream(&row))? else { continue };
                page.streams.insert(id, name.clone());
                self.lock().streams.insert(id, name);
            }
        }
        if !types.is_empty() {
            for row in session.query(&statements.types_by_id, &[&types]).await? {
                let Some((id, event_type)) = page.take(event_type(&row))? else { continue };
                page.types.insert(id, Arc::clone(&event_type));
                self.lock().types.insert(id, event_type);
            }
        }
        Ok(page)
    }

    /// Forgets everything, after a page that did not fit what is known.
    pub(crate) fn forget(&self) {
        let mut known = self.lock();
        known.streams.clear();
        known.types.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics halfway through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row of `es_stream`: id, name, category, checksum.
pub(crate) fn stream(row: &Row) -> Result<(i64, StreamId), Failure> {
    let id: i64 = row.try_get(0)?;
    let (name, category): (&str, &str) = (row.try_get(1)?, row.try_get(2)?);
    Ok((id, checked_stream(id, name, category, row.try_get(3)?)?))
}

/// The name of a stream, if its row is whole.
pub(crate) fn checked_stream(id: i64, name: &str, category: &str, checksum: i32) -> Result<StreamId, StoreError> {
    if stream_sum(id, name, category).stored() != checksum {
        return Err(errors::damaged(None, format!("the checksum of the row of stream number {id} does not match")));
    }
    StreamId::new(name).map_err(|_| errors::damaged(None, format!("stream number {id} has no valid name")))
}

/// A row of `es_event_type`: id, name, schema version, codec, shape, checksum.
pub(crate) fn event_type(row: &Row) -> Result<(i32, Arc<EventType>), Failure> {
    let id: i32 = row.try_get(0)?;
    let damaged = |what: &str| Failure::from(errors::damaged(None, format!("event type number {id}{what}")));
    let name: &str = row.try_get(1)?;
    let schema_version: i64 = row.try_get(2)?;
    let (codec, shape): (&str, Option<&str>) = (row.try_get(3)?, row.try_get(4)?);
    let schema_version = u32::try_from(schema_version).map_err(|_| damaged(" has no valid schema version"))?;
    if type_sum(id, name, schema_version, codec, shape).stored() != row.try_get::<_, i32>(5)? {
        return Err(damaged(": the checksum of its row does not match"));
    }
    let event_type = EventType::new(name, schema_version, codec).map_err(|_| damaged(" has no valid name"))?;
    Ok((
        id,
        Arc::new(match shape {
            Some(shape) => event_type.with_shape(shape),
            None => event_type,
        }),
    ))
}

/// The checksum of a stream's row.
pub(crate) fn stream_sum(id: i64, name: &str, category: &str) -> RowSum {
    RowSum::of("stream").integer(id).text(name).text(category)
}

/// The checksum of an event type's row.
pub(crate) fn type_sum(id: i32, name: &str, schema_version: u32, codec: &str, shape: Option<&str>) -> RowSum {
    let sum = RowSum::of("event_type").integer(id.into()).text(name);
    sum.integer(schema_version.into()).text(codec).optional_text(shape)
}
