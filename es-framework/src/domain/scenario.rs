//! Testing decisions without a store.

use std::fmt;

use super::aggregate::{Aggregate, Apply, Context, HandledBy};
use super::event::{Envelope, Event};
use crate::log::{Position, StoreId, StoredEvent, StreamId, Timestamp, Version};

/// An aggregate with a history, for testing its decisions: given these events, when this command comes, then …
///
/// Events pass through their codec, as they do in a store. They are written at time zero, unless [`Self::at`] sets
/// another time.
///
/// ```
/// # use es_framework::*;
/// # #[derive(Debug, Clone, PartialEq, Event)] enum AccountEvent {
/// #     #[es(name = "deposited")] Deposited { cents: u64 }, #[es(name = "withdrawn")] Withdrawn { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) { match event {
/// #     AccountEvent::Deposited { cents } => self.cents += cents, AccountEvent::Withdrawn { cents } => self.cents -= cents } } }
/// # #[derive(Debug, PartialEq)] struct TooLittle;
/// # impl std::fmt::Display for TooLittle { fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
/// # impl std::error::Error for TooLittle {}
/// # struct Withdraw { cents: u64 }
/// # #[commands(error = TooLittle)] impl Account { fn withdraw(&self, command: &Withdraw) -> Result<AccountEvent, TooLittle> {
/// #     if self.cents < command.cents { Err(TooLittle) } else { Ok(AccountEvent::Withdrawn { cents: command.cents }) } } }
/// let alice = Scenario::<Account>::new("alice").given([AccountEvent::Deposited { cents: 500 }]);
///
/// assert_eq!(alice.when(&Withdraw { cents: 200 }), Ok(vec![AccountEvent::Withdrawn { cents: 200 }]));
/// assert_eq!(alice.when(&Withdraw { cents: 501 }), Err(TooLittle));
/// ```
#[must_use]
pub struct Scenario<A: Aggregate + Apply> {
    id: A::Id,
    stream: StreamId,
    state: A,
    version: Version,
    now: Timestamp,
}

impl<A: Aggregate + Apply> Scenario<A> {
    /// An aggregate without events.
    ///
    /// # Panics
    ///
    /// If category and id together are not a valid stream id.
    pub fn new(id: impl Into<A::Id>) -> Self {
        let id = id.into();
        let stream = A::stream_id(&id).expect("the id of a scenario makes a valid stream id");
        Self { id, stream, state: A::default(), version: Version::ZERO, now: Timestamp::default() }
    }

    /// Sets the time from here on.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Adds events that have happened, after those given before.
    ///
    /// # Panics
    ///
    /// If an event cannot be encoded, or cannot be decoded again.
    pub fn given(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        for event in events {
            self.version = self.version.next();
            let position = Position::new(self.version.get());
            let candidate = event.encode().expect("the events of a scenario can be encoded");
            let store = StoreId::from_bytes([0; 16]);
            let stored = StoredEvent::new(store, self.stream.clone(), self.version, position, self.now, &candidate);
            let event = A::Event::decode(&stored).expect("what was encoded can be decoded");
            self.state.apply(&event, Envelope::of(&stored));
        }
        self
    }

    /// Returns what the aggregate decides on a command; the events are not applied.
    ///
    /// # Errors
    ///
    /// The aggregate's rejection.
    pub fn when<C>(&self, command: &C) -> Result<Vec<A::Event>, C::Error>
    where
        C: HandledBy<A>,
    {
        self.when_with(command, &())
    }

    /// Returns what the aggregate decides on a command with these services; the events are not applied.
    ///
    /// # Errors
    ///
    /// The aggregate's rejection.
    pub fn when_with<C, S: ?Sized>(&self, command: &C, services: &S) -> Result<Vec<A::Event>, C::Error>
    where
        C: HandledBy<A, S>,
    {
        let context = Context::new(&self.id, self.version, self.now);
        command.decided_by(&self.state, &context.with_services(services))
    }

    /// The state.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// The version of the state.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl<A: Aggregate + Apply + fmt::Debug> fmt::Debug for Scenario<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario")
            .field("stream", &self.stream)
            .field("state", &self.state)
            .field("version", &self.version)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}
