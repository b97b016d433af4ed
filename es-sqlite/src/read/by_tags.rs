//! A page of `@all` by a query whose criteria all have tags: found by the index over tags.

use es_framework::engine::PAGE_SCAN;
use es_framework::{Position, Query, StoreError};
use tokio_rusqlite::rusqlite::Connection;

use super::line::Span;
use super::scan::{Found, Room, Scan};
use crate::connection::errors;
use crate::tables::rows::REMOVED;
use crate::tables::schema::Layout;
use crate::tables::tag_index::{self, Postings};
use crate::tables::{interned::Names, tags};

/// The numbers of the tags of each criterion that an event may meet.
pub(super) type Criteria = Vec<Vec<i64>>;

/// Looks up the tags of a query; [`None`] if a criterion has none, so that it cannot be found by tags. Criteria with a
/// tag that no event has are left out.
pub(super) fn criteria(connection: &Connection, names: &Names, query: &Query) -> Result<Option<Criteria>, StoreError> {
    if query.criteria().iter().any(|criterion| criterion.tags.is_empty()) {
        return Ok(None);
    }
    let mut criteria = Criteria::new();
    if names.layout == Layout::Plain {
        return Ok(Some(criteria));
    }
    for criterion in query.criteria() {
        let mut numbers = Vec::with_capacity(criterion.tags.len());
        for tag in &criterion.tags {
            numbers.extend(tags::number(connection, tag)?);
        }
        if numbers.len() == criterion.tags.len() {
            criteria.push(numbers);
        }
    }
    Ok(Some(criteria))
}

impl Scan<'_> {
    /// Finds the events of a span that may meet one of the criteria, and adds those that the filter accepts.
    ///
    /// Of each criterion the rarest tag within the span is followed. Every entry of that tag is seen, because they are
    /// numbered, and the row that it leads to says whether the event has the other tags: an entry that is lost or made up
    /// is noticed, whatever tag it is of.
    pub(super) fn by_tags(&mut self, criteria: &[Vec<i64>], span: Span) -> Result<Found, StoreError> {
        let mut found = self.begin(span);
        match self.follow(criteria, span, &mut found) {
            Err(StoreError::Corrupt { .. }) if found.rows > 0 => Ok(found),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn follow(&mut self, criteria: &[Vec<i64>], span: Span, found: &mut Found) -> Result<(), StoreError> {
        let connection = self.connection;
        let mut followed = self.rarest(criteria, span)?;
        let sql = format!("SELECT {} FROM es_event NOT INDEXED WHERE position = ?1", self.names.columns());
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        while let Some(place) = self.nearest(&mut followed)? {
            if found.rows == PAGE_SCAN as u64 {
                return Ok(());
            }
            let mut rows = statement.query([i64::try_from(place).unwrap_or(i64::MAX)]).map_err(errors::store)?;
            let row = rows.next().map_err(|error| errors::store_at(Position::new(place), error))?;
            if let Some(row) = row {
                let header = self.header(row)?;
                for postings in &mut followed {
                    if postings.pass(place) && header.event_type != REMOVED && !header.has_tag(row, postings.tag())? {
                        // If the row is damaged too, that is the better error.
                        header.verify(row, connection, self.names)?;
                        return Err(header.damaged("the index over tags has an entry for a tag that it does not have"));
                    }
                }
                if self.take(&header, row, found)? == Room::Full {
                    found.place = if self.forward { place - 1 } else { place + 1 };
                    return Ok(());
                }
            } else if self.line.gaps {
                for postings in &mut followed {
                    postings.pass(place);
                }
            } else {
                let reason = "the index over tags has an entry for it, and there is no such event";
                return Err(errors::damaged(Some(Position::new(place)), reason));
            }
            found.place = place;
            found.rows += 1;
        }
        found.place = if self.forward { span.upto } else { span.after + 1 };
        found.end = true;
        Ok(())
    }

    /// The entries of the rarest tag of each criterion.
    fn rarest(&mut self, criteria: &[Vec<i64>], Span { after, upto }: Span) -> Result<Vec<Postings>, StoreError> {
        let mut tags = Vec::with_capacity(criteria.len());
        for criterion in criteria {
            let mut rarest: Option<(u64, i64)> = None;
            for tag in criterion {
                let count =
                    if criterion.len() == 1 { 0 } else { tag_index::count(self.connection, *tag, after, upto)? };
                rarest = Some(rarest.map_or((count, *tag), |rarest| rarest.min((count, *tag))));
            }
            tags.extend(rarest.map(|(_, tag)| tag));
        }
        tags.sort_unstable();
        tags.dedup();
        let follow = if self.forward { Postings::forward } else { Postings::backward };
        tags.into_iter().map(|tag| follow(self.connection, self.names, tag, after, upto)).collect()
    }

    /// The place of the next event in the order of the read.
    fn nearest(&mut self, followed: &mut [Postings]) -> Result<Option<u64>, StoreError> {
        let mut nearest: Option<u64> = None;
        for postings in followed {
            let next = postings.next(self.connection, self.names)?;
            nearest = match (nearest, next) {
                (Some(nearest), Some(next)) => Some(if self.forward { nearest.min(next) } else { nearest.max(next) }),
                (nearest, next) => nearest.or(next),
            };
        }
        Ok(nearest)
    }
}
