//! Which events a reader wants, and the one evaluator that all engines use.

use super::like::like;
use super::name::{StreamId, category_of};
use super::position::{Position, Version};
use super::query::{InvalidQuery, Query};
use super::scalar::{Path, Scalar, scalar_at};
use super::tag::Tag;
use super::time::Timestamp;

/// Which events a reader wants. Clauses are joined by *and*, the values within a clause by *or*.
///
/// ```
/// use es_framework::{Filter, Position};
///
/// let filter = Filter::new()
///     .category("account")
///     .types(["account.deposited", "account.withdrawn"])
///     .metadata_equals("tenant", "acme")
///     .after(Position::new(100));
/// assert_eq!(filter.clauses().len(), 4);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Filter {
    clauses: Vec<Clause>,
}

/// One condition of a [`Filter`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Clause {
    /// The event is of one of these streams.
    Streams(Vec<StreamId>),
    /// The event's stream is of one of these categories.
    Categories(Vec<String>),
    /// The id of the event's stream begins with this text.
    StreamPrefix(String),
    /// The event's type has one of these names, whatever its schema version.
    Types(Vec<String>),
    /// The event's version is one of these.
    Versions(Vec<Version>),
    /// The event's position is above this one.
    After(Position),
    /// The event's position is below this one.
    Before(Position),
    /// The event's time is this one or later.
    Since(Timestamp),
    /// The event's time is this one or earlier.
    Until(Timestamp),
    /// A text matches a pattern; see [`Filter::stream_like`].
    Like(Field, String),
    /// The value at a path of the metadata is one of these.
    Metadata(Path, Vec<Scalar>),
    /// The event matches the query.
    Query(Query),
}

/// A text that [`Clause::Like`] is matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The id of the event's stream.
    Stream,
    /// The name of the event's type.
    Type,
    /// The string at a path of the metadata; a value that is not a string never matches.
    Metadata(Path),
}

/// The parts of an event that a filter can see before the payload is read.
#[derive(Debug, Clone, Copy)]
pub struct EventHeader<'a> {
    /// The id of the event's stream.
    pub stream: &'a str,
    /// Its place in its stream.
    pub version: Version,
    /// Its place in `@all`.
    pub position: Position,
    /// When it was written.
    pub time: Timestamp,
    /// The name of its type.
    pub event_type: &'a str,
    /// Its metadata, as text.
    pub metadata: Option<&'a str>,
    /// Its tags.
    pub tags: &'a [Tag],
}

impl super::StoredEvent {
    /// The parts that a filter can see.
    pub fn header(&self) -> EventHeader<'_> {
        EventHeader {
            stream: self.stream.as_str(),
            version: self.version,
            position: self.position,
            time: self.time,
            event_type: self.event_type.name(),
            metadata: self.metadata.as_ref().map(super::Metadata::as_str),
            tags: &self.tags,
        }
    }
}

impl Filter {
    /// Creates a filter that every event passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn and(mut self, clause: Clause) -> Self {
        self.clauses.push(clause);
        self
    }

    /// Adds the conditions of another filter.
    pub fn and_all(mut self, other: Self) -> Self {
        self.clauses.extend(other.clauses);
        self
    }

    /// Selects events of this stream.
    pub fn stream(self, stream: impl Into<StreamId>) -> Self {
        self.streams([stream])
    }

    /// Selects events of these streams.
    pub fn streams(self, streams: impl IntoIterator<Item = impl Into<StreamId>>) -> Self {
        self.and(Clause::Streams(streams.into_iter().map(Into::into).collect()))
    }

    /// Selects events of streams in this category.
    pub fn category(self, category: impl Into<String>) -> Self {
        self.categories([category])
    }

    /// Selects events of streams in these categories.
    pub fn categories(self, categories: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.and(Clause::Categories(categories.into_iter().map(Into::into).collect()))
    }

    /// Selects events of streams with an id that begins with `prefix`.
    pub fn stream_prefix(self, prefix: impl Into<String>) -> Self {
        self.and(Clause::StreamPrefix(prefix.into()))
    }

    /// Selects events of types with these names, whatever their schema version.
    pub fn types(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.and(Clause::Types(names.into_iter().map(Into::into).collect()))
    }

    /// Selects events with these versions.
    pub fn versions(self, versions: impl IntoIterator<Item = Version>) -> Self {
        self.and(Clause::Versions(versions.into_iter().collect()))
    }

    /// Selects events above this position.
    pub fn after(self, position: Position) -> Self {
        self.and(Clause::After(position))
    }

    /// Selects events below this position.
    pub fn before(self, position: Position) -> Self {
        self.and(Clause::Before(position))
    }

    /// Selects events written at this time or later.
    pub fn since(self, time: Timestamp) -> Self {
        self.and(Clause::Since(time))
    }

    /// Selects events written at this time or earlier.
    pub fn until(self, time: Timestamp) -> Self {
        self.and(Clause::Until(time))
    }

    /// Selects events of streams with an id that matches a pattern.
    ///
    /// `%` matches any run of characters, `_` exactly one, and `\` escapes the next one. Matching is case-sensitive.
    pub fn stream_like(self, pattern: impl Into<String>) -> Self {
        self.and(Clause::Like(Field::Stream, pattern.into()))
    }

    /// Selects events of types with a name that matches a pattern; see [`Self::stream_like`].
    pub fn type_like(self, pattern: impl Into<String>) -> Self {
        self.and(Clause::Like(Field::Type, pattern.into()))
    }

    /// Selects events with a string at `path` of the metadata that matches a pattern; see [`Self::stream_like`].
    pub fn metadata_like(self, path: impl Into<Path>, pattern: impl Into<String>) -> Self {
        self.and(Clause::Like(Field::Metadata(path.into()), pattern.into()))
    }

    /// Selects events with this value at `path` of the metadata.
    pub fn metadata_equals(self, path: impl Into<Path>, value: impl Into<Scalar>) -> Self {
        self.metadata_in(path, [value])
    }

    /// Selects events with one of these values at `path` of the metadata.
    pub fn metadata_in(self, path: impl Into<Path>, values: impl IntoIterator<Item = impl Into<Scalar>>) -> Self {
        self.and(Clause::Metadata(path.into(), values.into_iter().map(Into::into).collect()))
    }

    /// Selects events that match a query.
    ///
    /// Reading `@all` by a query costs what the matching events cost, not what the log does; further clauses narrow it.
    pub fn query(self, query: impl Into<Query>) -> Self {
        self.and(Clause::Query(query.into()))
    }

    /// Checks the bounds of its queries. Reads and watches do this before they begin.
    ///
    /// # Errors
    ///
    /// [`InvalidQuery`] if one of them is over its bounds.
    pub fn validate(&self) -> Result<(), InvalidQuery> {
        self.clauses.iter().try_for_each(|clause| match clause {
            Clause::Query(query) => query.validate(),
            _ => Ok(()),
        })
    }

    /// The conditions.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    /// Whether every event passes.
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// The same filter without the clauses that an engine has already evaluated in another way.
    pub fn without(&self, judged: impl Fn(&Clause) -> bool) -> Self {
        Self { clauses: self.clauses.iter().filter(|clause| !judged(clause)).cloned().collect() }
    }

    /// Whether an event passes; every engine must return exactly the events that do.
    pub fn matches(&self, event: &EventHeader<'_>) -> bool {
        self.clauses.iter().all(|clause| clause.matches(event))
    }
}

impl Clause {
    fn matches(&self, event: &EventHeader<'_>) -> bool {
        match self {
            Self::Streams(streams) => streams.iter().any(|stream| stream.as_str() == event.stream),
            Self::Categories(categories) => {
                let category = category_of(event.stream);
                categories.iter().any(|wanted| wanted == category)
            }
            Self::StreamPrefix(prefix) => event.stream.starts_with(prefix.as_str()),
            Self::Types(names) => names.iter().any(|name| name == event.event_type),
            Self::Versions(versions) => versions.contains(&event.version),
            Self::After(position) => event.position > *position,
            Self::Before(position) => event.position < *position,
            Self::Since(time) => event.time >= *time,
            Self::Until(time) => event.time <= *time,
            Self::Like(Field::Stream, pattern) => like(pattern, event.stream),
            Self::Like(Field::Type, pattern) => like(pattern, event.event_type),
            Self::Like(Field::Metadata(path), pattern) => {
                matches!(value_at(event.metadata, path), Some(Scalar::Text(text)) if like(pattern, &text))
            }
            Self::Metadata(path, values) => value_at(event.metadata, path).is_some_and(|value| values.contains(&value)),
            Self::Query(query) => query.matches(event),
        }
    }
}

fn value_at(metadata: Option<&str>, path: &Path) -> Option<Scalar> {
    scalar_at(metadata?, path.keys())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_metadata(metadata: &str) -> EventHeader<'_> {
        EventHeader {
            stream: "account-alice",
            version: Version::new(3),
            position: Position::new(9),
            time: Timestamp::from_micros(50),
            event_type: "account.opened",
            metadata: Some(metadata),
            tags: &[],
        }
    }

    #[test]
    fn scalars_are_equal_only_within_their_type() {
        let event = with_metadata(r#"{"n": 1, "t": "1", "b": true, "z": null, "f": 1.0, "big": 18446744073709551615}"#);
        for (path, value, expected) in [
            ("n", Scalar::from(1), true),
            ("n", Scalar::from(1.0), true),
            ("f", Scalar::from(1), true),
            ("n", Scalar::from("1"), false),
            ("n", Scalar::from(true), false),
            ("t", Scalar::from(1), false),
            ("t", Scalar::from("1"), true),
            ("b", Scalar::from(true), true),
            ("b", Scalar::from(1), false),
            ("z", Scalar::from(()), true),
            ("missing", Scalar::from(()), false),
            ("big", Scalar::from(u64::MAX), true),
            ("big", Scalar::from(18_446_744_073_709_551_615.0), false),
        ] {
            assert_eq!(
                Filter::new().metadata_equals(path, value.clone()).matches(&event),
                expected,
                "{path} = {value:?}"
            );
        }
    }

    #[test]
    fn a_path_leads_through_objects_only() {
        let event = with_metadata(r#"{"a": {"b": {"c": 7}}, "a.b": 8, "list": [{"c": 1}], "twice": 1, "twice": 2}"#);
        assert!(Filter::new().metadata_equals("a.b.c", 7).matches(&event));
        assert!(Filter::new().metadata_equals(Path::of_keys(["a.b"]), 8).matches(&event));
        assert!(!Filter::new().metadata_equals("a.b", 7).matches(&event));
        assert!(!Filter::new().metadata_equals("list.c", 1).matches(&event));
        assert!(Filter::new().metadata_equals("twice", 2).matches(&event));
    }

    #[test]
    fn clauses_are_joined_by_and() {
        let event = with_metadata("{}");
        let yes = Filter::new().category("account").types(["account.opened"]).stream_prefix("account-al");
        assert!(yes.matches(&event));
        assert!(!yes.clone().types(["account.closed"]).matches(&event));
        assert!(!yes.clone().after(Position::new(9)).matches(&event));
        assert!(yes.clone().since(Timestamp::from_micros(50)).until(Timestamp::from_micros(50)).matches(&event));
        assert!(!yes.versions([Version::new(2)]).matches(&event));
        assert!(!Filter::new().category("acc").matches(&event));
    }
}
