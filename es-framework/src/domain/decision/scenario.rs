//! Testing decisions without a store.

use std::collections::HashMap;
use std::fmt;

use super::super::aggregate::{Aggregate, Apply, State};
use super::events::Events;
use super::over::Over;
use super::part::AnyPart;
use super::{Decide, DecideContext};
use crate::log::{Position, StoreId, StoredEvent, StreamId, Timestamp, Version};

/// A log with a history, for testing [decisions](Decide): given these events, when this decision is made, then …
///
/// Events pass through their codec, as they do in a store. They are written at time zero, unless [`Self::at`] sets
/// another time.
///
/// ```
/// # use es_framework::*;
/// # #[derive(Event)] #[es(stream = "course-{course}")] enum CourseEvent {
/// #     #[es(name = "opened")] Opened { #[es(tag)] course: String, seats: u32 },
/// #     #[es(name = "subscribed")] Subscribed { #[es(tag)] course: String, student: String } }
/// # #[derive(Debug, Default, Clone, View)] #[es(event = CourseEvent, tags(course))] struct Free { seats: u32 }
/// # impl Apply for Free { fn apply(&mut self, event: &CourseEvent, _: Envelope<'_>) { match event {
/// #     CourseEvent::Opened { seats, .. } => self.seats = *seats, CourseEvent::Subscribed { .. } => self.seats -= 1 } } }
/// # #[derive(Debug, PartialEq, thiserror::Error)] #[error("the course is full")] struct Full;
/// # struct Subscribe { course: &'static str, student: &'static str }
/// # impl Decide for Subscribe { type Over = Free; type Error = Full;
/// #     fn over(&self) -> Boundary<Self> { Free::of(self.course) }
/// #     fn decide(&self, free: States<'_, Self>, _: &DecideContext) -> Result<Events, Full> {
/// #         if free.seats == 0 { return Err(Full) }
/// #         Ok(CourseEvent::Subscribed { course: self.course.into(), student: self.student.into() }.into()) } }
/// let opened = CourseEvent::Opened { course: "db".into(), seats: 1 };
/// let ann = || CourseEvent::Subscribed { course: "db".into(), student: "ann".into() };
///
/// let open = DecisionScenario::new().given(opened);
/// assert_eq!(open.when(&Subscribe { course: "db", student: "ann" }), Ok(ann().into()));
/// let full = open.given(ann());
/// assert_eq!(full.when(&Subscribe { course: "db", student: "bob" }), Err(Full));
/// ```
#[must_use]
pub struct DecisionScenario {
    log: Vec<StoredEvent>,
    versions: HashMap<StreamId, Version>,
    now: Timestamp,
}

impl Default for DecisionScenario {
    fn default() -> Self {
        Self::new()
    }
}

impl DecisionScenario {
    /// An empty log.
    pub fn new() -> Self {
        Self { log: Vec::new(), versions: HashMap::new(), now: Timestamp::default() }
    }

    /// Sets the time from here on.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Adds events that have happened, after those given before: one that names its stream, an array or a vector of
    /// them, or [`Events`].
    ///
    /// # Panics
    ///
    /// If an event cannot be encoded, or names no valid stream.
    pub fn given(mut self, events: impl Into<Events>) -> Self {
        let Events { entries, error } = events.into();
        if let Some(error) = error {
            panic!("the events of a scenario can be written: {error}");
        }
        for entry in entries {
            let version = self.versions.entry(entry.stream.clone()).or_default();
            *version = version.next();
            let position = Position::new(self.log.len() as u64 + 1);
            let store = StoreId::from_bytes([0; 16]);
            self.log.push(StoredEvent::new(store, entry.stream, *version, position, self.now, &entry.candidate));
        }
        self
    }

    /// Adds events of an aggregate that have happened, after those given before.
    ///
    /// # Panics
    ///
    /// If the id makes no valid stream id, or an event cannot be encoded.
    pub fn given_of<A: Aggregate>(
        self,
        id: impl Into<A::Id>,
        events: impl IntoIterator<Item = <A as State>::Event>,
    ) -> Self {
        let stream = A::stream_id(&id.into()).expect("the id of a scenario makes a valid stream id");
        self.given(events.into_iter().fold(Events::new(), |events, event| events.to_stream(&stream, event)))
    }

    /// Returns what is decided; the events are not applied.
    ///
    /// # Errors
    ///
    /// The rejection.
    ///
    /// # Panics
    ///
    /// If the decision names something that has no valid stream or tag, an event cannot be decoded or applied, or an
    /// event of the decision could not be written.
    pub fn when<D: Decide>(&self, decision: &D) -> Result<Events, D::Error> {
        let mut parts = D::Over::parts(decision.over(), None).expect("what a scenario's decision names is valid");
        let head = Position::new(self.log.len() as u64);
        let mut all: Vec<&mut dyn AnyPart> = Vec::new();
        D::Over::each(&mut parts, &mut all);
        for part in all {
            if let Err(error) = part.fold(&self.log, head) {
                panic!("the events of a scenario can be folded: {error}");
            }
        }
        let events = decision.decide(D::Over::states(&parts), &DecideContext::new(self.now, head))?;
        if let Some(error) = &events.error {
            panic!("the events of a decision can be written: {error}");
        }
        Ok(events)
    }

    /// The state of a view, or of an aggregate, after the events that were given.
    ///
    /// # Panics
    ///
    /// If the name is not valid, or an event cannot be decoded or applied.
    pub fn state<O>(&self, name: O::Names) -> O
    where
        O: State + Apply + for<'a> Over<States<'a> = &'a super::Current<O>>,
    {
        let mut parts = O::parts(name, None).expect("the name in a scenario is valid");
        let mut all: Vec<&mut dyn AnyPart> = Vec::new();
        O::each(&mut parts, &mut all);
        for part in all {
            if let Err(error) = part.fold(&self.log, Position::new(self.log.len() as u64)) {
                panic!("the events of a scenario can be folded: {error}");
            }
        }
        O::clone(O::states(&parts))
    }
}

impl fmt::Debug for DecisionScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionScenario").field("log", &self.log).field("now", &self.now).finish_non_exhaustive()
    }
}
