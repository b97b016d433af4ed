//! Appends, inside the write transaction.

use std::sync::{Arc, LazyLock};

use es_framework::{
    Append, AppendError, Appended, CandidateEvent, Command, CommandKey, CommandRecord, EventId, EventIdKind, EventType,
    KnownEvent, LogView, Metadata, Plan, PlannedStream, Position, StoreError, StoredEvent, StreamId, StreamWrite,
    Timestamp, Verdict, Version, checksum, judge,
};
use tokio_rusqlite::rusqlite::types::{Null, Value};
use tokio_rusqlite::rusqlite::{Connection, Statement};

use crate::names::{self, stream_sum};
use crate::rows::{self, COLUMNS, Header, REMOVED};
use crate::writer::{Head, Memory};
use crate::{commands, errors, log};

/// The rows of the larger of the two insert statements: from 8 on a statement of many rows is up to 1.4 times as fast.
const ROWS: usize = 16;

/// A write transaction, and what the writer knows besides.
#[derive(Debug)]
pub(crate) struct Transaction<'w> {
    pub(crate) connection: &'w Connection,
    pub(crate) memory: &'w mut Memory,
}

/// Judges an append and writes it. An error of the store means that it may be half written.
pub(crate) fn append(append: &Append, tx: &mut Transaction<'_>) -> Result<Appended, AppendError> {
    let plan = match judge(append, tx)? {
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

impl Transaction<'_> {
    fn remember(&mut self, command: Option<&Command>, appended: &Appended) -> Result<(), StoreError> {
        command.map_or(Ok(()), |command| commands::insert(self.connection, command, appended))
    }

    fn stream_head(&mut self, stream: &StreamId) -> Result<Head, StoreError> {
        if let Some(head) = self.memory.heads.get(stream) {
            return Ok(*head);
        }
        let head = match log::stream_number(self.connection, stream)? {
            Some(number) => Head { number, version: log::version(self.connection, number)? },
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
        let Head { mut number, .. } = self.stream_head(&write.stream)?;
        if number == 0 {
            number = self.add_stream(&write.stream)?;
        }
        let mut events = planned.events(write);
        let (mut position, mut version) = (after, planned.before);
        let mut left = planned.count;
        while left > 0 {
            let rows = if left >= ROWS { ROWS } else { 1 };
            let sql = if rows == ROWS { &*INSERT_MANY } else { &*INSERT_ONE };
            let mut statement = self.connection.prepare_cached(sql).map_err(errors::store)?;
            // Statements that follow each other with the same number of rows need no look-up.
            for _ in 0..left / rows {
                let first = (time.as_micros(), number, position.as_i64() + 1, version.as_i64() + 1);
                bind_shared(&mut statement, first).map_err(errors::store)?;
                for (row, event) in events.by_ref().take(rows).enumerate() {
                    position = position.next();
                    version = version.next();
                    self.bind_event(&mut statement, row, &write.stream, event, (position, version, time))?;
                }
                statement.raw_execute().map_err(errors::store)?;
                left -= rows;
            }
        }
        self.memory.heads.insert(write.stream.clone(), Head { number, version });
        Ok(position)
    }

    fn bind_event(
        &mut self,
        statement: &mut Statement<'_>,
        row: usize,
        stream: &StreamId,
        event: &CandidateEvent,
        (position, version, time): (Position, Version, Timestamp),
    ) -> Result<(), StoreError> {
        let event_type = self.type_number(event.event_type())?;
        let metadata = event.metadata().map(Metadata::as_str);
        let payload = event.payload();
        let checksum = checksum(position, stream, version, time, event.event_type(), event.id(), metadata, payload);
        let first = SHARED + 1 + row * OF_ROW;
        let bound = statement
            .raw_bind_parameter(first, event_type)
            .and_then(|()| statement.raw_bind_parameter(first + 1, checksum.cast_signed()))
            .and_then(|()| match event.id().map(EventId::kind) {
                Some(EventIdKind::Uuid(bytes)) => statement.raw_bind_parameter(first + 2, &bytes[..]),
                Some(EventIdKind::Text(text)) => statement.raw_bind_parameter(first + 2, text),
                _ => statement.raw_bind_parameter(first + 2, Null),
            })
            .and_then(|()| statement.raw_bind_parameter(first + 3, metadata))
            .and_then(|()| statement.raw_bind_parameter(first + 4, &payload[..]));
        bound.map_err(errors::store)?;
        if self.memory.watched {
            let id = event.id().cloned().unwrap_or_else(|| EventId::derived(self.memory.store, position));
            self.memory.written.push(StoredEvent::from_stored(
                stream.clone(),
                version,
                position,
                time,
                id,
                Arc::clone(event.event_type()),
                payload.clone(),
                event.metadata().cloned(),
                checksum,
            ));
        }
        Ok(())
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
            let number = match names::type_number(self.connection, event_type)? {
                Some(number) => number,
                None => names::add_type(self.connection, event_type)?,
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
        let mut statement = self.connection.prepare_cached(&KNOWN).map_err(errors::store)?;
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

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_statement(1));
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_statement(ROWS));

/// The parameters that all rows of an insert share: time, stream, first position, first version.
const SHARED: usize = 4;
/// The parameters of each row: type, checksum, id, metadata, payload.
const OF_ROW: usize = 5;

fn insert_statement(rows: usize) -> String {
    let row = |row: usize| {
        let [event_type, checksum, id, metadata, payload] = [1, 2, 3, 4, 5].map(|i| SHARED + row * OF_ROW + i);
        format!("(?3 + {row}, ?2, ?4 + {row}, ?{event_type}, ?1, ?{checksum}, ?{id}, ?{metadata}, ?{payload})")
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO es_event ({COLUMNS}) VALUES {}", rows.join(", "))
}

fn bind_shared(
    statement: &mut Statement<'_>,
    (time, stream, position, version): (i64, i64, i64, i64),
) -> tokio_rusqlite::rusqlite::Result<()> {
    statement.raw_bind_parameter(1, time)?;
    statement.raw_bind_parameter(2, stream)?;
    statement.raw_bind_parameter(3, position)?;
    statement.raw_bind_parameter(4, version)
}
