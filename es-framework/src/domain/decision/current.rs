//! A state as a decision sees it.

use std::fmt;
use std::ops::Deref;

use super::super::aggregate::{Aggregate, State};
use super::super::cache::Base;
use crate::log::{Position, Query, StreamId, Version};

/// Where the events of a state are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    Stream(StreamId),
    Query(Query),
}

/// The current state of an aggregate or a view, as of one position of the log; dereferences to the state.
pub struct Current<S: State> {
    pub(super) name: S::Name,
    pub(super) source: Source,
    pub(super) base: Base<S>,
}

impl<S: State> Current<S> {
    /// The position of the log as of which the state is known to be current.
    pub fn as_of(&self) -> Position {
        self.base.current_at
    }
}

impl<A> Current<A>
where
    A: Aggregate + State<Name = <A as Aggregate>::Id>,
{
    /// The id of the aggregate.
    pub fn id(&self) -> &A::Id {
        &self.name
    }

    /// The version of the aggregate; [`Version::ZERO`] if it has no events.
    pub fn version(&self) -> Version {
        self.base.version
    }

    /// Whether the aggregate has any events.
    pub fn exists(&self) -> bool {
        self.version() > Version::ZERO
    }
}

impl<S: State> Deref for Current<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.base.state
    }
}

impl<S: State> Clone for Current<S> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), source: self.source.clone(), base: self.base.clone() }
    }
}

impl<S: State + fmt::Debug> fmt::Debug for Current<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("source", &self.source)
            .field("state", &self.base.state)
            .field("position", &self.base.current_at)
            .finish_non_exhaustive()
    }
}
