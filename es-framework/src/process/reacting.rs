//! A process as a reactor: its events by instance, and its timeouts.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::ProcessError;
use super::instances::Instances;
use super::manager::{Correlation, ProcessManager};
use super::schedule::{Entry, Schedule};
use crate::consumer::{Backoff, Policy, ReactionError, RunError, StopSignal, Timer, Trouble};
use crate::domain::Recorded;
use crate::log::{CellKey, Store, Timestamp};
use crate::panics;
use crate::reactor::{Effect, Reacting, Refusal};

/// How many timeouts are listed at once.
const PAGE: usize = 100;
/// How long the clock is not looked at while it has to reach a time: it may be set.
const LOOKS_AT_THE_CLOCK: Duration = Duration::from_secs(60);

/// The instances of a process, and when there is something to do for them.
#[derive(Debug)]
pub(super) struct Processing<P> {
    store: Store,
    instances: Instances<P>,
    schedule: Schedule,
    backoff: Backoff,
    /// The pauses after the last attempt.
    longest: Duration,
    timer: Timer,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// When the next timeout is due that has not failed.
    next: Option<Timestamp>,
    failed: HashMap<CellKey, Failed>,
}

/// A timeout that could not be handled.
#[derive(Debug, Clone, Copy)]
struct Failed {
    attempts: u32,
    again: Instant,
}

impl<P: ProcessManager> Processing<P> {
    pub(super) fn new(store: Store, instances: Instances<P>, schedule: Schedule, policy: &Policy) -> Self {
        let (timer, waiting) = (Timer::shared(), Mutex::default());
        let (backoff, longest) = (policy.user_code, policy.outage.longest);
        Self { store, instances, schedule, backoff, longest, timer, waiting }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one timeout and removes it from the schedule.
    async fn time_out(&self, entry: &Entry) -> Result<(), Trouble> {
        let handled = panics::catch_async(self.instances.time_out(&entry.timeout)).await;
        let source = match handled {
            Ok(Ok(())) => {
                self.waiting().failed.remove(&entry.key);
                return self.schedule.remove(entry).await.map_err(|error| Trouble::of(error.into()));
            }
            Ok(Err(ProcessError::Store(error))) => return Err(Trouble::of(error.into())),
            Ok(Err(error)) => error.into(),
            Err(message) => format!("it panicked: {message}").into(),
        };
        let attempts = {
            let mut waiting = self.waiting();
            let failed =
                waiting.failed.entry(entry.key.clone()).or_insert(Failed { attempts: 0, again: Instant::now() });
            failed.attempts = failed.attempts.saturating_add(1);
            let given_up = failed.attempts >= self.backoff.attempts.get();
            let pause = if given_up { self.longest } else { self.backoff.bound(failed.attempts) };
            failed.again = Instant::now() + pause;
            failed.attempts
        };
        let (instance, timeout) = (entry.timeout.stream.clone(), entry.timeout.name.clone());
        Err(Trouble::Later { error: ReactionError::Timeout { instance, timeout, source }.into(), attempts })
    }
}

impl<P: ProcessManager> Reacting for Processing<P> {
    type Event = P::Event;

    fn key(&self, event: &Recorded<P::Event>) -> Option<String> {
        match P::correlate(event) {
            Correlation::Start(id) | Correlation::Proceed(id) => Some(id),
            Correlation::Ignore => None,
        }
    }

    async fn react(&self, event: &Recorded<P::Event>, _: &Effect) -> Result<(), Refusal> {
        let handled = self.instances.handle(event).await.map_err(|error| match error {
            ProcessError::Store(error) => Refusal::Store(error.into()),
            error => Refusal::Event(error.into()),
        });
        let earliest = self.instances.earliest_set();
        let mut waiting = self.waiting();
        waiting.next = waiting.next.into_iter().chain(earliest).min();
        handled
    }

    async fn begin(&self) -> Result<(), RunError> {
        let first = self.schedule.list(None, 1).await?;
        self.waiting().next = first.first().map(|entry| entry.timeout.due());
        Ok(())
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.waiting().next
    }

    async fn due(&self) {
        loop {
            // Before the clock is read, so that no turn is missed.
            let turned = self.store.clock().turned();
            let (now, instant) = (self.store.now(), Instant::now());
            let wakes_at = {
                let waiting = self.waiting();
                let again = waiting.failed.values().map(|failed| failed.again).min();
                let next = waiting.next.map(|due| instant + due.since(now).min(LOOKS_AT_THE_CLOCK));
                if waiting.next.is_some_and(|due| due <= now) {
                    return;
                }
                [again, next].into_iter().flatten().min()
            };
            if wakes_at.is_some_and(|at| at <= instant) {
                return;
            }
            tokio::select! {
                () = turned => {}
                () = self.timer.at(wakes_at) => {}
            }
        }
    }

    async fn fire(&self, until: Timestamp, stop: Option<&StopSignal>) -> Result<(), Trouble> {
        let (mut after, mut later, mut next) = (None, None, None);
        let mut seen = HashSet::new();
        'pages: loop {
            let page = self.schedule.list(after.take(), PAGE).await.map_err(|error| Trouble::of(error.into()))?;
            let last = page.len() < PAGE;
            for entry in page {
                if entry.timeout.due() > until || stop.is_some_and(StopSignal::is_set) {
                    next = Some(entry.timeout.due());
                    break 'pages;
                }
                after = Some(entry.key.clone());
                seen.insert(entry.key.clone());
                if self.waiting().failed.get(&entry.key).is_some_and(|failed| failed.again > Instant::now()) {
                    continue;
                }
                match self.time_out(&entry).await {
                    Ok(()) => {}
                    Err(trouble @ Trouble::Later { .. }) => drop(later.get_or_insert(trouble)),
                    Err(trouble) => return Err(trouble),
                }
                if self.instances.earliest_set().is_some() {
                    // It has set another one, which may be due before the next.
                    after = None;
                    continue 'pages;
                }
            }
            if last {
                break;
            }
        }
        let mut waiting = self.waiting();
        waiting.next = next;
        waiting.failed.retain(|key, _| seen.contains(key));
        later.map_or(Ok(()), Err)
    }
}
