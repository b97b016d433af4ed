//! A group of appends, judged in order, and the rows that they add.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use es_framework::engine::{
    CellFacts, Facts, KnownEvent, Plan, PlannedCell, Questions, StreamFacts, StreamHead, Verdict, checksum, judge,
    judge_as_unknown,
};
use es_framework::{
    Append, AppendError, Appended, CandidateEvent, CellKey, Clock, CommandKey, CommandRecord, EventId, EventIdKind,
    EventType, KeyedCommand, Mark, Metadata, Position, StoreError, StoreId, StoredEvent, StreamId, Tag, Timestamp,
    Version,
};
use tokio_postgres::Row;

use super::ask::Found;
use super::memory::{End, Head, Memory};
use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{Uuid, natural};
use crate::tables::cells;
use crate::tables::commands::CommandRow;
use crate::tables::names::{stream_sum, type_sum};
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// Why a group has to be judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsure {
    /// An id of it is used twice in the group, so that all of its ids have to be looked up.
    Ids,
}

/// A group that is judged as of one end of the log.
#[derive(Debug)]
pub(super) struct Draft {
    store: StoreId,
    /// Where the log ends before the group, and after what was judged so far.
    pub(super) before: End,
    pub(super) end: End,
    found: Found,
    heads: HashMap<StreamId, Head>,
    types: HashMap<Arc<EventType>, i32>,
    streams: Vec<(i64, StreamId)>,
    new_types: Vec<(i32, Arc<EventType>)>,
    pub(super) rows: Vec<EventRow>,
    commands: Vec<(CommandKey, CommandRow)>,
    records: HashMap<CommandKey, CommandRecord>,
    cells: HashMap<CellKey, CellRow>,
    /// The events of the group that have an id.
    ids: HashMap<(StreamId, EventId), KnownEvent>,
    /// The result of each append, in order.
    pub(super) results: Vec<Result<Appended, AppendError>>,
}

/// A row to insert.
#[derive(Debug)]
pub(super) struct EventRow {
    number: i64,
    stream: StreamId,
    version: Version,
    position: Position,
    time: Timestamp,
    type_number: i32,
    checksum: u32,
    event: CandidateEvent,
}

/// A cell to set.
#[derive(Debug)]
struct CellRow {
    /// The revision that it must have before the group; 0 if it was never set.
    before: i64,
    revision: i64,
    value: Option<Bytes>,
}

/// What proves that a group was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Witness {
    /// Its last event.
    Event(Mark),
    /// The record of its last command, for a group that writes no event.
    Command(CommandKey, i32),
    /// Nothing, because others may set cells in the same way; but as long as one of these cells is still at its
    /// revision, the group was not committed.
    Cells(Vec<(CellKey, i64)>),
}

impl Draft {
    /// Starts a group after the end that the writer knows.
    pub(super) fn new(store: StoreId, end: End, found: Found) -> Self {
        Self {
            store,
            before: end,
            end,
            found,
            heads: HashMap::new(),
            types: HashMap::new(),
            streams: Vec::new(),
            new_types: Vec::new(),
            rows: Vec::new(),
            commands: Vec::new(),
            records: HashMap::new(),
            cells: HashMap::new(),
            ids: HashMap::new(),
            results: Vec::new(),
        }
    }

    /// Judges the next append of the group, and adds what it writes.
    pub(super) fn push(&mut self, append: &Append, memory: &mut Memory, clock: &dyn Clock) -> Result<(), Unsure> {
        let result = self.judge(append, memory, clock)?;
        self.results.push(result);
        Ok(())
    }

    fn judge(
        &mut self,
        append: &Append,
        memory: &mut Memory,
        clock: &dyn Clock,
    ) -> Result<Result<Appended, AppendError>, Unsure> {
        if let Some(tagless) = unstorable(append) {
            return Ok(Err(tagless));
        }
        let facts = match self.facts(append, memory)? {
            Ok(facts) => facts,
            Err(error) => return Ok(Err(error.into())),
        };
        let known = facts.command.is_some();
        let verdict = if append.has_ids() && self.found.ids.is_none() && !known {
            // Most ids are new, and an index detects the others when the events are written.
            match judge_as_unknown(append, &facts) {
                Some(plan) => Verdict::Write(plan),
                None => return Err(Unsure::Ids),
            }
        } else {
            match judge(append, &facts) {
                Ok(verdict) => verdict,
                Err(error) => return Ok(Err(error)),
            }
        };
        let (appended, remember) = match verdict {
            Verdict::Known { appended, remember } => (appended, remember),
            Verdict::Write(plan) => {
                let appended = plan.appended(append, clock.now());
                if let Err(error) = self.set_cells(append, &plan) {
                    return Ok(Err(error.into()));
                }
                self.write(append, &plan, appended.time, memory);
                (appended, true)
            }
        };
        if let Some(command) = append.command.as_ref().filter(|_| remember)
            && let Err(error) = self.remember(command, &appended)
        {
            return Ok(Err(error.into()));
        }
        Ok(Ok(appended))
    }

    fn facts(&mut self, append: &Append, memory: &mut Memory) -> Result<Result<Facts, StoreError>, Unsure> {
        let questions = Questions::of(append);
        let mut facts = Facts::new(self.end.position, self.end.time);
        if let Some(key) = questions.command() {
            facts.command = self.records.get(key).or_else(|| self.found.commands.get(key)).cloned();
            if facts.command.is_some() {
                return Ok(Ok(facts));
            }
        }
        for question in questions.streams() {
            let Some(head) = self.head(question.stream, memory) else {
                let what = format!("stream {} was not looked up before it was judged", question.stream);
                return Ok(Err(errors::internal(what)));
            };
            let mut known: Vec<KnownEvent> = Vec::new();
            if let Some(found) = &self.found.ids {
                known.extend(found.get(question.stream).into_iter().flatten().cloned());
            }
            if !self.ids.is_empty() {
                for id in question.ids() {
                    if let Some(event) = self.ids.get(&(question.stream.clone(), id.clone())) {
                        if self.found.ids.is_none() {
                            return Err(Unsure::Ids);
                        }
                        known.push(event.clone());
                    }
                }
            }
            facts.push(StreamFacts::new(head.stream, known));
        }
        for condition in questions.conditions() {
            let in_log = self.found.matches.get(&condition.query).and_then(|found| found.get(&condition.after));
            let first = in_log.copied().flatten().or_else(|| {
                if memory.tags.rules_out(condition) {
                    return None;
                }
                // The events of the group come later in the log.
                condition.first_match(self.rows.iter().map(|row| (row.position, &row.event)))
            });
            facts.push_condition(first);
        }
        for key in questions.cells() {
            match self.cell(key) {
                Ok(cell) => facts.push_cell(cell),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(facts))
    }

    /// A cell after what the group has set so far.
    fn cell(&self, key: &CellKey) -> Result<CellFacts, StoreError> {
        let Some(CellRow { revision, value, .. }) = self.cells.get(key) else {
            return Ok(self.found.cells.get(key).copied().unwrap_or_default());
        };
        let revision = natural(*revision, None)?;
        Ok(if value.is_some() { CellFacts::existing(revision) } else { CellFacts::removed(revision) })
    }

    /// Sets the cells of a plan: all of them or none.
    fn set_cells(&mut self, append: &Append, plan: &Plan) -> Result<(), StoreError> {
        let mut set = Vec::with_capacity(append.cells.len());
        for PlannedCell { key, revision, value, .. } in plan.cells(append) {
            let revision = i64::try_from(revision).map_err(|_| errors::internal("a cell has no revisions left"))?;
            set.push((key, revision, value));
        }
        for (key, revision, value) in set {
            // A cell that is set twice must be as it was before the first time.
            let before = self.cells.get(key).map_or(revision - 1, |row| row.before);
            self.cells.insert(key.clone(), CellRow { before, revision, value: value.cloned() });
        }
        Ok(())
    }

    fn head(&self, stream: &StreamId, memory: &mut Memory) -> Option<Head> {
        let of_group = self.heads.get(stream).or_else(|| self.found.heads.get(stream)).copied();
        of_group.or_else(|| memory.heads.get(stream).copied())
    }

    /// Adds the rows of a plan.
    fn write(&mut self, append: &Append, plan: &Plan, time: Timestamp, memory: &mut Memory) {
        for (write, planned) in append.streams.iter().zip(plan.streams()) {
            if planned.count == 0 {
                continue;
            }
            let mut head = self.head(&write.stream, memory).unwrap_or_default();
            if head.number == 0 {
                self.end.last_stream += 1;
                head.number = self.end.last_stream;
                self.streams.push((head.number, write.stream.clone()));
            }
            let mut version = planned.before;
            for event in planned.events(write) {
                version = version.next();
                self.end.position = self.end.position.next();
                self.row(&write.stream, head.number, version, time, event, memory);
            }
            head.stream = StreamHead::at(version);
            self.heads.insert(write.stream.clone(), head);
            self.end.time = time;
        }
    }

    fn row(
        &mut self,
        stream: &StreamId,
        number: i64,
        version: Version,
        time: Timestamp,
        event: &CandidateEvent,
        memory: &mut Memory,
    ) {
        let position = self.end.position;
        let type_number = self.type_number(event.event_type(), memory);
        let metadata = event.metadata().map(Metadata::as_str);
        let (event_type, tags) = (event.event_type(), event.tags());
        let checksum =
            checksum(position, stream, version, time, event_type, event.id(), metadata, tags, event.payload());
        memory.tags.record(position, tags);
        if let Some(id) = event.id() {
            let content = Some((Arc::clone(event.event_type()), event.payload().clone()));
            let known = KnownEvent { id: id.clone(), version, position, time, content };
            self.ids.insert((stream.clone(), id.clone()), known);
        }
        self.rows.push(EventRow {
            number,
            stream: stream.clone(),
            version,
            position,
            time,
            type_number,
            checksum,
            event: event.clone(),
        });
    }

    fn type_number(&mut self, event_type: &Arc<EventType>, memory: &mut Memory) -> i32 {
        if let Some(last) = self.rows.last()
            && (Arc::ptr_eq(last.event.event_type(), event_type) || last.event.event_type() == event_type)
        {
            return last.type_number;
        }
        let known = self.types.get(event_type).or_else(|| self.found.types.get(event_type)).copied();
        if let Some(number) = known.or_else(|| memory.types.get(event_type).copied()) {
            return number;
        }
        self.end.last_type += 1;
        self.types.insert(Arc::clone(event_type), self.end.last_type);
        self.new_types.push((self.end.last_type, Arc::clone(event_type)));
        self.end.last_type
    }

    fn remember(&mut self, command: &KeyedCommand, appended: &Appended) -> Result<(), StoreError> {
        self.commands.push((command.key.clone(), CommandRow::of(command, appended)?));
        self.records.insert(command.key.clone(), CommandRecord::new(command.clone(), appended.clone()));
        Ok(())
    }

    /// Whether the group adds nothing to the database.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.commands.is_empty() && self.cells.is_empty()
    }

    /// The newest event of the group.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.rows.last().map(|last| Mark { position: last.position, checksum: last.checksum })
    }

    /// What will prove that the group was committed; [`None`] if it adds nothing.
    pub(super) fn witness(&self) -> Option<Witness> {
        if let Some(mark) = self.mark() {
            return Some(Witness::Event(mark));
        }
        if let Some((key, row)) = self.commands.last() {
            return Some(Witness::Command(key.clone(), row.sum(key).stored()));
        }
        let cells = self.cells.iter().map(|(key, row)| (key.clone(), row.before));
        (!self.cells.is_empty()).then(|| Witness::Cells(cells.collect()))
    }

    /// The events as they are read back, for watchers.
    pub(super) fn events(&self) -> impl Iterator<Item = StoredEvent> {
        self.rows.iter().map(|row| {
            let event = &row.event;
            StoredEvent::from_stored(
                row.stream.clone(),
                row.version,
                row.position,
                row.time,
                event.id().cloned().unwrap_or_else(|| EventId::derived(self.store, row.position)),
                Arc::clone(event.event_type()),
                event.payload().clone(),
                event.metadata().cloned(),
                event.tags().clone(),
                row.checksum,
            )
        })
    }

    /// Remembers the group, once it is committed.
    pub(super) fn keep(&mut self, memory: &mut Memory) {
        memory.end = Some(self.end);
        let found = std::mem::take(&mut self.found);
        for (stream, head) in found.heads.into_iter().chain(std::mem::take(&mut self.heads)) {
            memory.heads.insert(stream, head);
        }
        for (event_type, number) in found.types.into_iter().chain(std::mem::take(&mut self.types)) {
            memory.types.insert(event_type, number);
        }
    }

    /// Writes the group if the log still ends before it; returns whether it did.
    pub(super) async fn insert(
        &self,
        session: &Session,
        statements: &Statements,
        patience: &str,
    ) -> Result<bool, Failure> {
        let rows = &self.rows;
        let mut ids = Vec::with_capacity(rows.len());
        let mut id_texts = Vec::with_capacity(rows.len());
        for row in rows {
            let (uuid, text) = match row.event.id().map(EventId::kind) {
                Some(EventIdKind::Uuid(bytes)) => (Some(Uuid(*bytes)), None),
                Some(EventIdKind::Text(text)) => (None, Some(text)),
                _ => (None, None),
            };
            ids.push(uuid);
            id_texts.push(text);
        }
        let event = |column: fn(&EventRow) -> i64| rows.iter().map(column).collect::<Vec<i64>>();
        let metadata: Vec<_> = rows.iter().map(|row| row.event.metadata().map(Metadata::as_str)).collect();
        let tags: Vec<Option<String>> = rows.iter().map(|row| array(row.event.tags())).collect();
        let payloads: Vec<&[u8]> = rows.iter().map(|row| &row.event.payload()[..]).collect();
        let types: Vec<i32> = rows.iter().map(|row| row.type_number).collect();
        let sums: Vec<i32> = rows.iter().map(|row| row.checksum.cast_signed()).collect();

        let new = &self.streams;
        let stream_names: Vec<&str> = new.iter().map(|(_, name)| name.as_str()).collect();
        let categories: Vec<&str> = new.iter().map(|(_, name)| name.category()).collect();
        let stream_sums: Vec<i32> =
            new.iter().map(|(id, name)| stream_sum(*id, name.as_str(), name.category()).stored()).collect();

        let named = &self.new_types;
        let type_sum = |(id, of): &(i32, Arc<EventType>)| {
            type_sum(*id, of.name(), of.schema_version(), of.codec(), of.shape()).stored()
        };
        let type_sums: Vec<i32> = named.iter().map(type_sum).collect();

        let done = &self.commands;
        let command = |column: fn(&CommandRow) -> i64| done.iter().map(|(_, row)| column(row)).collect::<Vec<i64>>();
        let fingerprints: Vec<&[u8]> = done.iter().map(|(_, row)| &row.fingerprint[..]).collect();

        let set = &self.cells;
        let values: Vec<Option<&[u8]>> = set.values().map(|row| row.value.as_deref()).collect();
        let cell_sums: Vec<i32> =
            set.iter().map(|(key, row)| cells::sum(key, row.revision, row.value.as_deref()).stored()).collect();

        let rows = session
            .query(
                &statements.append,
                &[
                    &self.before.position.as_i64(),
                    &self.before.generation,
                    &patience,
                    &new.iter().map(|(id, _)| *id).collect::<Vec<i64>>(),
                    &stream_names,
                    &categories,
                    &stream_sums,
                    &named.iter().map(|(id, _)| *id).collect::<Vec<i32>>(),
                    &named.iter().map(|(_, of)| of.name()).collect::<Vec<&str>>(),
                    &named.iter().map(|(_, of)| i64::from(of.schema_version())).collect::<Vec<i64>>(),
                    &named.iter().map(|(_, of)| of.codec()).collect::<Vec<&str>>(),
                    &named.iter().map(|(_, of)| of.shape()).collect::<Vec<Option<&str>>>(),
                    &type_sums,
                    &event(|row| row.number),
                    &event(|row| row.version.as_i64()),
                    &event(|row| row.time.as_micros()),
                    &types,
                    &sums,
                    &ids,
                    &id_texts,
                    &metadata,
                    &tags,
                    &payloads,
                    &tags.iter().any(Option::is_some),
                    &done.iter().map(|(key, _)| key.as_str()).collect::<Vec<&str>>(),
                    &fingerprints,
                    &done.iter().map(|(_, row)| row.streams.as_str()).collect::<Vec<&str>>(),
                    &done.iter().map(|(_, row)| row.known).collect::<Vec<bool>>(),
                    &command(|row| row.position),
                    &command(|row| row.time),
                    &command(|row| row.clock_behind),
                    &done.iter().map(|(key, row)| row.sum(key).stored()).collect::<Vec<i32>>(),
                    &set.keys().map(CellKey::as_str).collect::<Vec<&str>>(),
                    &set.values().map(|row| row.before).collect::<Vec<i64>>(),
                    &set.values().map(|row| row.revision).collect::<Vec<i64>>(),
                    &values,
                    &cell_sums,
                ],
            )
            .await?;
        let answer = |row: &Row| column(row, 0, None);
        Ok(rows.first().map(answer).transpose()?.unwrap_or(false))
    }
}

/// Tags as the text of an array; [`None`] if there are none.
fn array(tags: &[Tag]) -> Option<String> {
    if tags.is_empty() {
        return None;
    }
    let escaped = tags.iter().map(|tag| tag.as_str().replace('\\', "\\\\").replace('"', "\\\""));
    let quoted: Vec<String> = escaped.map(|tag| format!("\"{tag}\"")).collect();
    Some(format!("{{{}}}", quoted.join(",")))
}

/// The error of an append that holds something that PostgreSQL cannot store.
fn unstorable(append: &Append) -> Option<AppendError> {
    let mut events = append.streams.iter().flat_map(|write| &write.events);
    let unfit = events.find(|event| event.event_type().shape().is_some_and(|shape| shape.contains('\0')))?;
    let what = format!("the shape of event type {} has a character U+0000", unfit.event_type().name());
    Some(StoreError::Internal { source: errors::words(&what) }.into())
}
