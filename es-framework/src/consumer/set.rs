//! Many consumers that are started and stopped together.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::RunError;
use super::handle::Running;
use super::timer::Timer;
use crate::log::{Position, Store};

/// A consumer that can be started: a [`Projection`](crate::Projection), for example.
pub trait Startable: Send + 'static {
    /// Its name.
    fn name(&self) -> String;

    /// Starts it in a task of its own.
    ///
    /// # Errors
    ///
    /// [`RunError`] if it cannot start.
    fn start(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<Running, RunError>> + Send>>;
}

/// Consumers that are to be started together; see [`Store::consumers`].
#[must_use = "the consumers do nothing until they are started"]
pub struct Consumers {
    list: Vec<Box<dyn Startable>>,
}

impl Store {
    /// Starts and stops consumers together. Each fails alone.
    ///
    /// ```
    /// # use es_framework::*;
    /// # use std::time::Duration;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # struct Totals;
    /// # impl Projector for Totals {
    /// #     type Event = AccountEvent;
    /// #     type Model = StateModel<u64>;
    /// #     type Error = std::convert::Infallible;
    /// #     const NAME: &'static str = "totals";
    /// #     fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, u64>) -> Result<(), Self::Error> {
    /// #         let AccountEvent::Deposited { cents } = event.event();
    /// #         **total += cents;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// let consumers = store
    ///     .consumers()
    ///     .add(Projection::new(&store, Totals, StateModel::new(&store)))
    ///     .add(Projection::new(&store, Totals, StateModel::new(&store)).named("totals-again"))
    ///     .start()
    ///     .await;
    /// assert!(consumers.failures().is_empty());
    /// consumers.stop(Duration::from_secs(5)).await?;
    /// # Ok(()) }
    /// ```
    pub fn consumers(&self) -> Consumers {
        Consumers { list: Vec::new() }
    }
}

impl Consumers {
    /// Adds a consumer.
    #[expect(clippy::should_implement_trait, reason = "nobody adds consumers with `+`")]
    pub fn add(mut self, consumer: impl Startable) -> Self {
        self.list.push(Box::new(consumer));
        self
    }

    /// Starts them one after the other, in the order in which they were added. One that cannot start has failed, and the
    /// others are started all the same: look at [`ConsumerSet::failures`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the consumers that were started stop.
    pub async fn start(self) -> ConsumerSet {
        let mut started = Vec::with_capacity(self.list.len());
        for consumer in self.list {
            started.push((consumer.name(), consumer.start().await));
        }
        ConsumerSet::of(started)
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|consumer| consumer.name())).finish()
    }
}

/// Consumers that were started together. Dropping it stops those whose handles are not kept elsewhere.
#[derive(Debug)]
#[must_use = "dropping the set stops the consumers"]
pub struct ConsumerSet {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    running: Result<Running, Arc<RunError>>,
}

impl ConsumerSet {
    /// Those that were started, and why others could not.
    pub(crate) fn of(started: Vec<(String, Result<Running, RunError>)>) -> Self {
        let member = |(name, running): (String, Result<Running, RunError>)| {
            if let Err(error) = &running {
                super::report::log(error, "a consumer could not start");
            }
            Member { name, running: running.map_err(Arc::new) }
        };
        Self { members: started.into_iter().map(member).collect() }
    }

    /// The handle of a consumer; [`None`] if there is none with this name, or it could not start.
    pub fn get(&self, name: &str) -> Option<&Running> {
        self.iter().find(|running| running.name().as_str() == name)
    }

    /// The handles of all consumers that could be started.
    pub fn iter(&self) -> impl Iterator<Item = &Running> {
        self.members.iter().filter_map(|member| member.running.as_ref().ok())
    }

    /// Those that have failed or could not start, and why.
    pub fn failures(&self) -> Vec<(String, Arc<RunError>)> {
        let failed = self.members.iter().filter_map(|member| {
            let error = match &member.running {
                Ok(running) => running.status().error?,
                Err(error) => Arc::clone(error),
            };
            Some((member.name.clone(), error))
        });
        failed.collect()
    }

    /// Waits until every consumer that could be started has reached a position. With the position of a command's receipt, all
    /// their read models show what the command did.
    ///
    /// # Errors
    ///
    /// The first [`WaitError`](super::WaitError).
    pub async fn reached(&self, position: Position, timeout: Duration) -> Result<(), super::WaitError> {
        let end = Instant::now().checked_add(timeout);
        for running in self.iter() {
            let left = end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
            running.reached(position, left).await?;
        }
        Ok(())
    }

    /// Waits until all of them have ended by themselves: rebuilds end once they have replaced their read models.
    ///
    /// # Errors
    ///
    /// [`StopError`] with those that have failed or could not start.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn finished(&self) -> Result<(), StopError> {
        for running in self.iter() {
            // Failures are collected below.
            drop(running.finished().await);
        }
        let failed = self.failures();
        if failed.is_empty() { Ok(()) } else { Err(StopError { late: Vec::new(), failed }) }
    }

    /// Stops all of them at once and waits until they have ended, at most until the deadline. Those that did not make it
    /// still stop after their current batch.
    ///
    /// # Errors
    ///
    /// [`StopError`] with those that did not make it, and those that had failed.
    ///
    /// # Cancel safety
    ///
    /// The consumers stop even if the future is dropped after its first poll.
    pub async fn stop(&self, deadline: Duration) -> Result<(), StopError> {
        let end = Instant::now().checked_add(deadline);
        for running in self.iter() {
            running.ask_to_stop();
        }
        let mut late = Vec::new();
        for running in self.iter() {
            let in_time = tokio::select! {
                biased;
                _ = running.finished() => true,
                () = Timer::shared().at(end) => false,
            };
            if !in_time {
                late.push(running.name().to_string());
            }
        }
        let failed = self.failures();
        if late.is_empty() && failed.is_empty() { Ok(()) } else { Err(StopError { late, failed }) }
    }
}

/// Not every consumer of a set has stopped well.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StopError {
    /// Those that had not ended at the deadline.
    pub late: Vec<String>,
    /// Those that had failed or could not start, and why.
    pub failed: Vec<(String, Arc<RunError>)>,
}

impl fmt::Display for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(", ");
        let (late, failed) = (
            names(&mut self.late.iter().map(String::as_str)),
            names(&mut self.failed.iter().map(|(name, _)| name.as_str())),
        );
        match (late.is_empty(), failed.is_empty()) {
            (false, true) => write!(f, "these consumers did not stop in time: {late}"),
            (true, _) => write!(f, "these consumers had failed: {failed}"),
            (false, false) => write!(f, "these consumers did not stop in time: {late}; these had failed: {failed}"),
        }
    }
}

impl std::error::Error for StopError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failed.first().map(|(_, error)| &**error as &(dyn std::error::Error + 'static))
    }
}
