//! What must be known of the log to judge a group, and is not remembered.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use es_framework::engine::{CellFacts, KnownEvent, Questions};
use es_framework::{
    Append, CellKey, CommandKey, CommandRecord, EventId, EventIdKind, EventType, Position, Query, StoreId, StreamHead,
    StreamId, Version,
};
use futures_util::future::{try_join, try_join5};

use super::memory::{Head, Memory};
use crate::connection::errors::Failure;
use crate::connection::session::Session;
use crate::connection::values::{Uuid, natural};
use crate::tables::cells;
use crate::tables::commands;
use crate::tables::names::{self, Names, checked_stream};
use crate::tables::queries::criteria;
use crate::tables::rows::{self, Header, column};
use crate::tables::statements::Statements;

/// Questions that go to the server together.
#[derive(Debug, Default)]
pub(super) struct Asked {
    streams: HashSet<StreamId>,
    types: HashSet<Arc<EventType>>,
    commands: HashSet<CommandKey>,
    ids: HashSet<(StreamId, EventId)>,
    conditions: HashSet<(Query, Position)>,
    cells: HashSet<CellKey>,
    /// Whether the log is locked, so that cells can be locked as well.
    locked: bool,
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every stream that was asked for; one that was never written has the default head.
    pub(super) heads: HashMap<StreamId, Head>,
    pub(super) types: HashMap<Arc<EventType>, i32>,
    pub(super) commands: HashMap<CommandKey, CommandRecord>,
    /// The events with one of the ids, by stream; [`None`] if ids were not asked for.
    pub(super) ids: Option<HashMap<StreamId, Vec<KnownEvent>>>,
    /// The first event after a position that matches a query, for those that were asked for; of all others it is known
    /// that there is none.
    pub(super) matches: HashMap<Query, HashMap<Position, Option<Position>>>,
    /// The cells that were asked for, without those that were never set.
    pub(super) cells: HashMap<CellKey, CellFacts>,
}

impl Asked {
    /// What is not known about these appends. Ids are looked up only if `ids` is set: most are new, and an index
    /// detects the others when the events are written. What is remembered of tags is used only if the log is not
    /// `locked`. Cells are never remembered: they are also set by those who do not append.
    pub(super) fn about<'a>(
        appends: impl Iterator<Item = &'a Append>,
        memory: &mut Memory,
        ids: bool,
        locked: bool,
    ) -> Self {
        let mut asked = Self { locked, ..Self::default() };
        for append in appends {
            let questions = Questions::of(append);
            if let Some(key) = questions.command() {
                asked.commands.insert(key.clone());
            }
            for question in questions.streams() {
                if memory.heads.get(question.stream).is_none() {
                    asked.streams.insert(question.stream.clone());
                }
                if ids {
                    asked.ids.extend(question.ids().map(|id| (question.stream.clone(), id.clone())));
                }
            }
            for condition in questions.conditions() {
                if locked || !memory.tags.rules_out(condition) {
                    asked.conditions.insert((condition.query.clone(), condition.after));
                }
            }
            asked.cells.extend(questions.cells().cloned());
            for event in append.streams.iter().flat_map(|write| &write.events) {
                if memory.types.get(event.event_type()).is_none() && !asked.types.contains(event.event_type()) {
                    asked.types.insert(Arc::clone(event.event_type()));
                }
            }
        }
        asked
    }

    pub(super) fn is_empty(&self) -> bool {
        let known = self.streams.is_empty() && self.types.is_empty() && self.commands.is_empty();
        known && self.ids.is_empty() && self.conditions.is_empty() && self.cells.is_empty()
    }

    /// Asks the server. The answers may be of different moments: they hold together if the log ends at the same place
    /// afterwards.
    pub(super) async fn answer(
        &self,
        session: &Session,
        statements: &Statements,
        store: StoreId,
        names: &Names,
        ids: bool,
    ) -> Result<Found, Failure> {
        let log = try_join5(
            self.heads(session, statements),
            self.types(session, statements),
            self.commands(session, statements),
            self.events(session, statements, store, names),
            self.matches(session, statements),
        );
        // Boxed, because they are large and most have nothing to do.
        let answers = Box::pin(try_join(log, self.cells(session, statements)));
        let ((heads, types, commands, known, matches), cells) = answers.await?;
        Ok(Found { heads, types, commands, ids: ids.then_some(known), matches, cells })
    }

    async fn cells(&self, session: &Session, statements: &Statements) -> Result<HashMap<CellKey, CellFacts>, Failure> {
        if self.cells.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted: Vec<&str> = self.cells.iter().map(CellKey::as_str).collect();
        cells::facts(session, statements, &wanted, self.locked).await
    }

    async fn matches(
        &self,
        session: &Session,
        statements: &Statements,
    ) -> Result<HashMap<Query, HashMap<Position, Option<Position>>>, Failure> {
        let mut matches: HashMap<_, HashMap<_, _>> = HashMap::new();
        if self.conditions.is_empty() {
            return Ok(matches);
        }
        let asked: Vec<_> = self.conditions.iter().collect();
        let queries: Vec<String> = asked.iter().map(|(query, _)| criteria(query)).collect::<Result<_, _>>()?;
        let after: Vec<i64> = asked.iter().map(|(_, after)| after.as_i64()).collect();
        let rows = session.query(&statements.first_matches, &[&queries, &after]).await?;
        for ((query, after), row) in asked.into_iter().zip(&rows) {
            let first: Option<i64> = column(row, 0, None)?;
            let first = first.map(|first| natural(first, None)).transpose()?.map(Position::new);
            matches.entry(query.clone()).or_default().insert(*after, first);
        }
        Ok(matches)
    }

    async fn heads(&self, session: &Session, statements: &Statements) -> Result<HashMap<StreamId, Head>, Failure> {
        let mut heads: HashMap<_, _> = self.streams.iter().map(|stream| (stream.clone(), Head::default())).collect();
        if self.streams.is_empty() {
            return Ok(heads);
        }
        let wanted: Vec<&str> = self.streams.iter().map(StreamId::as_str).collect();
        for row in session.query(&statements.streams_by_name, &[&wanted]).await? {
            let (name, number): (&str, i64) = (column(&row, 0, None)?, column(&row, 1, None)?);
            let stream = checked_stream(number, name, column(&row, 2, None)?, column(&row, 3, None)?)?;
            let version = natural(column::<Option<i64>>(&row, 4, None)?.unwrap_or(0), None)?;
            heads.insert(stream, Head { number, stream: StreamHead::at(Version::new(version)) });
        }
        Ok(heads)
    }

    async fn types(&self, session: &Session, statements: &Statements) -> Result<HashMap<Arc<EventType>, i32>, Failure> {
        let mut types = HashMap::new();
        if self.types.is_empty() {
            return Ok(types);
        }
        let mut wanted: Vec<&str> = self.types.iter().map(|event_type| event_type.name()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for row in session.query(&statements.types_by_name, &[&wanted]).await? {
            let (number, event_type) = names::event_type(&row)?;
            if self.types.contains(&event_type) {
                types.insert(event_type, number);
            }
        }
        Ok(types)
    }

    async fn commands(
        &self,
        session: &Session,
        statements: &Statements,
    ) -> Result<HashMap<CommandKey, CommandRecord>, Failure> {
        if self.commands.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted: Vec<&str> = self.commands.iter().map(CommandKey::as_str).collect();
        let found = commands::find(session, statements, &wanted).await?;
        Ok(found.into_iter().map(|record| (record.command.key.clone(), record)).collect())
    }

    async fn events(
        &self,
        session: &Session,
        statements: &Statements,
        store: StoreId,
        names: &Names,
    ) -> Result<HashMap<StreamId, Vec<KnownEvent>>, Failure> {
        let mut known: HashMap<StreamId, Vec<KnownEvent>> = HashMap::new();
        if self.ids.is_empty() {
            return Ok(known);
        }
        let (mut streams, mut uuids, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for (stream, id) in &self.ids {
            let (uuid, text) = match id.kind() {
                EventIdKind::Uuid(bytes) => (Some(Uuid(*bytes)), None),
                EventIdKind::Text(text) => (None, Some(text)),
                _ => continue,
            };
            streams.push(stream.as_str());
            uuids.push(uuid);
            texts.push(text);
        }
        let rows = session.query(&statements.events_by_id, &[&streams, &uuids, &texts]).await?;
        let headers: Vec<Header> = rows.iter().map(Header::of).collect::<Result<_, _>>()?;
        let numbers = headers.iter().map(|header| (header.stream, header.event_type));
        let page = names.of(numbers, session, statements).await?;
        let mut buffer = rows::buffer(rows.len(), 1 << 20);
        for (row, header) in rows.iter().zip(&headers) {
            let event = header.event(row, &page, store, &mut buffer)?;
            known.entry(event.stream).or_default().push(KnownEvent {
                id: event.id,
                version: event.version,
                position: event.position,
                time: event.time,
                content: Some((event.event_type, event.payload)),
            });
        }
        Ok(known)
    }
}
