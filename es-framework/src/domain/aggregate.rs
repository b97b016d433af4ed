//! States, and aggregates among them: state folded from a stream of events, and the decisions made from it.

use std::fmt;

use super::event::{Envelope, Event};
use super::state::Snapshots;
use crate::log::{InvalidName, StreamId, Timestamp, Version};

/// State that is folded from events: an [aggregate](trait@Aggregate) or a [view](trait@crate::View). Their derives
/// implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an aggregate nor a view",
    note = "for the state of one stream, put `#[derive(Debug, Default, Clone, Aggregate)]` and `#[es(category = \"…\", event = …)]` on the struct",
    note = "for the state of every event with certain tags, put `#[derive(Debug, Default, Clone, View)]` and `#[es(event = …, tags(…))]` on it"
)]
pub trait State: Default + Clone + Send + Sync + 'static {
    /// The events it is folded from.
    type Event: Event;

    /// What names one of them in a [decision](crate::Decide): the id of an aggregate, the [query](crate::ViewOf) of a
    /// view.
    type Name: Clone + Send + Sync + 'static;

    /// Where its events are.
    #[doc(hidden)]
    type Kind: 'static;
}

/// State that is folded from one stream; derive it with [`#[derive(Aggregate)]`](derive@crate::Aggregate).
///
/// The aggregate with id `alice` of category `account` lives in the stream `account-alice`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    note = "put `#[derive(Debug, Default, Clone, Aggregate)]` and `#[es(category = \"…\", event = …)]` on the struct"
)]
pub trait Aggregate: State {
    /// Identifies an aggregate within its category; [`String`] unless the derive names another type.
    type Id: fmt::Display + Clone + Send + Sync + 'static;

    /// The category of its streams; contains no `-`.
    const CATEGORY: &'static str;

    /// Whether and when its state is saved, so that loading does not have to replay the whole stream.
    const SNAPSHOTS: Option<Snapshots<Self>>;

    /// The stream of the aggregate with this id.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the id is empty, or category and id together are not a valid stream id.
    fn stream_id(id: &Self::Id) -> Result<StreamId, InvalidName> {
        let stream = format!("{}-{id}", Self::CATEGORY);
        if stream.len() == Self::CATEGORY.len() + 1 {
            return Err(InvalidName::Empty { what: "aggregate id" });
        }
        StreamId::new(stream)
    }
}

/// How the state of an aggregate or a view follows from its events.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how events change it",
    note = "write `impl Apply for {Self}` with `fn apply(&mut self, event: &Self::Event, at: Envelope<'_>)`"
)]
pub trait Apply: State {
    /// Applies an event that has happened to the state. It cannot fail, and must lead to the same state every time.
    ///
    /// If you change this function so that old events lead to another state, raise the `version` in
    /// `#[es(snapshot(…))]`, so that snapshots of the old state are ignored.
    fn apply(&mut self, event: &Self::Event, at: Envelope<'_>);
}

/// The [kind](State::Kind) of aggregates.
#[derive(Debug)]
pub struct OfStream;

/// The [kind](State::Kind) of views.
#[derive(Debug)]
pub struct OfQuery;

/// How an aggregate decides on a command. [`#[commands]`](crate::commands) on an `impl` block generates these
/// implementations from its methods.
///
/// A handler that needs more than state and command to decide, such as prices or exchange rates, names the type of
/// these services as `S` and reads them with [`Context::services`]; the caller lends them when executing the command,
/// with [`execute_with`](crate::Repository::execute_with).
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle the command `{C}`",
    label = "no handler for `{C}`",
    note = "write a method `fn name(&self, command: &{C}) -> …` in an `impl {Self}` block with `#[es_framework::commands(…)]`, or `impl Handle<{C}> for {Self}`"
)]
pub trait Handle<C, S: ?Sized = ()>: Aggregate + Apply {
    /// Why a command is rejected: the domain's own error, as opposed to conflicts and failures of the store.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Returns the events that follow from the command, none if there is nothing to do, or a rejection.
    ///
    /// May be called again for the same command if another writer was faster, so it must not have side effects.
    ///
    /// # Errors
    ///
    /// The domain's rejection.
    fn handle(&self, command: &C, context: &Context<'_, Self, S>) -> Result<Vec<Self::Event>, Self::Error>;
}

/// [`Handle`] from the command's side: implemented for every command that the aggregate `A` handles.
///
/// With the bound on the command, the compiler takes the given command's type and reports that it has no handler. With
/// the bound on the aggregate, it would infer the type from the aggregate's only handler.
#[diagnostic::on_unimplemented(
    message = "`{A}` does not handle the command `{Self}`",
    label = "no handler for this command",
    note = "write a method `fn name(&self, command: &{Self}) -> …` in an `impl {A}` block with `#[es_framework::commands(…)]`, or `impl Handle<{Self}> for {A}`",
    note = "a handler that asks for services is executed with `execute_with`"
)]
pub trait HandledBy<A: Aggregate, S: ?Sized = ()> {
    /// Why the aggregate rejects it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What [`Handle::handle`] returns.
    ///
    /// # Errors
    ///
    /// The aggregate's rejection.
    fn decided_by(&self, state: &A, context: &Context<'_, A, S>) -> Result<Vec<A::Event>, Self::Error>;
}

#[diagnostic::do_not_recommend]
impl<A: Handle<C, S>, C, S: ?Sized> HandledBy<A, S> for C {
    type Error = A::Error;

    fn decided_by(&self, state: &A, context: &Context<'_, A, S>) -> Result<Vec<A::Event>, A::Error> {
        state.handle(self, context)
    }
}

/// What a handler can see besides the state and the command.
pub struct Context<'a, A: Aggregate, S: ?Sized = ()> {
    pub(crate) id: &'a A::Id,
    pub(crate) version: Version,
    pub(crate) now: Timestamp,
    services: &'a S,
}

impl<'a, A: Aggregate> Context<'a, A> {
    /// Creates a context without services, for testing a handler without a store.
    pub fn new(id: &'a A::Id, version: Version, now: Timestamp) -> Self {
        Self { id, version, now, services: &() }
    }
}

impl<'a, A: Aggregate, S: ?Sized> Context<'a, A, S> {
    /// The same context with these services.
    pub fn with_services<T: ?Sized>(&self, services: &'a T) -> Context<'a, A, T> {
        Context { id: self.id, version: self.version, now: self.now, services }
    }

    /// The same context without services.
    #[must_use]
    pub fn without_services(&self) -> Context<'a, A> {
        self.with_services(&())
    }

    /// The services that the caller lent for this decision.
    pub fn services(&self) -> &'a S {
        self.services
    }

    /// The id of the aggregate.
    pub fn id(&self) -> &'a A::Id {
        self.id
    }

    /// The version of the state; [`Version::ZERO`] if the aggregate has no events yet.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The time of the command, according to the store's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }
}

impl<A: Aggregate, S: ?Sized> fmt::Debug for Context<'_, A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id.to_string())
            .field("version", &self.version)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
