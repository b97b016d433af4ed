//! Decisions over several aggregates and views, in one append.

mod builder;
mod current;
mod events;
mod lanes;
mod memory;
mod over;
mod part;
mod run;
mod scenario;

pub use builder::{Decided, Decision, DecisionError};
pub use current::Current;
pub use events::{Events, EventsError};
pub use over::Over;
pub use scenario::DecisionScenario;

pub(super) use memory::remember_repository;

use crate::log::{Position, Timestamp};

/// A decision over what it names, whether aggregates or views; made with [`Store::decide`](crate::Store::decide).
///
/// An aggregate is the boundary of a decision as long as its own events suffice to decide. If they do not (the money of
/// two accounts, the seats of a course, a user name that must be free), a decision names everything that it depends on,
/// and is written only if nothing of it has changed meanwhile:
///
/// * a stream that it writes and has read as an aggregate is at exactly the version it has read,
/// * an aggregate that it has only read is still at that version,
/// * no event that the query of a view finds was written since the view was read.
///
/// All of them are read as of one position of the log. If another writer was faster, only the new events are read, and
/// it decides again.
///
/// ```
/// use es_framework::{
///     Apply, Boundary, Decide, DecideContext, Envelope, Event, Events, MemoryStore, States, View,
/// };
///
/// #[derive(Debug, Event)]
/// #[es(stream = "course-{course}")]
/// enum CourseEvent {
///     #[es(name = "course.opened")]
///     Opened { #[es(tag)] course: String, seats: u32 },
///     #[es(name = "course.subscribed")]
///     Subscribed { #[es(tag)] course: String, #[es(tag)] student: String },
/// }
///
/// /// What is free in a course, whoever wrote about it.
/// #[derive(Debug, Default, Clone, View)]
/// #[es(event = CourseEvent, tags(course))]
/// struct Free {
///     seats: u32,
/// }
///
/// impl Apply for Free {
///     fn apply(&mut self, event: &CourseEvent, _: Envelope<'_>) {
///         match event {
///             CourseEvent::Opened { seats, .. } => self.seats = *seats,
///             CourseEvent::Subscribed { .. } => self.seats -= 1,
///         }
///     }
/// }
///
/// struct Subscribe {
///     course: String,
///     student: String,
/// }
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// #[error("the course is full")]
/// struct Full;
///
/// impl Decide for Subscribe {
///     type Over = Free;
///     type Error = Full;
///
///     fn over(&self) -> Boundary<Self> {
///         Free::of(&self.course)
///     }
///
///     fn decide(&self, free: States<'_, Self>, _: &DecideContext) -> Result<Events, Full> {
///         if free.seats == 0 {
///             return Err(Full);
///         }
///         Ok(CourseEvent::Subscribed { course: self.course.clone(), student: self.student.clone() }.into())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// # store.open_stream("course-db")?.write_events(&[CourseEvent::Opened { course: "db".into(), seats: 1 }], es_framework::ExpectedVersion::Any).await?;
/// let decided = store.decide(Subscribe { course: "db".into(), student: "ann".into() }).await?;
/// assert_eq!(decided.events, 1);
/// let full = store.decide(Subscribe { course: "db".into(), student: "bob".into() }).await.unwrap_err();
/// assert_eq!(full.rejection(), Some(&Full));
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a decision",
    note = "write `impl Decide for {Self}`: what it reads (`Over`, `over`) and what follows from it (`decide`)",
    note = "a command on one aggregate is executed by a `Repository`"
)]
pub trait Decide: Sized + Send + Sync {
    /// What it reads: an aggregate, a view, a [`Vec`] of one kind, or a tuple of up to eight of these.
    type Over: Over;

    /// Why it is rejected: the domain's own error, as opposed to conflicts and failures of the store.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Names what it reads: the id of each aggregate, and for each view what its function `of` returns.
    fn over(&self) -> Boundary<Self>;

    /// Returns the events that follow, none if there is nothing to do, or a rejection.
    ///
    /// May be called again if another writer was faster, so it must not have side effects.
    ///
    /// # Errors
    ///
    /// The domain's rejection.
    fn decide(&self, state: States<'_, Self>, context: &DecideContext) -> Result<Events, Self::Error>;
}

/// What [`Decide::over`] returns: the names of what a decision reads, in the shape of its [`Over`](Decide::Over).
pub type Boundary<D> = <<D as Decide>::Over as Over>::Names;

/// What [`Decide::decide`] is given: a reference to the [current state](Current) of each, in the shape of its
/// [`Over`](Decide::Over).
pub type States<'a, D> = <<D as Decide>::Over as Over>::States<'a>;

/// What a decision can see besides itself and the states.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DecideContext {
    now: Timestamp,
    position: Position,
}

impl DecideContext {
    /// Creates a context, for testing a decision by hand.
    pub fn new(now: Timestamp, position: Position) -> Self {
        Self { now, position }
    }

    /// The time of the decision, according to the store's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The position of the log as of which all states are.
    pub fn position(&self) -> Position {
        self.position
    }
}
