//! Configuring a reactor, and starting it.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::Duration;

use super::api::Reactor;
use super::effect::Effect;
use super::work::{Reacting, Reactions, Refusal};
use crate::consumer::{self, Consumer, Lease, Policy, RunError, Running, StartFrom, Startable};
use crate::domain::{Event as _, Recorded};
use crate::log::{Filter, Position, ProjectionName, Store};

/// A reactor and the log it reads, ready to run.
///
/// ```
/// # use es_framework::*;
/// # use std::sync::{Arc, Mutex};
/// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "opened")] Opened { owner: String } }
/// # type Mailbox = Arc<Mutex<Vec<(String, String)>>>;
/// struct Welcome {
///     mailbox: Mailbox,
/// }
///
/// impl Reactor for Welcome {
///     type Event = AccountEvent;
///     type Error = std::convert::Infallible;
///     const NAME: &'static str = "welcome";
///
///     async fn react(&self, event: &Recorded<AccountEvent>, effect: &Effect) -> Result<(), Self::Error> {
///         let AccountEvent::Opened { owner } = event.event();
///         // A real mail server would take the key as the id of the message.
///         self.mailbox.lock().unwrap().push((effect.key.to_string(), format!("Welcome, {owner}!")));
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::from(MemoryStore::new());
/// # let opened = AccountEvent::Opened { owner: "Alice".into() }.encode()?;
/// # let position = store.open_stream("account-alice")?.write(opened, ExpectedVersion::Any).await?.position;
/// # let mailbox = Mailbox::default();
/// let welcome = Reaction::new(&store, Welcome { mailbox: mailbox.clone() }).start().await?;
/// welcome.wait_for(position, std::time::Duration::from_secs(5)).await?;
/// assert_eq!(mailbox.lock().unwrap()[0].0, format!("welcome-{}-1", store.id()));
/// welcome.stop().await?;
/// # Ok(()) }
/// ```
///
/// # What it promises
///
/// 1. Every event is passed to the reactor until [`Reactor::react`] has returned `Ok` once: at least once, and in most
///    cases exactly once.
/// 2. The events of one [key](Reactor::key) are passed one after the other in the order of the log. While one of them
///    fails, the later ones wait.
/// 3. The checkpoint covers only what is finished, without a gap. It is a cell of the log,
///    `consumer/<name>/record/checkpoint`, and written after each stretch of the log, and once a second during a long one. Of two owners of the same name, one
///    fails with [`ModelError::TakenOver`](crate::ModelError::TakenOver).
/// 4. A crash costs a second attempt of what was not covered by the checkpoint, with the same [`Effect::key`].
///
/// 5. While an event is parked, those of the same key queue behind it; see [`Policy`]. An event that cannot be decoded has
///    no key, and is parked under its stream.
///
/// A stop starts no further effects, and waits for those under way. With [`Self::timeout`] that is bounded.
#[derive(Debug)]
#[must_use = "a reactor does nothing until it is started"]
pub struct Reaction<R: Reactor> {
    store: Store,
    reactor: R,
    name: String,
    filter: Filter,
    policy: Policy,
    start_from: StartFrom,
    lease: Option<Lease>,
    repeat_after: Option<Position>,
    in_flight: NonZeroUsize,
    timeout: Option<Duration>,
}

impl<R: Reactor> Reaction<R> {
    /// The default maximum number of events under way at the same time.
    pub const IN_FLIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

    /// Creates a reaction.
    pub fn new(store: impl Into<Store>, reactor: R) -> Self {
        Self {
            store: store.into(),
            reactor,
            name: R::NAME.to_owned(),
            filter: Filter::new(),
            policy: Policy::default(),
            start_from: StartFrom::default(),
            lease: None,
            repeat_after: None,
            in_flight: Self::IN_FLIGHT,
            timeout: None,
        }
    }

    /// Keeps the checkpoint under a name other than [`Reactor::NAME`]. The effect keys begin with that name too.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Passes only events that match the filter to the reactor, for example those of one category. Others still move the
    /// checkpoint.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter.and_all(filter);
        self
    }

    /// Sets what it does about failures.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets where it starts if it has never run; with the first event by default. A new reactor on a log with a long past
    /// may better start with [`StartFrom::Present`]: otherwise it has the effects of the whole past.
    pub fn start_from(mut self, start: StartFrom) -> Self {
        self.start_from = start;
        self
    }

    /// Has the effects of all events after this position once more, with the same [keys](Effect::key), when it starts.
    ///
    /// Without this word no effect is repeated on purpose: if a reactor is [reset](Running::reset) or
    /// [moved](Running::set_position) back, it reads the log again, and has the effects only of events that it had not
    /// reached before. Say it for one run only: every start with it repeats them.
    pub fn repeat_effects_after(mut self, position: Position) -> Self {
        self.repeat_after = Some(position);
        self
    }

    /// The maximum number of events under way at the same time, each of another key; [`Self::IN_FLIGHT`] by default. With
    /// 1, all effects keep the order of the log.
    pub fn in_flight(mut self, events: NonZeroUsize) -> Self {
        self.in_flight = events;
        self
    }

    /// The maximum duration of one attempt; without a maximum by default. An attempt that takes longer is dropped, and
    /// counts as failed. It is real time, on any executor.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets only one runner of this name run at a time, over all processes on the store, while the others stand by.
    /// Without a lease the second one fails with [`ModelError::TakenOver`](crate::ModelError::TakenOver), or makes the
    /// first one fail.
    pub fn lease(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Finds the checkpoint and runs in a task of its own: first through the existing log, then through new events as
    /// they are written, until it is stopped or fails.
    ///
    /// The task runs on the current tokio runtime. The runtime's timer is not used.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot start: [`RunError::NoRuntime`] before anything is touched, otherwise the cause. The
    /// handle reports what happens later.
    ///
    /// # Cancel safety
    ///
    /// Nothing runs if the future is dropped.
    pub async fn start(self) -> Result<Running, RunError> {
        consumer::start(self.into_consumer()?).await
    }

    /// Reacts to everything that is in the log now, and returns the position reached. Needs no runtime, and runs all
    /// effects inside this future.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot continue. Nothing is tried twice.
    ///
    /// # Cancel safety
    ///
    /// Effects under way are dropped with the future, and are tried again with the same key next time.
    pub async fn catch_up(self) -> Result<Position, RunError> {
        consumer::catch_up(self.into_consumer()?).await
    }

    fn into_consumer(self) -> Result<Consumer<Reactions<Users<R>>>, RunError> {
        let Self { store, reactor, name, filter, policy, start_from, lease, repeat_after, in_flight, timeout } = self;
        let name = ProjectionName::new(name)?;
        let wanted = filter.types(R::Event::names());
        let work = Reactions::new(store.clone(), name.clone(), Users(reactor), in_flight, timeout)?;
        let work = work.repeat_after(repeat_after);
        Ok(Consumer { store, name, work, wanted, policy, start_from, lease })
    }
}

impl<R: Reactor> Startable for Reaction<R> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn start(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>> {
        Box::pin((*self).start())
    }
}

/// The reactor of a user.
#[derive(Debug)]
struct Users<R>(R);

impl<R: Reactor> Reacting for Users<R> {
    type Event = R::Event;

    fn key(&self, event: &Recorded<R::Event>) -> Option<String> {
        Some(self.0.key(event).into_owned())
    }

    async fn react(&self, event: &Recorded<R::Event>, effect: &Effect) -> Result<(), Refusal> {
        self.0.react(event, effect).await.map_err(|error| Refusal::Event(error.into()))
    }
}
