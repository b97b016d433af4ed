//! The handle on a running projection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::{RunError, WaitError};
use super::status::Status;
use super::timer::Timer;
use crate::log::{Position, ProjectionName};

/// A projection that runs in a task of its own; cheap to clone. Dropping the last handle stops it after the batch it is at.
///
/// The handle can be used from any thread and any executor, also after the runtime of the projection was shut down: then
/// the projection has failed with [`RunError::TaskEnded`].
#[derive(Debug, Clone)]
#[must_use = "dropping the handle stops the projection"]
pub struct Running {
    name: ProjectionName,
    seen: watch::Receiver<Status>,
    stop: Arc<watch::Sender<bool>>,
    timer: Timer,
}

impl Running {
    pub(super) fn new(name: ProjectionName, seen: watch::Receiver<Status>, stop: watch::Sender<bool>) -> Self {
        Self { name, seen, stop: Arc::new(stop), timer: Timer::default() }
    }

    /// The projection's name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// How far it has come, and why it ended if it failed.
    pub fn status(&self) -> Status {
        self.seen.borrow().clone()
    }

    /// The position it has reached; what is at or below it can be seen in the read model.
    pub fn position(&self) -> Position {
        self.seen.borrow().position
    }

    /// Waits until the projection has reached a position, for example that of a command's receipt: then its read model
    /// shows what the command did.
    ///
    /// `timeout` is real time, also where the time of a tokio runtime is paused, and needs neither a runtime nor its timer;
    /// a thread of the handle's own measures it while somebody waits.
    ///
    /// # Errors
    ///
    /// [`WaitError`] if it has not after `timeout`, or never will because it stopped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let mut seen = self.seen.clone();
        // What is returned holds a lock. To ask for the status with it in hand would wait for ever, if the projection
        // wants to tell its next position just then.
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

    /// Stops the projection and returns the position reached: the batch it is at is finished or rolled back, and the
    /// checkpoint equals what was applied. It waits for that batch as long as it takes. Stopping twice returns the same
    /// twice.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that it failed with, now or before.
    ///
    /// # Cancel safety
    ///
    /// The projection stops also if the future is dropped after its first poll, and [`Self::finished`] waits for that.
    pub async fn stop(&self) -> Result<Position, Arc<RunError>> {
        self.stop.send_replace(true);
        self.finished().await
    }

    /// Waits until the projection has ended, and returns the position reached: it was stopped, it failed, or the store was
    /// closed.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that it failed with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn finished(&self) -> Result<Position, Arc<RunError>> {
        // The task tells how it ended, whatever ends it.
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

    /// The two met on a lock once: whoever waited held it while asking for more, and the projection was between.
    #[test]
    fn waiting_and_moving_on_do_not_wait_for_each_other() {
        let (status, seen) = watch::channel(Status::new(Position::new(1)));
        let running = Running::new(ProjectionName::new("busy").unwrap(), seen, watch::channel(false).0);
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
