//! The status that a projection reports to its handles.

use std::sync::Arc;

use tokio::sync::watch;

use super::error::RunError;
use crate::log::Position;

/// What a projection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunningState {
    /// It is processing the existing log.
    CatchingUp,
    /// It has processed the whole log and waits for more.
    Live,
    /// It was stopped.
    Stopped,
    /// It could not continue.
    Failed,
}

/// How far a projection has got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: RunningState,
    /// The position it has reached: the read model shows every event at or below it that the projector handles.
    ///
    /// While the projection runs, its checkpoint may be behind this by events that the projector does not handle; see
    /// [`Projection`](super::Projection#checkpoints). After it has ended, both are the same, unless the checkpoint
    /// could not be written.
    pub position: Position,
    /// Why it could not continue.
    pub error: Option<Arc<RunError>>,
}

impl Status {
    pub(super) fn new(position: Position) -> Self {
        Self { state: RunningState::CatchingUp, position, error: None }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, RunningState::Stopped | RunningState::Failed)
    }

    fn fail(&mut self, error: RunError) {
        self.state = RunningState::Failed;
        self.error = Some(Arc::new(error));
    }
}

/// The runner's end of a [`Status`]. If it is dropped before [`Self::ended`] was called, the task that held it has
/// ended without a result, and it reports that.
#[derive(Debug)]
pub(super) struct Reporter {
    status: watch::Sender<Status>,
    ended: bool,
}

impl Reporter {
    pub(super) fn new(status: watch::Sender<Status>) -> Self {
        Self { status, ended: false }
    }

    pub(super) fn ended(mut self, position: Position, outcome: Result<(), RunError>) {
        self.ended = true;
        self.status.send_modify(|status| {
            status.position = position;
            match outcome {
                Ok(()) => status.state = RunningState::Stopped,
                Err(error) => status.fail(error),
            }
        });
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if !self.ended {
            self.status.send_modify(|status| status.fail(RunError::TaskEnded));
        }
    }
}
