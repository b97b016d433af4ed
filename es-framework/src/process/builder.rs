//! Configuring a process manager, and starting it.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;

use super::error::ProcessError;
use super::instances::{Instances, stream_of};
use super::manager::ProcessManager;
use super::reacting::Processing;
use super::schedule::Schedule;
use crate::consumer::{self, Consumer, Lease, Policy, RunError, Running, StartFrom, Startable};
use crate::domain::{Aggregate, Event as _, Repository};
use crate::log::{Filter, InvalidName, Position, ProjectionName, Store, Timestamp, Version};
use crate::reactor::Reactions;

/// A process manager and the log it reads, ready to run; see [`ProcessManager`] for an example.
///
/// # What it promises
///
/// 1. Each event is handled by its instance once in effect, in the order of the log; different instances are handled at
///    the same time. Whether an instance has handled an event is in its own stream, so neither a crash nor a reset nor a
///    second owner makes it handle one twice.
/// 2. A step (the new state, what led to it, its timeouts) is one event in the instance's stream. It is written before
///    its commands are executed. Each command has a key that is derived from the process, the instance and the cause, and
///    takes effect at most once; see [`Actions::execute`](crate::Actions::execute).
/// 3. After a crash, whoever comes first finishes the newest step of the instance before anything else happens to it.
/// 4. A timeout is handled once in effect, unless it was cancelled before; see
///    [`Actions::set_timeout`](crate::Actions::set_timeout). If it fails, it is tried again as the policy
///    says for errors of user code, and others are handled meanwhile. After the last attempt the process stops, or goes on
///    and tries it again after each of the longest pauses of an outage (30 s).
/// 5. After [`Actions::complete`](crate::Actions::complete) an instance ignores later events.
///
/// It runs as a consumer of the log named [`ProcessManager::NAME`], with a checkpoint, retries and states like those of a
/// [`Reaction`](crate::Reaction).
#[must_use = "a process does nothing until it is started"]
pub struct Process<P: ProcessManager> {
    store: Store,
    instances: Result<(Instances<P>, Schedule), InvalidName>,
    filter: Filter,
    policy: Policy,
    start_from: StartFrom,
    lease: Option<Lease>,
    in_flight: NonZeroUsize,
}

/// An instance of a process.
#[derive(Debug)]
#[non_exhaustive]
pub struct Instance<P> {
    /// Its state.
    pub state: P,
    /// The version of its stream: the number of steps it has taken.
    pub version: Version,
    /// Whether it is [completed](crate::Actions::complete).
    pub completed: bool,
    /// The open timeouts, with the times they are set for.
    pub timeouts: Vec<(String, Timestamp)>,
}

impl<P: ProcessManager> Process<P> {
    /// The default maximum number of events under way at the same time.
    pub const IN_FLIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

    /// Creates a process over a store.
    pub fn new(store: impl Into<Store>) -> Self {
        const {
            assert!(is_category(P::NAME), "the name of a process is the category of its streams and contains no `-`");
        }
        let store = store.into();
        let instances = Schedule::new(store.clone(), P::NAME)
            .map(|schedule| (Instances::new(store.clone(), schedule.clone()), schedule));
        let (filter, policy, start_from) = (Filter::new(), Policy::default(), StartFrom::default());
        Self { store, instances, filter, policy, start_from, lease: None, in_flight: Self::IN_FLIGHT }
    }

    /// Executes commands on aggregates of this type with this repository, to share its cache and settings. By default
    /// the process has repositories of its own.
    pub fn repository<A: Aggregate>(self, repository: &Repository<A>) -> Self {
        if let Ok((instances, _)) = &self.instances {
            instances.repositories.insert(repository.clone());
        }
        self
    }

    /// Handles only events that match the filter. Others still move the checkpoint.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter.and_all(filter);
        self
    }

    /// Sets what it does about failures.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets where it starts if it has never run; with the first event by default.
    pub fn start_from(mut self, start: StartFrom) -> Self {
        self.start_from = start;
        self
    }

    /// The maximum number of events under way at the same time, each of another instance; [`Self::IN_FLIGHT`] by default.
    pub fn in_flight(mut self, events: NonZeroUsize) -> Self {
        self.in_flight = events;
        self
    }

    /// Loads an instance; [`None`] if it was never started.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] if the id is not valid, the state cannot be decoded, or the store cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time: nothing is changed.
    pub async fn instance(&self, id: impl fmt::Display + Send) -> Result<Option<Instance<P>>, ProcessError> {
        let stream = stream_of::<P>(&id.to_string())?;
        let (instances, _) = self.instances.as_ref().map_err(Clone::clone)?;
        let step = instances.newest(&stream).await?;
        Ok(step.map(|step| {
            let timeouts = step.record.timeouts.iter();
            let timeouts = timeouts.map(|(name, open)| (name.clone(), Timestamp::from_micros(open.due))).collect();
            Instance { version: step.version(), completed: step.record.completed, timeouts, state: step.state }
        }))
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

    /// Handles everything that is in the log now, then the timeouts that are due, and returns the position reached. What
    /// its commands write is not handled yet. Needs no runtime.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot continue. No event is tried twice.
    ///
    /// # Cancel safety
    ///
    /// A step under way is finished next time, with the same commands under the same keys.
    pub async fn catch_up(self) -> Result<Position, RunError> {
        consumer::catch_up(self.into_consumer()?).await
    }

    fn into_consumer(self) -> Result<Consumer<Reactions<Processing<P>>>, RunError> {
        let Self { store, instances, filter, policy, start_from, lease, in_flight } = self;
        let name = ProjectionName::new(P::NAME)?;
        let (instances, schedule) = instances?;
        let wanted = filter.types(P::Event::names());
        let processing = Processing::new(store.clone(), instances, schedule, &policy);
        let work = Reactions::new(store.clone(), name.clone(), processing, in_flight, None)?;
        Ok(Consumer { store, name, work, wanted, policy, start_from, lease })
    }
}

impl<P: ProcessManager> Startable for Process<P> {
    fn name(&self) -> String {
        P::NAME.to_owned()
    }

    fn start(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>> {
        Box::pin((*self).start())
    }
}

impl<P: ProcessManager> fmt::Debug for Process<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &P::NAME).field("store", &self.store).finish_non_exhaustive()
    }
}

const fn is_category(name: &str) -> bool {
    let mut rest = name.as_bytes();
    let is_empty = rest.is_empty();
    while let [first, more @ ..] = rest {
        if *first == b'-' {
            return false;
        }
        rest = more;
    }
    !is_empty
}
