//! What a page requests besides its span, and how much of it SQL can evaluate.

use std::borrow::Cow;
use std::fmt::Write;

use es_framework::{Clause, Filter, Position, Query, StoreError, Timestamp};
use tokio_rusqlite::rusqlite::{Connection, Row};

use super::by_postings::{self, Criterion};
use super::line::{Axis, Line, Span};
use crate::tables::interned::{self, Names};
use crate::tables::rows::Header;
use crate::tables::schema::Layout;
use crate::tables::streams;

/// Lists longer than this are not put into one `IN (…)` but left to the filter.
pub(super) const IN_LIMIT: usize = 64;

/// A filter, split into parts.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The part that SQL can evaluate: all rows for which it is false may be skipped unread. Empty if SQL can evaluate
    /// nothing.
    pub(super) condition: String,
    /// The numbers of the requested types, if only some are.
    types: Option<Vec<i64>>,
    /// The numbers of the requested streams, if only some are.
    streams: Option<Vec<i64>>,
    /// The requested query, if its events can be found by tags and types.
    pub(super) criteria: Option<Vec<Criterion>>,
    /// The rest, for the one evaluator.
    left: Filter,
}

impl Wanted {
    /// Splits off what SQL and the span can express; returns no span if no event can match.
    ///
    /// If damage prevents that for some part, it is left to the evaluator: it reads every row, so that the damage is
    /// reported where it is.
    pub(super) fn of(
        connection: &Connection,
        names: &mut Names,
        line: &Line,
        filter: &Filter,
        mut span: Span,
    ) -> Result<(Self, Option<Span>), StoreError> {
        let mut wanted = Self::default();
        let mut types: Vec<Cow<'_, Clause>> = Vec::new();
        for clause in filter.clauses() {
            let told = match clause {
                Clause::Query(query) if names.layout == Layout::Plain => match types_of(query) {
                    // No event has tags.
                    Some(named) if named.is_empty() => return Ok((wanted, None)),
                    Some(named) => {
                        types.push(Cow::Owned(Clause::Types(named)));
                        Ok(true)
                    }
                    None => Ok(false),
                },
                Clause::Query(query) => wanted.take_query(connection, names, line, query),
                Clause::Types(named) if named.len() <= IN_LIMIT => {
                    types.push(Cow::Borrowed(clause));
                    Ok(true)
                }
                Clause::Streams(named) if named.len() <= IN_LIMIT && matches!(line.axis, Axis::All) => {
                    let numbers = named.iter().map(|stream| streams::number(connection, stream));
                    numbers.collect::<Result<Vec<_>, _>>().map(|numbers| {
                        let numbers = numbers.into_iter().flatten();
                        wanted.streams = Some(match wanted.streams.take() {
                            None => numbers.collect(),
                            Some(before) => numbers.filter(|number| before.contains(number)).collect(),
                        });
                        true
                    })
                }
                clause => narrow(connection, names, line, &mut span, clause),
            };
            match told {
                Ok(true) => {}
                Ok(false) | Err(StoreError::Corrupt { .. }) => wanted.left = wanted.left.and(clause.clone()),
                Err(error) => return Err(error),
            }
        }
        if !types.is_empty() {
            match wanted.take_types(connection, names, &types) {
                Ok(()) => {}
                Err(StoreError::Corrupt { .. }) => {
                    wanted.left = types.into_iter().fold(wanted.left, |left, clause| left.and(clause.into_owned()));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(streams) = &wanted.streams {
            push_in(&mut wanted.condition, "stream IN", streams);
        }
        Ok((wanted, (span.after < span.upto).then_some(span)))
    }

    /// A number that stands for no type has to be returned too, because it is damaged. So SQL is given the types to
    /// *exclude*, unless there are too many types.
    fn take_types(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        clauses: &[Cow<'_, Clause>],
    ) -> Result<(), StoreError> {
        let is_wanted = |name: &str| {
            clauses
                .iter()
                .all(|clause| matches!(&**clause, Clause::Types(wanted) if wanted.iter().any(|want| want == name)))
        };
        // Types are looked up before any event is read.
        let nowhere = Position::ZERO;
        let numbers = match (interned::all_types(connection, IN_LIMIT)?, clauses.first().map(|clause| &**clause)) {
            (Some(all), _) => {
                let (mut numbers, mut others) = (Vec::new(), Vec::new());
                for number in all {
                    let list = if is_wanted(names.event_type(connection, number, nowhere)?.name()) {
                        &mut numbers
                    } else {
                        &mut others
                    };
                    list.push(number);
                }
                if !others.is_empty() {
                    push_in(&mut self.condition, "type NOT IN", &others);
                }
                numbers
            }
            (None, Some(Clause::Types(named))) => {
                let mut numbers = interned::types_named(connection, named)?;
                for number in &numbers {
                    let event_type = names.event_type(connection, *number, nowhere)?;
                    if !named.iter().any(|name| name == event_type.name()) {
                        return Err(crate::connection::errors::damaged(None, "the index over event types is damaged"));
                    }
                }
                let mut kept = Vec::with_capacity(numbers.len());
                for number in numbers.drain(..) {
                    if is_wanted(names.event_type(connection, number, nowhere)?.name()) {
                        kept.push(number);
                    }
                }
                push_in(&mut self.condition, "type IN", &kept);
                kept
            }
            _ => return Ok(()),
        };
        self.types = Some(numbers);
        Ok(())
    }

    /// Lets postings lead to the events of a query, if they can; returns false, because the evaluator has to look at each
    /// of them all the same.
    fn take_query(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        line: &Line,
        query: &Query,
    ) -> Result<bool, StoreError> {
        // If the end of the log cannot be trusted, a scan continues as long as there are rows.
        if self.criteria.is_none() && matches!(line.axis, Axis::All) && line.is_sound {
            self.criteria = by_postings::criteria(connection, names, query)?;
        }
        Ok(false)
    }

    /// Whether an event matches; its payload is not read.
    pub(super) fn passes(
        &self,
        header: &Header,
        row: &Row<'_>,
        connection: &Connection,
        names: &mut Names,
    ) -> Result<bool, StoreError> {
        let listed = |list: &Option<Vec<i64>>, number| list.as_ref().is_none_or(|list| list.contains(number));
        Ok(listed(&self.types, &header.event_type)
            && listed(&self.streams, &header.stream)
            && (self.left.is_empty() || header.passes(&self.left, row, connection, names)?))
    }
}

/// The types that a query comes down to where no event has tags, if they are few enough for SQL.
fn types_of(query: &Query) -> Option<Vec<String>> {
    let criteria = || query.criteria().iter().filter(|criterion| criterion.tags.is_empty());
    let named = criteria().flat_map(|criterion| &criterion.types).take(IN_LIMIT + 1);
    let named: Vec<String> = named.map(|name| (**name).to_owned()).collect();
    (named.len() <= IN_LIMIT && criteria().all(|criterion| !criterion.types.is_empty())).then_some(named)
}

/// Narrows the span by a position or time bound; returns false if the clause is not such a bound.
fn narrow(
    connection: &Connection,
    names: &mut Names,
    line: &Line,
    span: &mut Span,
    clause: &Clause,
) -> Result<bool, StoreError> {
    let of_all = matches!(line.axis, Axis::All);
    match clause {
        Clause::After(position) if of_all => span.after = span.after.max(position.get()),
        Clause::Before(position) if of_all => span.upto = span.upto.min(position.get().saturating_sub(1)),
        Clause::After(position) => {
            span.after = line.last_before(connection, names, *span, |at, _| at <= *position)?;
        }
        Clause::Before(position) => {
            span.upto = line.last_before(connection, names, *span, |at, _| at < *position)?;
        }
        Clause::Since(time) => span.after = line.last_before(connection, names, *span, |_, at| at < *time)?,
        Clause::Until(time) if *time == Timestamp::from_micros(i64::MAX) => {}
        Clause::Until(time) => span.upto = line.last_before(connection, names, *span, |_, at| at <= *time)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn push_in(sql: &mut String, column: &str, numbers: &[i64]) {
    if !sql.is_empty() {
        sql.push_str(" AND ");
    }
    // The plus keeps SQLite from using an index: the rows must come in the order of the axis.
    let _infallible = write!(sql, "+{column} (");
    for (i, number) in numbers.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _infallible = write!(sql, "{comma}{number}");
    }
    sql.push(')');
}
