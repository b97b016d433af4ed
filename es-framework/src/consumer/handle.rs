//! The handle to a running consumer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::control::{Answer, Command, ControlError, Remote, Request, Retried};
use super::error::{RunError, WaitError};
use super::parked::ParkedEvent;
use super::status::Status;
use super::timer::Timer;
use crate::log::{Position, ProjectionName};

/// A projection that runs in its own task; cheap to clone. Dropping the last handle stops it after its current batch.
///
/// The handle can be used from any thread and any executor, even after the projection's runtime was shut down: then the
/// projection has failed with [`RunError::TaskEnded`].
#[derive(Debug, Clone)]
#[must_use = "dropping the handle stops the projection"]
pub struct Running {
    name: ProjectionName,
    seen: watch::Receiver<Status>,
    remote: Arc<Remote>,
    timer: Timer,
}

impl Running {
    pub(super) fn new(name: ProjectionName, seen: watch::Receiver<Status>, remote: Remote, timer: Timer) -> Self {
        Self { name, seen, remote: Arc::new(remote), timer }
    }

    /// The projection's name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// How far it has got, and why it ended if it failed.
    pub fn status(&self) -> Status {
        self.seen.borrow().clone()
    }

    /// The position it has reached; the read model shows everything at or below it.
    pub fn position(&self) -> Position {
        self.seen.borrow().position
    }

    /// Waits until the projection has reached a position. With the position of a command's receipt, its read model then
    /// shows what the command did.
    ///
    /// `timeout` is real time, even if a tokio runtime's time is paused, and needs neither a runtime nor its timer; a
    /// thread of the handle's own measures it while somebody waits.
    ///
    /// # Errors
    ///
    /// [`WaitError`] if it has not reached it after `timeout`, or never will because it stopped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn reached(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let mut seen = self.seen.clone();
        // The returned value holds a lock. Reading the status while holding it would deadlock if the projection is
        // about to report its next position.
        let in_time = tokio::select! {
            biased;
            over = seen.wait_for(|status| status.position >= position || status.is_over()) => { drop(over); true }
            () = self.timer.at(Instant::now().checked_add(timeout)) => false,
        };
        let status = self.status();
        let (name, reached) = (self.name.clone(), status.position);
        match (reached >= position, status.error, in_time) {
            (true, ..) => Ok(()),
            (false, Some(source), _) => Err(WaitError::Failed { name, reached, source }),
            (false, None, true) => Err(WaitError::Stopped { name, reached }),
            (false, None, false) => Err(WaitError::TimedOut { name, wanted: position, reached }),
        }
    }

    /// Waits as [`Self::reached`] does.
    ///
    /// # Errors
    ///
    /// As for [`Self::reached`].
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        self.reached(position, timeout).await
    }

    /// Pauses the consumer after its current batch: it does nothing until it is [resumed](Self::resume). Pausing twice
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`ControlError`] if it has ended.
    ///
    /// # Cancel safety
    ///
    /// It is paused even if the future is dropped after its first poll.
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.request(Request::Pause).await.map(drop)
    }

    /// Resumes the consumer where it was paused.
    ///
    /// # Errors
    ///
    /// [`ControlError::Illegal`] if it is not paused; [`ControlError::Ended`] if it has ended.
    ///
    /// # Cancel safety
    ///
    /// It is resumed even if the future is dropped after its first poll.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.request(Request::Resume).await.map(drop)
    }

    /// Empties what the consumer has written and starts from the beginning, all in one transaction. A consumer that is
    /// paused stays paused. Parked events are forgotten: they will be met again.
    ///
    /// # Errors
    ///
    /// [`ControlError`], for example if the read model cannot be emptied; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// It happens even if the future is dropped after its first poll.
    pub async fn reset(&self) -> Result<(), ControlError> {
        self.request(Request::Reset).await.map(drop)
    }

    /// Moves the checkpoint, forward or back, so that the next event is the first after `position`. What the consumer has
    /// written stays as it is: events that are met again take effect again, and those that are left out never do. Events
    /// that are parked behind the position are forgotten: they will be met again.
    ///
    /// # Errors
    ///
    /// [`ControlError::BeyondHead`] if the log does not reach that far; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// It happens even if the future is dropped after its first poll.
    pub async fn set_position(&self, position: Position) -> Result<(), ControlError> {
        self.request(Request::Move(position)).await.map(drop)
    }

    /// Lists the parked events in order: of one key, or all.
    ///
    /// # Errors
    ///
    /// [`ControlError::Ended`] if the consumer has ended.
    pub async fn parked(&self, key: Option<&str>) -> Result<Vec<ParkedEvent>, ControlError> {
        match self.request(Request::List(key.map(str::to_owned))).await? {
            Answer::Listed(events) => Ok(events),
            _ => Ok(Vec::new()),
        }
    }

    /// Tries parked events again, in order: those of one key, or all. Each is applied and taken out of the parked events in
    /// one transaction. One that fails again stays parked, and those behind it with the same key are left alone.
    ///
    /// # Errors
    ///
    /// [`ControlError`] if the consumer has ended, or the read model or the log is out of order. Events that were applied
    /// before are no longer parked.
    ///
    /// # Cancel safety
    ///
    /// It happens even if the future is dropped after its first poll.
    pub async fn retry_parked(&self, key: Option<&str>) -> Result<Retried, ControlError> {
        match self.request(Request::Retry(key.map(str::to_owned))).await? {
            Answer::Retried(retried) => Ok(retried),
            _ => Ok(Retried::default()),
        }
    }

    /// Drops a parked event: it never takes effect. A record of it, of who dropped it and why, is kept next to the
    /// checkpoint. Events behind it with the same key stay parked until they are [tried again](Self::retry_parked).
    ///
    /// # Errors
    ///
    /// [`ControlError::NotParked`] if there is none at this position.
    ///
    /// # Cancel safety
    ///
    /// It happens even if the future is dropped after its first poll.
    pub async fn drop_parked(
        &self,
        position: Position,
        who: impl Into<String>,
        why: impl Into<String>,
    ) -> Result<(), ControlError> {
        let (who, why) = (who.into(), why.into());
        self.request(Request::Drop { position, who, why }).await.map(drop)
    }

    /// The request is made at once, whether or not the future is polled again.
    async fn request(&self, request: Request) -> Result<Answer, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.remote.commands.send(Command { request, token: None, reply }).map_err(|_| ControlError::Ended)?;
        answer.await.map_err(|_| ControlError::Ended)?
    }

    /// Stops the projection and returns the position reached. The current batch is finished or rolled back, however
    /// long that takes, and the checkpoint matches what was applied. Stopping twice returns the same result twice.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that the projection failed with, now or earlier.
    ///
    /// # Cancel safety
    ///
    /// The projection stops even if the future is dropped after its first poll, and [`Self::finished`] waits for that.
    pub async fn stop(&self) -> Result<Position, Arc<RunError>> {
        self.ask_to_stop();
        self.finished().await
    }

    pub(super) fn ask_to_stop(&self) {
        self.remote.stop.send_replace(true);
    }

    /// Waits until the projection has ended (it was stopped, it failed, or the store was closed), and returns the
    /// position reached.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that the projection failed with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn finished(&self) -> Result<Position, Arc<RunError>> {
        // The task reports how it ended, whatever ended it.
        drop(self.seen.clone().wait_for(Status::is_over).await);
        let status = self.status();
        match status.error {
            Some(error) => Err(error),
            None => Ok(status.position),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// The two deadlocked once: the waiting side held the lock while taking it again, and the projection was queued in
    /// between.
    #[test]
    fn waiting_and_moving_on_do_not_wait_for_each_other() {
        let (status, seen) = watch::channel(Status::new(Position::new(1)));
        let remote = super::super::control::Control::new().1;
        let running = Running::new(ProjectionName::new("busy").unwrap(), seen, remote, Timer::default());
        let (done, waited) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                status.send_modify(|status| status.position = Position::new(2));
            }
        });
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for _ in 0..20_000 {
                    running.wait_for(Position::new(1), Duration::from_secs(5)).await.unwrap();
                }
            });
            done.send(()).unwrap();
        });
        let waited = waited.recv_timeout(Duration::from_secs(20));
        stopped.store(true, Ordering::Relaxed);
        waited.expect("both go on");
    }
}
