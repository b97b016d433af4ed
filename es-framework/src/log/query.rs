//! Queries: which events a decision depends on, by their types and tags.

use std::fmt;
use std::sync::Arc;

use super::event::CandidateEvent;
use super::filter::EventHeader;
use super::name::{InvalidName, check_name};
use super::position::Position;
use super::tag::{MAX_TAGS, Tag};

/// The maximum number of criteria of one query.
pub const MAX_CRITERIA: usize = 128;
/// The maximum number of types that one criterion names.
pub const MAX_CRITERION_TYPES: usize = 128;

/// Which events a decision depends on: those that meet at least one of its criteria.
///
/// A query without criteria matches no event; [`Query::all`] matches every event. Engines answer queries from an index
/// over tags and types: a criterion costs what the events with its rarest tag cost, or those of its types if they are
/// fewer, however long the log is.
///
/// ```
/// use es_framework::{Criterion, Query, Tag};
///
/// let course = Tag::new("course:db-101")?;
/// let student = Tag::new("student:ann")?;
/// let query = Query::new()
///     .or(Criterion::types(["course.defined", "course.closed"]).tag(&course))
///     .or(Criterion::tags([&course, &student]));
/// assert_eq!(query.criteria().len(), 2);
/// # Ok::<(), es_framework::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Query {
    criteria: Vec<Criterion>,
}

/// One criterion of a [`Query`]: the types an event may be of, and the tags it must have.
///
/// A criterion without types and tags is met by every event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
#[non_exhaustive]
pub struct Criterion {
    /// The event's type has one of these names, whatever its schema version; if there are none, it may be of any type.
    pub types: Vec<Arc<str>>,
    /// The event has all of these tags, and may have others.
    pub tags: Vec<Tag>,
}

impl Query {
    /// Creates a query that matches no event.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a query that matches every event.
    pub fn all() -> Self {
        Criterion::any().into()
    }

    /// Also matches events that meet this criterion.
    pub fn or(mut self, criterion: Criterion) -> Self {
        self.criteria.push(criterion);
        self
    }

    /// Also matches events that another query matches.
    pub fn or_all(mut self, other: Self) -> Self {
        self.criteria.extend(other.criteria);
        self
    }

    /// The criteria.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// Whether an event matches; every engine must find exactly the events that do.
    pub fn matches(&self, event: &EventHeader<'_>) -> bool {
        self.selects(event.event_type, event.tags)
    }

    /// Whether an event with this type and these tags matches.
    pub fn selects(&self, event_type: &str, tags: &[Tag]) -> bool {
        self.criteria.iter().any(|criterion| criterion.selects(event_type, tags))
    }

    /// The memory that the query takes, roughly, for queues that are bounded in bytes.
    pub(super) fn cost(&self) -> usize {
        let names = |criterion: &Criterion| {
            let types: usize = criterion.types.iter().map(|name| 16 + name.len()).sum();
            types + criterion.tags.iter().map(|tag| 16 + tag.as_str().len()).sum::<usize>()
        };
        self.criteria.iter().map(|criterion| 64 + names(criterion)).sum()
    }

    /// Checks the bounds of the query. Reads, watches and appends do this before they begin.
    ///
    /// # Errors
    ///
    /// [`InvalidQuery`] if it has more than [`MAX_CRITERIA`] criteria, or one of them more than [`MAX_CRITERION_TYPES`]
    /// types or [`MAX_TAGS`] tags, or a name that no event type can have.
    pub fn validate(&self) -> Result<(), InvalidQuery> {
        let criteria = self.criteria.len();
        if criteria > MAX_CRITERIA {
            return Err(InvalidQuery::TooManyCriteria { criteria, limit: MAX_CRITERIA });
        }
        for Criterion { types, tags } in &self.criteria {
            if types.len() > MAX_CRITERION_TYPES {
                return Err(InvalidQuery::TooManyTypes { types: types.len(), limit: MAX_CRITERION_TYPES });
            }
            if tags.len() > MAX_TAGS {
                return Err(InvalidQuery::TooManyTags { tags: tags.len(), limit: MAX_TAGS });
            }
            for name in types {
                check_name("event type", name)?;
            }
        }
        Ok(())
    }
}

impl Criterion {
    /// Creates a criterion that every event meets.
    pub fn any() -> Self {
        Self::default()
    }

    /// Creates a criterion that events of these types meet, whatever their tags.
    pub fn types(names: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        Self::any().of_types(names)
    }

    /// Creates a criterion that events with all of these tags meet, whatever their types.
    pub fn tags(tags: impl IntoIterator<Item = impl Into<Tag>>) -> Self {
        Self::any().all_of(tags)
    }

    /// Also requires this tag.
    pub fn tag(mut self, tag: impl Into<Tag>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Also requires all of these tags.
    pub fn all_of(mut self, tags: impl IntoIterator<Item = impl Into<Tag>>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Adds types that the event may be of.
    pub fn of_types(mut self, names: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        self.types.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether an event with this type and these tags meets the criterion.
    pub fn selects(&self, event_type: &str, tags: &[Tag]) -> bool {
        (self.types.is_empty() || self.types.iter().any(|name| **name == *event_type))
            && self.tags.iter().all(|tag| tags.contains(tag))
    }
}

impl From<Criterion> for Query {
    fn from(criterion: Criterion) -> Self {
        Self { criteria: vec![criterion] }
    }
}

impl From<&Self> for Query {
    fn from(query: &Self) -> Self {
        query.clone()
    }
}

impl FromIterator<Criterion> for Query {
    fn from_iter<I: IntoIterator<Item = Criterion>>(criteria: I) -> Self {
        Self { criteria: criteria.into_iter().collect() }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.criteria.is_empty() {
            return f.write_str("no event");
        }
        for (n, criterion) in self.criteria.iter().enumerate() {
            write!(f, "{}{criterion}", if n == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.types.as_slice() {
            [] => f.write_str("any event")?,
            [first, others @ ..] => {
                f.write_str(first)?;
                others.iter().try_for_each(|name| write!(f, "|{name}"))?;
            }
        }
        for (n, tag) in self.tags.iter().enumerate() {
            write!(f, "{}{tag}", if n == 0 { " with " } else { " and " })?;
        }
        Ok(())
    }
}

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuery {
    /// The query has too many criteria; split it.
    #[error("the query has {criteria} criteria, the limit is {limit}; split it")]
    TooManyCriteria {
        /// The number of criteria.
        criteria: usize,
        /// The maximum number of criteria.
        limit: usize,
    },
    /// A criterion names too many types; spread them over several criteria.
    #[error("a criterion of the query names {types} types, the limit is {limit}; spread them over several criteria")]
    TooManyTypes {
        /// The number of types.
        types: usize,
        /// The maximum number of types.
        limit: usize,
    },
    /// A criterion requires more tags than an event can have.
    #[error("a criterion of the query requires {tags} tags, but an event has at most {limit}")]
    TooManyTags {
        /// The number of tags.
        tags: usize,
        /// The maximum number of tags.
        limit: usize,
    },
    /// No event type can have this name.
    #[error(transparent)]
    Type(#[from] InvalidName),
}

/// A condition of an [`Append`](super::Append): no event that matches the query was written after the position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendCondition {
    /// The events that the caller depends on.
    pub query: Query,
    /// The position up to which the caller has seen them. Beyond the log's head, the condition holds.
    pub after: Position,
}

impl AppendCondition {
    /// Creates a condition.
    pub fn new(query: impl Into<Query>, after: Position) -> Self {
        Self { query: query.into(), after }
    }

    /// The position of the first of these events that makes the condition fail; they are in ascending order.
    pub fn first_match<'e>(
        &self,
        written: impl IntoIterator<Item = (Position, &'e CandidateEvent)>,
    ) -> Option<Position> {
        let fails = |position: Position, event: &CandidateEvent| {
            position > self.after && self.query.selects(event.event_type().name(), event.tags())
        };
        written.into_iter().find_map(|(position, event)| fails(position, event).then_some(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::new(text).unwrap()
    }

    #[test]
    fn criteria_are_joined_by_or_types_by_or_and_tags_by_and() {
        let (a, b) = (tag("a:1"), tag("b:1"));
        let both = [a.clone(), b.clone(), tag("c:1")];
        assert!(!Query::new().selects("t", &both));
        assert!(Query::all().selects("t", &[]));
        let (only_a, only_b) = ([a.clone()], [b.clone()]);
        let types = Query::from(Criterion::types(["t", "u"]));
        assert!(types.selects("t", &[]) && types.selects("u", &both) && !types.selects("v", &both));
        let tags = Query::from(Criterion::tags([&a, &b]));
        assert!(tags.selects("t", &both) && !tags.selects("t", &only_a) && !tags.selects("t", &[]));
        let narrow = Query::from(Criterion::types(["t"]).tag(&a));
        assert!(narrow.selects("t", &both) && !narrow.selects("u", &both) && !narrow.selects("t", &only_b));
        let either = narrow.clone().or(Criterion::tags([&b]));
        assert!(either.selects("u", &both) && either.selects("t", &only_a) && !either.selects("u", &only_a));
        assert_eq!(either.to_string(), "t with a:1 or any event with b:1");
    }

    #[test]
    fn a_query_is_bounded() {
        let criteria = |n| std::iter::repeat_n(Criterion::any(), n).collect::<Query>();
        assert_eq!(criteria(128).validate(), Ok(()));
        assert!(matches!(criteria(129).validate(), Err(InvalidQuery::TooManyCriteria { criteria: 129, limit: 128 })));
        let types = |n: usize| Query::from(Criterion::types((0..n).map(|n| n.to_string())));
        assert_eq!(types(128).validate(), Ok(()));
        assert!(matches!(types(129).validate(), Err(InvalidQuery::TooManyTypes { types: 129, limit: 128 })));
        let tags = |n: usize| Query::from(Criterion::tags((0..n).map(|n| Tag::of("n", n).unwrap())));
        assert_eq!(tags(32).validate(), Ok(()));
        assert!(matches!(tags(33).validate(), Err(InvalidQuery::TooManyTags { tags: 33, limit: 32 })));
        assert!(matches!(Query::from(Criterion::types([""])).validate(), Err(InvalidQuery::Type(_))));
    }
}
