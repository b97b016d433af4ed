//! What a filter asks for: what SQL evaluates, and what is left to the one evaluator.

use es_framework::engine::Clause;
use es_framework::{Filter, Query, StoreError, StreamId};
use tokio_postgres::types::{ToSql, Type};

use crate::connection::errors::Failure;
use crate::connection::session::Session;
use crate::connection::values::{natural, signed};
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// Places above `after`, up to `upto`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) after: u64,
    pub(super) upto: u64,
}

/// A parameter of a condition.
pub(super) type Parameter = Box<dyn ToSql + Send + Sync>;

/// A filter, taken apart.
#[derive(Debug)]
pub(super) struct Wanted {
    /// SQL conditions, each preceded by `AND`.
    pub(super) condition: String,
    pub(super) types: Vec<Type>,
    pub(super) parameters: Vec<Parameter>,
    /// A query that the index over tags and types answers.
    pub(super) query: Option<Query>,
    /// The clauses that SQL does not evaluate.
    pub(super) left: Filter,
}

/// The sequence that a filter applies to: `@all`, or the stream with a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Axis<'a> {
    All,
    Stream(&'a StreamId, i64),
}

impl Wanted {
    /// Takes a filter apart and narrows the span; [`None`] if nothing in it can pass. Conditions use parameters from
    /// `$first` on.
    pub(super) async fn of(
        filter: &Filter,
        axis: Axis<'_>,
        span: &mut Span,
        first: usize,
        session: &Session,
        statements: &Statements,
    ) -> Result<Option<Self>, Failure> {
        let mut wanted = Self {
            condition: String::new(),
            types: Vec::new(),
            parameters: Vec::new(),
            query: None,
            left: Filter::new(),
        };
        for clause in filter.clauses() {
            let possible = match (clause, axis) {
                (Clause::After(position), Axis::All) => {
                    span.after = span.after.max(position.get());
                    true
                }
                (Clause::Before(position), Axis::All) => {
                    span.upto = span.upto.min(position.get().saturating_sub(1));
                    true
                }
                (Clause::After(position), _) => {
                    let upto = Upto { position: position.as_i64(), time: i64::MAX };
                    span.after = upto.find(axis, *span, session, statements).await?;
                    true
                }
                (Clause::Before(position), _) => {
                    let upto = Upto { position: position.as_i64() - 1, time: i64::MAX };
                    span.upto = upto.find(axis, *span, session, statements).await?;
                    true
                }
                (Clause::Since(time), _) => {
                    if let Some(time) = time.as_micros().checked_sub(1) {
                        let upto = Upto { position: i64::MAX, time };
                        span.after = upto.find(axis, *span, session, statements).await?;
                    }
                    true
                }
                (Clause::Until(time), _) => {
                    let upto = Upto { position: i64::MAX, time: time.as_micros() };
                    span.upto = upto.find(axis, *span, session, statements).await?;
                    true
                }
                (Clause::Streams(streams), Axis::Stream(stream, _)) => streams.contains(stream),
                (Clause::Categories(categories), Axis::Stream(stream, _)) => {
                    categories.iter().any(|category| category == stream.category())
                }
                (Clause::StreamPrefix(prefix), Axis::Stream(stream, _)) => stream.as_str().starts_with(prefix.as_str()),
                (Clause::Query(query), Axis::All) if wanted.query.is_none() => {
                    wanted.query = Some(query.clone());
                    !query.criteria().is_empty()
                }
                (clause, _) => wanted.push(clause, first),
            };
            if !possible || span.after >= span.upto {
                return Ok(None);
            }
        }
        wanted.condition = statements.schema.qualify(&wanted.condition);
        Ok(Some(wanted))
    }

    /// Adds a condition; returns false if nothing can satisfy it.
    fn push(&mut self, clause: &Clause, first: usize) -> bool {
        let n = first + self.parameters.len();
        match clause {
            Clause::Streams(streams) => {
                let names: Vec<String> = streams.iter().map(ToString::to_string).collect();
                self.add_list(
                    &format!(" AND stream = ANY(ARRAY(SELECT id FROM {{es}}.es_stream WHERE name = ANY(${n})))"),
                    names,
                )
            }
            Clause::Categories(categories) => self.add_list(
                &format!(
                    " AND EXISTS (SELECT FROM {{es}}.es_stream s WHERE s.id = e.stream AND s.category = ANY(${n}))"
                ),
                categories.clone(),
            ),
            Clause::Types(types) => self.add_list(
                &format!(" AND type = ANY(ARRAY(SELECT id FROM {{es}}.es_event_type WHERE name = ANY(${n})))"),
                types.clone(),
            ),
            Clause::Versions(versions) => {
                let versions: Vec<i64> = versions.iter().map(|version| version.as_i64()).collect();
                let possible = !versions.is_empty();
                self.add(&format!(" AND version = ANY(${n})"), Type::INT8_ARRAY, Box::new(versions));
                possible
            }
            Clause::StreamPrefix(prefix) => {
                let condition =
                    format!(" AND (SELECT starts_with(s.name, ${n}) FROM {{es}}.es_stream s WHERE s.id = e.stream)");
                self.add(&condition, Type::TEXT, Box::new(prefix.clone()));
                // No name has such a character, and no text of the server's may have it.
                !prefix.contains('\0')
            }
            other => {
                self.left = std::mem::take(&mut self.left).and(other.clone());
                true
            }
        }
    }

    /// Adds the condition that an event is at one of these positions.
    pub(super) fn only(&mut self, positions: Vec<i64>, first: usize) {
        let n = first + self.parameters.len();
        self.add(&format!(" AND position = ANY(${n})"), Type::INT8_ARRAY, Box::new(positions));
    }

    fn add_list(&mut self, condition: &str, mut texts: Vec<String>) -> bool {
        texts.retain(|text| !text.contains('\0'));
        let possible = !texts.is_empty();
        self.add(condition, Type::TEXT_ARRAY, Box::new(texts));
        possible
    }

    fn add(&mut self, condition: &str, of: Type, parameter: Parameter) {
        self.condition += condition;
        self.types.push(of);
        self.parameters.push(parameter);
    }
}

/// A bound that is searched for: the last event at or below a position and a time.
struct Upto {
    position: i64,
    time: i64,
}

impl Upto {
    async fn find(
        &self,
        axis: Axis<'_>,
        span: Span,
        session: &Session,
        statements: &Statements,
    ) -> Result<u64, Failure> {
        let stream = match axis {
            Axis::All => None,
            Axis::Stream(_, number) => Some(number),
        };
        let (low, high) = (signed(span.after), signed(span.upto));
        let rows = session.query(&statements.last_upto, &[&stream, &low, &high, &self.position, &self.time]).await?;
        let found: Option<i64> = rows.first().map(|row| column(row, 0, None)).transpose()?;
        Ok(natural(found.ok_or_else(|| -> StoreError { crate::connection::errors::internal("no place") })?, None)?)
    }
}
