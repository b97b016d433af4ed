//! Views: state folded from every event that a query finds, whatever its stream.

use std::fmt;
use std::marker::PhantomData;

use super::aggregate::State;
use super::event::Event;
use crate::log::{Criterion, InvalidName, Query, Tag};

/// State that is folded from every event that a query finds, in the order of the log; derive it with
/// [`#[derive(View)]`](derive@crate::View).
///
/// Where an aggregate is the state of one stream, a view cuts across streams: the seats that are taken in a course, the
/// courses that a student takes, the owner of a user name. A [decision](crate::Decide) that reads it is written only if
/// no other event that the query finds came in between.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a view",
    note = "put `#[derive(Debug, Default, Clone, View)]` and `#[es(event = …, tags(…))]` on the struct"
)]
pub trait View: State<Name = ViewOf<Self>> {}

/// Which view it is: the query that finds its events. Created by the function `of` that the derive generates.
///
/// ```
/// # use es_framework::*;
/// # #[derive(Event)] #[es(name = "subscribed")] struct Subscribed { #[es(tag)] course: String }
/// # #[derive(Debug, Default, Clone, View)] #[es(event = Subscribed, tags(course))] struct Seats { taken: u32 }
/// # impl Apply for Seats { fn apply(&mut self, _: &Subscribed, _: Envelope<'_>) { self.taken += 1; } }
/// let seats: ViewOf<Seats> = Seats::of("db-101");
/// assert_eq!(seats.query()?.to_string(), "subscribed with course:db-101");
/// # Ok::<(), InvalidName>(())
/// ```
pub struct ViewOf<V> {
    query: Result<Query, InvalidName>,
    of: PhantomData<fn() -> V>,
}

impl<V: State> ViewOf<V> {
    /// The view over the events that meet one of these criteria. A criterion that names no types is about all types of
    /// the view's events, old names included.
    ///
    /// `#[derive(View)]` writes this for the tags that it is given.
    pub fn new(criteria: impl IntoIterator<Item = Criterion>) -> Self {
        Self::from_criteria(criteria.into_iter().map(Ok))
    }

    /// The same for criteria with tags that may not be valid; an invalid one is reported when the view is loaded.
    #[doc(hidden)]
    pub fn from_criteria(criteria: impl IntoIterator<Item = Result<Criterion, InvalidName>>) -> Self {
        let names = V::Event::names();
        let of_events = |criterion: Criterion| {
            let all = criterion.types.is_empty();
            if all { criterion.of_types(names.iter().copied()) } else { criterion }
        };
        let query = criteria.into_iter().map(|criterion| criterion.map(of_events)).collect();
        Self { query, of: PhantomData }
    }

    /// The query that finds its events.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if a value that the view was created from is not the value of a tag: empty, too long, or with
    /// control characters.
    pub fn query(&self) -> Result<&Query, InvalidName> {
        self.query.as_ref().map_err(Clone::clone)
    }
}

/// A criterion for events with all of these tags, given as names and values; called by generated code.
///
/// # Errors
///
/// [`InvalidName`] if a value is not the value of a tag.
pub fn criterion<const N: usize>(tags: [(&str, &dyn fmt::Display); N]) -> Result<Criterion, InvalidName> {
    let mut all = Vec::with_capacity(N);
    for (name, value) in tags {
        let tag = Tag::of(name, value)?;
        if !all.contains(&tag) {
            all.push(tag);
        }
    }
    Ok(Criterion::tags(all))
}

impl<V> Clone for ViewOf<V> {
    fn clone(&self) -> Self {
        Self { query: self.query.clone(), of: PhantomData }
    }
}

impl<V> fmt::Debug for ViewOf<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.query {
            Ok(query) => write!(f, "ViewOf({query})"),
            Err(error) => write!(f, "ViewOf({error})"),
        }
    }
}
