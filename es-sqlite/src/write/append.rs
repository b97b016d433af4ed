//! Appends, inside the write transaction.

use std::sync::{Arc, LazyLock};

use es_framework::engine::{
    Facts, KnownEvent, Plan, PlannedCell, PlannedStream, Questions, Verdict, checksum, judge, judge_as_unknown,
};
use es_framework::{
    Append, AppendError, Appended, EventId, EventIdKind, EventType, KeyedCommand, Metadata, Position, StoreError,
    StoredEvent, StreamId, StreamWrite, Timestamp,
};
use tokio_rusqlite::rusqlite::Connection;
use tokio_rusqlite::rusqlite::types::Value;

use crate::connection::errors;
use crate::tables::cells;
use crate::tables::commands;
use crate::tables::interned::{self, stream_sum};
use crate::tables::log;
use crate::tables::postings::TermEnd;
use crate::tables::rows::{self, COLUMNS, Header, REMOVED, TAGGED_COLUMNS};
use crate::tables::schema::Layout;
use crate::write::inline;
use crate::write::insert_buffer::{InsertError, Row};
use crate::write::memory::{Head, Memory};

/// After an id turned out to be known, this many appends with ids are looked up before they are written.
const CAREFUL: u32 = 1_000;

/// A write transaction, together with the writer's memory.
#[derive(Debug)]
pub(crate) struct Transaction<'w> {
    pub(super) connection: &'w Connection,
    pub(super) memory: &'w mut Memory,
}

/// Checks an append and writes it. If it returns an error of the store, the append may be half written.
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
    let appended = plan.appended(append, tx.memory.clock.now());
    if tx.memory.hooks.is_empty() {
        tx.write(append, &plan, &appended)?;
    } else {
        inline::write(tx, append, &plan, &appended)?;
    }
    Ok(appended)
}

impl<'w> Transaction<'w> {
    pub(crate) fn new(connection: &'w Connection, memory: &'w mut Memory) -> Self {
        Self { connection, memory }
    }

    /// Returns the connection once all rows written so far are in the database.
    pub(crate) fn written(&mut self) -> Result<&'w Connection, StoreError> {
        let flushed = self.memory.pending.flush(self.connection);
        self.inserted(flushed)?;
        Ok(self.connection)
    }

    /// The writer's memory.
    pub(super) fn memory(&mut self) -> &mut Memory {
        self.memory
    }

    /// Writes events, cells and the command's record by a plan.
    pub(super) fn write(&mut self, append: &Append, plan: &Plan, appended: &Appended) -> Result<(), StoreError> {
        self.insert(append, plan, appended)?;
        for PlannedCell { key, revision, value, .. } in plan.cells(append) {
            cells::write(self.connection, key, revision, value)?;
        }
        self.remember(append.command.as_ref(), appended)
    }

    /// Most ids are new, and the index over ids detects the others when the events are written: looking up each id
    /// first takes a third of the time of a bulk load. Once an id was known, the next appends are looked up first,
    /// because retries come in runs.
    fn judge(&mut self, append: &Append) -> Result<Verdict, AppendError> {
        let questions = Questions::of(append);
        let mut facts = self.facts(questions)?;
        if append.has_ids() && facts.command.is_none() {
            if self.memory.careful > 0 || self.memory.look_up {
                self.memory.careful = self.memory.careful.saturating_sub(1);
            } else if let Some(plan) = judge_as_unknown(append, &facts) {
                return Ok(Verdict::Write(plan));
            }
            self.look_up_ids(questions, &mut facts)?;
        }
        judge(append, &facts)
    }

    /// Reads from the log everything but the ids.
    fn facts(&mut self, questions: Questions<'_>) -> Result<Facts, StoreError> {
        let (head, time) = self.head()?;
        let mut facts = Facts::new(head, time);
        if let Some(key) = questions.command() {
            facts.command = commands::find(self.connection, key)?;
            if facts.command.is_some() {
                return Ok(facts);
            }
        }
        for question in questions.streams() {
            facts.push(self.head_of(question.stream)?.stream);
        }
        for condition in questions.conditions() {
            facts.push_condition(self.first_match(condition)?);
        }
        for key in questions.cells() {
            facts.push_cell(cells::facts(self.connection, key)?);
        }
        Ok(facts)
    }

    fn look_up_ids(&mut self, questions: Questions<'_>, facts: &mut Facts) -> Result<(), StoreError> {
        for (question, facts) in questions.streams().zip(facts.streams_mut()) {
            if facts.head.exists() {
                for id in question.ids() {
                    facts.known.extend(self.event(question.stream, id)?);
                }
            }
        }
        Ok(())
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

    fn head_of(&mut self, stream: &StreamId) -> Result<Head, StoreError> {
        if let Some(head) = self.memory.heads.get(stream) {
            return Ok(*head);
        }
        let head = match log::stream_number(self.connection, stream)? {
            Some(number) => Head { number, stream: log::version(self.written()?, number)?.into() },
            None => Head::default(),
        };
        self.memory.heads.insert(stream.clone(), head);
        Ok(head)
    }

    /// Inserts the events of a plan after the log's head.
    fn insert(&mut self, append: &Append, plan: &Plan, appended: &Appended) -> Result<(), StoreError> {
        if plan.event_count() == 0 {
            return Ok(());
        }
        let (mut last, _) = self.head()?;
        for (write, planned) in append.streams.iter().zip(plan.streams()) {
            if planned.count > 0 {
                last = self.insert_stream(write, planned, last, appended.time)?;
            }
        }
        self.memory.head = Some((last, appended.time));
        Ok(())
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
            let tags = self.post(event_type, event.tags(), position)?;
            let metadata = event.metadata().map(Metadata::as_str);
            let checksum = checksum(
                position,
                &write.stream,
                version,
                time,
                event.event_type(),
                event.id(),
                metadata,
                event.tags(),
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
                    event.tags().clone(),
                    checksum,
                ));
            }
            let row = Row { position, stream: number, version, event_type, time, checksum, tags, event: event.clone() };
            let pushed = self.memory.pending.push(self.connection, row);
            self.inserted(pushed)?;
        }
        Ok(position)
    }

    /// Advances a stream's head past the events about to be written, and returns the stream's number.
    fn advance(&mut self, write: &StreamWrite, planned: &PlannedStream) -> Result<i64, StoreError> {
        let version = planned.before.plus(planned.count as u64);
        if let Some(head) = self.memory.heads.get(&write.stream)
            && head.number != 0
        {
            head.stream.version = version;
            return Ok(head.number);
        }
        // It is new, or was forgotten since it was checked.
        let mut head = self.head_of(&write.stream)?;
        if head.number == 0 {
            head.number = self.add_stream(&write.stream)?;
        }
        head.stream.version = version;
        let number = head.number;
        self.memory.heads.insert(write.stream.clone(), head);
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
            let known = interned::type_number(self.connection, event_type)?;
            let number = if let Some(number) = known {
                number
            } else {
                let number = interned::add_type(self.connection, event_type)?;
                // It has no event yet, so nothing has to be looked up.
                self.memory.type_ends.insert(number, TermEnd::default());
                number
            };
            self.memory.types.insert(Arc::clone(event_type), number);
            number
        };
        self.memory.last_type = Some((Arc::clone(event_type), number));
        Ok(number)
    }

    pub(super) fn head(&mut self) -> Result<(Position, Timestamp), StoreError> {
        if let Some(head) = self.memory.head {
            return Ok(head);
        }
        let head = log::head(self.connection)?;
        self.memory.head = Some(head);
        Ok(head)
    }

    /// Finds the event of a stream with this id.
    fn event(&mut self, stream: &StreamId, id: &EventId) -> Result<Option<KnownEvent>, StoreError> {
        let Head { number, .. } = self.head_of(stream)?;
        let stored_id = match id.kind() {
            EventIdKind::Uuid(bytes) => Value::Blob(bytes.to_vec()),
            EventIdKind::Text(text) => Value::Text(text.to_owned()),
            _ => return Ok(None),
        };
        let known = if self.memory.names.layout == Layout::Tagged { &KNOWN_TAGGED } else { &KNOWN };
        let mut statement = self.written()?.prepare_cached(known).map_err(errors::store)?;
        let mut rows = statement.query((number, stored_id)).map_err(errors::store)?;
        let Some(row) = rows.next().map_err(errors::store)? else { return Ok(None) };
        let header = Header::of(row)?;
        let Header { position, version, time, .. } = header;
        let id = id.clone();
        if header.event_type == REMOVED {
            header.verify_removed(row)?;
            return Ok(Some(KnownEvent { id, version, position, time, content: None }));
        }
        let content = header.content(row)?;
        let mut buffer = rows::buffer(1, content.bytes());
        let event = header.event(content, self.connection, &mut self.memory.names, self.memory.store, &mut buffer)?;
        Ok(Some(KnownEvent { id, version, position, time, content: Some((event.event_type, event.payload)) }))
    }
}

static KNOWN: LazyLock<String> = LazyLock::new(|| known(COLUMNS));
static KNOWN_TAGGED: LazyLock<String> = LazyLock::new(|| known(TAGGED_COLUMNS));

fn known(columns: &str) -> String {
    format!("SELECT {columns} FROM es_event INDEXED BY es_event_id WHERE stream = ?1 AND id = ?2")
}
