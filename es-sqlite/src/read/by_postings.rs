//! A page of `@all` by a query: found by its tags and types.

use std::collections::VecDeque;
use std::sync::Arc;

use es_framework::engine::PAGE_SCAN;
use es_framework::{Position, Query, StoreError};
use tokio_rusqlite::rusqlite::Connection;

use super::line::{Line, Span};
use super::scan::{Found, Room, Scan};
use super::wanted::IN_LIMIT;
use crate::connection::errors;
use crate::tables::interned::{self, Names};
use crate::tables::postings::{self, Postings};
use crate::tables::rows::REMOVED;
use crate::tables::tags;

/// Scanning a block for some types takes as long as following this many postings of a tag.
const POSTINGS_PER_BLOCK: u64 = 100;

/// A criterion that an event may meet.
#[derive(Debug)]
pub(super) struct Criterion {
    /// The numbers of its tags.
    tags: Vec<i64>,
    /// Its types, if it names some.
    types: Option<Types>,
}

/// The types that a criterion names, or those it does not name.
#[derive(Debug, Default)]
struct Types {
    numbers: Vec<i64>,
    /// The others, if there are not too many types. A number that stands for no type is damaged: it is in neither list,
    /// and its event has to be looked at.
    others: Option<Vec<i64>>,
}

impl Types {
    fn may_be(&self, number: i64) -> bool {
        self.others.as_ref().map_or_else(|| self.numbers.contains(&number), |others| !others.contains(&number))
    }
}

/// Looks up the tags and types of a query; [`None`] if a criterion has neither, so that every event meets it. Criteria
/// with a tag or with types that no event has are left out.
pub(super) fn criteria(
    connection: &Connection,
    names: &mut Names,
    query: &Query,
) -> Result<Option<Vec<Criterion>>, StoreError> {
    let mut criteria = Vec::with_capacity(query.criteria().len());
    for criterion in query.criteria() {
        if criterion.tags.is_empty() && criterion.types.is_empty() {
            return Ok(None);
        }
        let mut numbers = Vec::with_capacity(criterion.tags.len());
        for tag in &criterion.tags {
            numbers.extend(tags::number(connection, tag)?);
        }
        if numbers.len() < criterion.tags.len() {
            continue;
        }
        let types = match &criterion.types[..] {
            [] => None,
            named => Some(types(connection, names, named)?),
        };
        if types.as_ref().is_none_or(|types| !types.numbers.is_empty()) {
            criteria.push(Criterion { tags: numbers, types });
        }
    }
    Ok(Some(criteria))
}

fn types(connection: &Connection, names: &mut Names, named: &[Arc<str>]) -> Result<Types, StoreError> {
    let all = interned::all_types(connection, IN_LIMIT)?;
    let is_listed = all.is_some();
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for number in all.map_or_else(|| interned::types_named(connection, named), Ok)? {
        let event_type = names.event_type(connection, number, Position::ZERO)?;
        let list = if named.iter().any(|name| **name == *event_type.name()) { &mut numbers } else { &mut others };
        list.push(number);
    }
    if !is_listed && !others.is_empty() {
        return Err(errors::damaged(None, "the index over event types is damaged"));
    }
    Ok(Types { numbers, others: is_listed.then_some(others) })
}

/// Where events are found that may match.
enum Source<'c> {
    /// The events with a tag.
    Tag(Postings),
    /// The events of some types, in the blocks that have any.
    Types(Blocks<'c>),
}

impl Source<'_> {
    fn next(&mut self, scan: &mut Scan<'_>) -> Result<Option<u64>, StoreError> {
        match self {
            Self::Tag(postings) => postings.next(scan.connection, scan.names),
            Self::Types(blocks) => blocks.next(scan),
        }
    }
}

impl Scan<'_> {
    /// Finds the events of a span that may meet one of the criteria, and adds those that the filter accepts.
    ///
    /// Of each criterion the rarest tag within the span is followed, or its types if their events are in few blocks. No
    /// posting of what is followed can be missed, because they are numbered, and the row it leads to says whether the
    /// event has the other tags and the type. So a posting that is lost or made up is noticed.
    pub(super) fn by_postings(&mut self, criteria: &[Criterion], span: Span) -> Result<Found, StoreError> {
        let mut found = self.begin(span);
        match self.follow(criteria, span, &mut found) {
            Err(StoreError::Corrupt { .. }) if found.rows > 0 => Ok(found),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn follow(&mut self, criteria: &[Criterion], span: Span, found: &mut Found) -> Result<(), StoreError> {
        let connection = self.connection;
        let mut sources = self.sources(criteria, span)?;
        let sql = format!("SELECT {} FROM es_event NOT INDEXED WHERE position = ?1", self.names.columns());
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        while let Some(place) = self.nearest(&mut sources)? {
            if found.rows > 0 && found.rows + examined(&sources) >= PAGE_SCAN as u64 {
                return Ok(());
            }
            let at = Position::new(place);
            let mut rows = statement.query([at.as_i64()]).map_err(errors::store)?;
            let row = rows.next().map_err(|error| errors::store_at(at, error))?;
            let header = row.map(|row| self.header(row)).transpose()?;
            for source in &mut sources {
                match source {
                    Source::Types(blocks) => blocks.pass(place),
                    Source::Tag(postings) => {
                        if !postings.pass(place) {
                            postings.confirm(connection, self.names)?;
                            continue;
                        }
                        let Some((row, header)) = row.zip(header) else { continue };
                        if header.event_type != REMOVED && !header.has_tag(row, postings.term())? {
                            // If the row is damaged too, that is the better error.
                            header.verify(row, connection, self.names)?;
                            return Err(header.damaged("there is a posting of it for a tag that it does not have"));
                        }
                    }
                }
            }
            match row.zip(header) {
                Some((row, header)) => {
                    if self.take(&header, row, found)? == Room::Full {
                        found.place = if self.forward { place - 1 } else { place + 1 };
                        return Ok(());
                    }
                }
                None if self.line.gaps => {}
                None => return Err(errors::damaged(Some(at), "there is a posting of it, and no such event")),
            }
            found.place = place;
            found.rows += 1;
        }
        found.place = if self.forward { span.upto } else { span.after + 1 };
        found.end = true;
        Ok(())
    }

    /// What to follow for each criterion.
    fn sources<'c>(&mut self, criteria: &'c [Criterion], span: Span) -> Result<Vec<Source<'c>>, StoreError> {
        let (mut tags, mut sources) = (Vec::with_capacity(criteria.len()), Vec::new());
        for Criterion { tags: all, types } in criteria {
            match (self.rarest(all, types.is_some(), span)?, types) {
                (rarest, Some(types)) if !self.is_rarer(rarest, types, span)? => {
                    sources.push(Source::Types(Blocks::of(self, types, span)?));
                }
                (Some((_, tag)), _) => tags.push(tag),
                (None, _) => {}
            }
        }
        tags.sort_unstable();
        tags.dedup();
        for tag in tags {
            sources.push(Source::Tag(self.postings(tag, span)?));
        }
        Ok(sources)
    }

    /// The tag with the fewest events in a span, and their number, if there is a choice.
    fn rarest(&self, tags: &[i64], counted: bool, span: Span) -> Result<Option<(u64, i64)>, StoreError> {
        let mut rarest: Option<(u64, i64)> = None;
        for tag in tags {
            let count = if counted || tags.len() > 1 {
                postings::count(self.connection, *tag, span.after, span.upto)?
            } else {
                0
            };
            rarest = Some(rarest.map_or((count, *tag), |rarest| rarest.min((count, *tag))));
        }
        Ok(rarest)
    }

    /// Whether following a tag costs less than scanning the blocks that have events of some types.
    fn is_rarer(&self, tag: Option<(u64, i64)>, types: &Types, span: Span) -> Result<bool, StoreError> {
        let Some((count, _)) = tag else { return Ok(false) };
        let Span { after, upto } = span.of_blocks();
        let mut blocks = 0;
        for number in &types.numbers {
            blocks += postings::count(self.connection, postings::term_of_type(*number), after, upto)?;
        }
        Ok(count <= blocks.saturating_mul(POSTINGS_PER_BLOCK))
    }

    fn postings(&mut self, term: i64, span: Span) -> Result<Postings, StoreError> {
        let follow = if self.forward { Postings::forward } else { Postings::backward };
        follow(self.connection, self.names, term, span.after, span.upto)
    }

    /// The place of the next event in the order of the read.
    fn nearest(&mut self, sources: &mut [Source<'_>]) -> Result<Option<u64>, StoreError> {
        let mut nearest = None;
        for source in sources {
            let next = source.next(self)?;
            nearest = self.nearer(nearest, next);
        }
        Ok(nearest)
    }

    fn nearer(&self, one: Option<u64>, other: Option<u64>) -> Option<u64> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if self.forward { one.min(other) } else { one.max(other) }),
            (one, other) => one.or(other),
        }
    }
}

/// The events of some types, block by block.
struct Blocks<'c> {
    /// For each type its first event in each block.
    postings: Vec<Postings>,
    types: &'c Types,
    span: Span,
    ahead: VecDeque<u64>,
    /// The number of rows that were scanned.
    examined: u64,
}

impl<'c> Blocks<'c> {
    fn of(scan: &mut Scan<'_>, types: &'c Types, span: Span) -> Result<Self, StoreError> {
        let follow = |number: &i64| scan.postings(postings::term_of_type(*number), span.of_blocks());
        let postings = types.numbers.iter().map(follow).collect::<Result<_, _>>()?;
        Ok(Self { postings, types, span, ahead: VecDeque::new(), examined: 0 })
    }

    fn next(&mut self, scan: &mut Scan<'_>) -> Result<Option<u64>, StoreError> {
        while self.ahead.is_empty() {
            let mut nearest = None;
            for postings in &mut self.postings {
                let next = postings.next(scan.connection, scan.names)?;
                nearest = scan.nearer(nearest, next);
            }
            let Some(nearest) = nearest else { return Ok(None) };
            self.scan(scan, postings::block(nearest))?;
        }
        Ok(self.ahead.front().copied())
    }

    fn pass(&mut self, place: u64) {
        if self.ahead.front() == Some(&place) {
            self.ahead.pop_front();
        }
    }

    /// Scans a block. It is scanned from its beginning and not from the posting, whose position may be damaged.
    fn scan(&mut self, scan: &mut Scan<'_>, block: u64) -> Result<(), StoreError> {
        let Line { gaps, .. } = *scan.line;
        let connection = scan.connection;
        for postings in &mut self.postings {
            if postings.next(connection, scan.names)?.is_some_and(|place| postings::block(place) == block) {
                postings.confirm(connection, scan.names)?;
                postings.pop();
            }
        }
        let first = postings::first_of(block).max(self.span.after + 1);
        let last = postings::last_of(block).min(self.span.upto);
        if first > last {
            return Ok(());
        }
        let bounds = [first, last].map(|place| Position::new(place).as_i64());
        let sql = if scan.forward { ROWS } else { ROWS_BACKWARD };
        let mut statement = connection.prepare_cached(sql).map_err(errors::store)?;
        let mut rows = statement.query(bounds).map_err(errors::store)?;
        let mut before = if scan.forward { first - 1 } else { last + 1 };
        while let Some(row) = rows.next().map_err(errors::store)? {
            let (position, event_type): (i64, i64) =
                row.get(0).and_then(|position| Ok((position, row.get(1)?))).map_err(errors::store)?;
            let place = position.unsigned_abs();
            let next = if scan.forward { before + 1 } else { before - 1 };
            let onward = if scan.forward { place >= next } else { place <= next };
            if !onward || place != next && !gaps {
                return Err(missing(next));
            }
            if self.types.may_be(event_type) {
                self.ahead.push_back(place);
            }
            before = place;
        }
        self.examined += last - first + 1;
        let end = if scan.forward { last } else { first };
        if before != end && !gaps {
            return Err(missing(if scan.forward { before + 1 } else { before - 1 }));
        }
        Ok(())
    }
}

/// The rows of a part of a block. Their types are not verified, but they are all there.
const ROWS: &str = "SELECT position, type FROM es_event NOT INDEXED WHERE position BETWEEN ?1 AND ?2 ORDER BY position";
const ROWS_BACKWARD: &str =
    "SELECT position, type FROM es_event NOT INDEXED WHERE position BETWEEN ?1 AND ?2 ORDER BY position DESC";

fn missing(place: u64) -> StoreError {
    errors::damaged(Some(Position::new(place)), "there is no event, and the log does not end there")
}

fn examined(sources: &[Source<'_>]) -> u64 {
    let of = |source: &Source<'_>| match source {
        Source::Tag(_) => 0,
        Source::Types(blocks) => blocks.examined,
    };
    sources.iter().map(of).sum()
}

impl Span {
    /// The span of the whole blocks that this one touches.
    fn of_blocks(self) -> Self {
        let first = postings::first_of(postings::block(self.after + 1));
        Self { after: first.saturating_sub(1), upto: postings::last_of(postings::block(self.upto)) }
    }
}
