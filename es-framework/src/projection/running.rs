//! The handle on a running projection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::runner::RunError;
use crate::log::{ErrorKind, Position, ProjectionName};

/// A projection that runs in a task of its own; cheap to clone. Dropping the last handle stops it after the batch it is at.
#[derive(Debug, Clone)]
#[must_use = "dropping the handle stops the projection"]
pub struct Running {
    name: ProjectionName,
    seen: watch::Receiver<Progress>,
    stop: Arc<watch::Sender<bool>>,
}

/// What a running projection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunningState {
    /// It reads what is in the log already.
    CatchingUp,
    /// It has dealt with the whole log and waits for more.
    Live,
    /// It was stopped.
    Stopped,
    /// It could not go on.
    Failed,
}

/// How far a projection has come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// What it is at.
    pub state: RunningState,
    /// The position it has reached; its checkpoint.
    pub position: Position,
    /// Why it could not go on.
    pub error: Option<Arc<RunError>>,
}

pub(super) type Progress = Status;

impl Status {
    pub(super) fn new(position: Position) -> Self {
        Self { state: RunningState::CatchingUp, position, error: None }
    }

    pub(super) fn reached(&mut self, position: Position, state: RunningState) {
        self.position = position;
        self.state = state;
    }

    pub(super) fn fail(&mut self, error: RunError) {
        self.state = RunningState::Failed;
        self.error = Some(Arc::new(error));
    }
}

/// A position that a projection did not reach.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time was up.
    #[error("projection {name} reached position {reached} in time, not {wanted}")]
    TimedOut {
        /// The projection.
        name: ProjectionName,
        /// The position that was waited for.
        wanted: Position,
        /// The position it has reached.
        reached: Position,
    },
    /// The projection was stopped before.
    #[error("projection {name} was stopped at position {reached}")]
    Stopped {
        /// The projection.
        name: ProjectionName,
        /// The position it has reached.
        reached: Position,
    },
    /// The projection failed before.
    #[error("projection {name} failed at position {reached}")]
    Failed {
        /// The projection.
        name: ProjectionName,
        /// The position it has reached.
        reached: Position,
        /// Why it could not go on.
        source: Arc<RunError>,
    },
}

impl WaitError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut { .. } => ErrorKind::Retry,
            Self::Stopped { .. } => ErrorKind::Closed,
            Self::Failed { source, .. } => source.kind(),
        }
    }
}

impl Running {
    pub(super) fn new(name: ProjectionName, seen: watch::Receiver<Progress>, stop: watch::Sender<bool>) -> Self {
        Self { name, seen, stop: Arc::new(stop) }
    }

    /// The projection's name.
    pub fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// How far it has come.
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
    /// # Errors
    ///
    /// [`WaitError`] if it has not after `timeout`, or never will because it stopped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let mut seen = self.seen.clone();
        let over = |status: &Status| {
            status.position >= position || matches!(status.state, RunningState::Stopped | RunningState::Failed)
        };
        // What is answered holds a lock. To ask for the status with it in hand would wait for ever, if the projection
        // wants to tell its next position just then.
        let waited = tokio::time::timeout(timeout, seen.wait_for(over)).await.map(drop);
        let status = self.status();
        let (name, reached) = (self.name.clone(), status.position);
        match (reached >= position, status.error, waited) {
            (true, ..) => Ok(()),
            (false, Some(source), _) => Err(WaitError::Failed { name, reached, source }),
            (false, None, Ok(())) => Err(WaitError::Stopped { name, reached }),
            (false, None, Err(_)) => Err(WaitError::TimedOut { name, wanted: position, reached }),
        }
    }

    /// Stops the projection: the batch it is at is finished or rolled back, and the checkpoint equals what was applied.
    /// Answers the position reached.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that it failed with, now or before.
    pub async fn stop(&self) -> Result<Position, Arc<RunError>> {
        self.stop.send_replace(true);
        self.finished().await
    }

    /// Waits until the projection stops by itself, which it does when it fails or the store is closed.
    ///
    /// # Errors
    ///
    /// The [`RunError`] that it failed with.
    pub async fn finished(&self) -> Result<Position, Arc<RunError>> {
        let over = |status: &Status| matches!(status.state, RunningState::Stopped | RunningState::Failed);
        // The task says how it ended; it goes without a word only when its runtime does.
        drop(self.seen.clone().wait_for(over).await);
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
        let (progress, seen) = watch::channel(Progress::new(Position::new(1)));
        let running = Running::new(ProjectionName::new("busy").unwrap(), seen, watch::channel(false).0);
        let (done, waited) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                progress.send_modify(|progress| progress.reached(Position::new(2), RunningState::Live));
            }
        });
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
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
