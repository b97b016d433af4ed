//! Appends, inside the write transaction.

use std::sync::{Arc, LazyLock};

use es_framework::{
    Append, AppendError, Appended, CommandKey, CommandRecord, EventId, EventIdKind, EventType, KeyedCommand,
    KnownEvent, LogView, Metadata, Plan, PlannedStream, Position, StoreError, StoredEvent, StreamId, StreamWrite,
    Timestamp, Verdict, Version, checksum, judge, judge_as_unknown,
};
use tokio_rusqlite::rusqlite::Connection;
use tokio_rusqlite::rusqlite::types::Value;

use crate::connection::errors;
use crate::tables::commands;
use crate::tables::interned::{self, stream_sum};
use crate::tables::log;
use crate::tables::rows::{self, COLUMNS, Header, REMOVED};
use crate::write::insert_buffer::{InsertError, Row};
use crate::write::writer::{Head, Memory};

/// After an id was found to be known, so many appends with ids are looked up before they are written.
const CAREFUL: u32 = 1_000;

/// A write transaction, and what the writer knows besides.
#[derive(Debug)]
pub(crate) struct Transaction<'w> {
    connection: &'w Connection,
    memory: &'w mut Memory,
}

/// Judges an append and writes it. An error of the store means that it may be half written.
pub(crate) fn append(append: &Append, tx: &mut Transaction<'_>) -> Result<Appended, AppendError> {
    let plan = match tx.judge(append)? {
        Verdict::Known { appended, remember } => {
            if remember {
                tx.remember(append.command.as_ref(), &appended)?;
            }
            return Ok(appended);
        }
        Verdict::Write(plan) => plan,
    };
    let (head, last_time) = tx.head()?;
    let now = tx.memory.clock.now();
    let time = now.max(last_time);
    let last = tx.insert(append, &plan, head, time)?;
    let mut appended = plan.appended(append, last, time);
    appended.clock_behind = last_time.since(now);
    tx.remember(append.command.as_ref(), &appended)?;
    Ok(appended)
}

impl<'w> Transaction<'w> {
    pub(crate) fn new(connection: &'w Connection, memory: &'w mut Memory) -> Self {
        Self { connection, memory }
    }

    /// The connection, with all rows written so far in the database.
    pub(crate) fn written(&mut self) -> Result<&'w Connection, StoreError> {
        let flushed = self.memory.pending.flush(self.connection);
        self.inserted(flushed)?;
        Ok(self.connection)
    }

    /// Most ids are new, and the index over ids says so when the events are written: to look each of them up before takes
    /// a third of the time of a bulk load. Once an id was known, the next appends are looked up, for retries come in rows.
    fn judge(&mut self, append: &Append) -> Result<Verdict, AppendError> {
        if append.has_ids() {
            if self.memory.careful > 0 || self.memory.look_up {
                self.memory.careful = self.memory.careful.saturating_sub(1);
            } else if let Some(plan) = judge_as_unknown(append, self)? {
                return Ok(Verdict::Write(plan));
            }
        }
        judge(append, self)
    }

    fn inserted(&mut self, inserted: Result<(), InsertError>) -> Result<(), StoreError> {
        inserted.map_err(|error| match error {
            InsertError::Store(error) => error,
            InsertError::Taken => {
                self.memory.careful = CAREFUL;
                self.memory.collided = true;
                errors::damaged(None, "a position, a version or an id that should be free is taken")
            }
        })
    }

    fn remember(&mut self, command: Option<&KeyedCommand>, appended: &Appended) -> Result<(), StoreError> {
        command.map_or(Ok(()), |command| commands::insert(self.connection, command, appended))
    }

    fn stream_head(&mut self, stream: &StreamId) -> Result<Head, StoreError> {
        if let Some(head) = self.memory.heads.get(stream) {
            return Ok(*head);
        }
        let head = match log::stream_number(self.connection, stream)? {
            Some(number) => Head { number, version: log::version(self.written()?, number)? },
            None => Head::default(),
        };
        self.memory.heads.insert(stream.clone(), head);
        Ok(head)
    }

    /// Inserts the events of a plan after `head` and answers the last position.
    fn insert(
        &mut self,
        append: &Append,
        plan: &Plan,
        head: Position,
        time: Timestamp,
    ) -> Result<Position, StoreError> {
        let mut last = head;
        for (write, planned) in append.streams.iter().zip(plan.streams()) {
            if planned.count > 0 {
                last = self.insert_stream(write, planned, last, time)?;
            }
        }
        if last > head {
            self.memory.head = Some((last, time));
        }
        Ok(last)
    }

    fn insert_stream(
        &mut self,
        write: &StreamWrite,
        planned: &PlannedStream,
        after: Position,
        time: Timestamp,
    ) -> Result<Position, StoreError> {
        let number = self.advance(write, planned)?;
        let (mut position, mut version) = (after, planned.before);
        for event in planned.events(write) {
            position = position.next();
            version = version.next();
            let event_type = self.type_number(event.event_type())?;
            let metadata = event.metadata().map(Metadata::as_str);
            let checksum = checksum(
                position,
                &write.stream,
                version,
                time,
                event.event_type(),
                event.id(),
                metadata,
                event.payload(),
            );
            if self.memory.watched {
                let id = event.id().cloned().unwrap_or_else(|| EventId::derived(self.memory.store, position));
                self.memory.written.push(StoredEvent::from_stored(
                    write.stream.clone(),
                    version,
                    position,
                    time,
                    id,
                    Arc::clone(event.event_type()),
                    event.payload().clone(),
                    event.metadata().cloned(),
                    checksum,
                ));
            }
            let row = Row { position, stream: number, version, event_type, time, checksum, event: event.clone() };
            let pushed = self.memory.pending.push(self.connection, row);
            self.inserted(pushed)?;
        }
        Ok(position)
    }

    /// Moves a stream's head over what is about to be written, and answers the stream's number.
    fn advance(&mut self, write: &StreamWrite, planned: &PlannedStream) -> Result<i64, StoreError> {
        let version = planned.before.plus(planned.count as u64);
        if let Some(head) = self.memory.heads.get(&write.stream)
            && head.number != 0
        {
            head.version = version;
            return Ok(head.number);
        }
        // It is new, or was forgotten since it was judged.
        let number = match self.stream_head(&write.stream)?.number {
            0 => self.add_stream(&write.stream)?,
            number => number,
        };
        self.memory.heads.insert(write.stream.clone(), Head { number, version });
        Ok(number)
    }

    fn add_stream(&mut self, stream: &StreamId) -> Result<i64, StoreError> {
        let category = stream.category();
        let next = "SELECT coalesce(max(id), 0) + 1 FROM es_stream";
        let number: i64 = match self.memory.last_stream {
            Some(last) => last + 1,
            None => self
                .connection
                .prepare_cached(next)
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .map_err(errors::store)?,
        };
        self.connection
            .prepare_cached("INSERT INTO es_stream (id, name, category, checksum) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut statement| {
                let sum = stream_sum(number, stream.as_str(), category).stored();
                statement.execute((number, stream.as_str(), category, sum))
            })
            .map_err(errors::store)?;
        self.memory.last_stream = Some(number);
        Ok(number)
    }

    fn type_number(&mut self, event_type: &Arc<EventType>) -> Result<i64, StoreError> {
        if let Some((last, number)) = &self.memory.last_type
            && (Arc::ptr_eq(last, event_type) || last == event_type)
        {
            return Ok(*number);
        }
        let known = self.memory.types.get(event_type).copied();
        let number = if let Some(number) = known {
            number
        } else {
            let number = match interned::type_number(self.connection, event_type)? {
                Some(number) => number,
                None => interned::add_type(self.connection, event_type)?,
            };
            self.memory.types.insert(Arc::clone(event_type), number);
            number
        };
        self.memory.last_type = Some((Arc::clone(event_type), number));
        Ok(number)
    }
}

impl LogView for Transaction<'_> {
    fn head(&mut self) -> Result<(Position, Timestamp), StoreError> {
        if let Some(head) = self.memory.head {
            return Ok(head);
        }
        let head = log::head(self.connection)?;
        self.memory.head = Some(head);
        Ok(head)
    }

    fn version(&mut self, stream: &StreamId) -> Result<Version, StoreError> {
        Ok(self.stream_head(stream)?.version)
    }

    fn event(&mut self, stream: &StreamId, id: &EventId) -> Result<Option<KnownEvent>, StoreError> {
        let Head { number, .. } = self.stream_head(stream)?;
        let id = match id.kind() {
            EventIdKind::Uuid(bytes) => Value::Blob(bytes.to_vec()),
            EventIdKind::Text(text) => Value::Text(text.to_owned()),
            _ => return Ok(None),
        };
        let mut statement = self.written()?.prepare_cached(&KNOWN).map_err(errors::store)?;
        let mut rows = statement.query((number, id)).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
        let header = Header::of(row)?;
        let Header { position, version, time, .. } = header;
        if header.event_type == REMOVED {
            header.verify_removed(row)?;
            return Ok(Some(KnownEvent { version, position, time, content: None }));
        }
        let content = header.content(row)?;
        let mut buffer = rows::buffer(1, content.bytes());
        let event = header.event(content, self.connection, &mut self.memory.names, self.memory.store, &mut buffer)?;
        Ok(Some(KnownEvent { version, position, time, content: Some((event.event_type, event.payload)) }))
    }

    fn command(&mut self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        commands::find(self.connection, key)
    }
}

static KNOWN: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM es_event INDEXED BY es_event_id WHERE stream = ?1 AND id = ?2"));
