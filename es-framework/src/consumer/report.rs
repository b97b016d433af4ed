//! The one place where a run tells others what happens in it.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use super::error::RunError;
use super::failure::Failure;
use super::status::{ConsumerState, Status};
use crate::log::{Position, ProjectionName};
use crate::panics;

/// The runner's end of a [`Status`]. If it is dropped before [`Self::ended`] was called, the task that held it has
/// ended without a result, and it reports that.
#[derive(Debug)]
pub(super) struct Report {
    name: ProjectionName,
    status: watch::Sender<Status>,
    ended: bool,
}

impl Report {
    pub(super) fn new(name: ProjectionName) -> (Self, watch::Receiver<Status>) {
        let (status, seen) = watch::channel(Status::new(Position::ZERO));
        (Self { name, status, ended: false }, seen)
    }

    /// It is now in this state.
    pub(super) fn enter(&self, state: ConsumerState) {
        self.status.send_if_modified(|status| change(status, state));
    }

    /// It has reached this position, and is now in this state.
    pub(super) fn moved(&self, position: Position, state: ConsumerState) {
        self.status.send_if_modified(|status| {
            let moved = status.position != position;
            status.position = position;
            change(status, state) || moved
        });
    }

    /// Something failed; what becomes of it follows.
    pub(super) fn failed(&self, failure: Failure) {
        let Failure { category, error, position, attempts, .. } = &failure;
        let position = position.map(Position::get);
        warn!(name = self.name.as_str(), %category, error = &**error, position, attempts, "a consumer failed");
        self.status.send_modify(|status| status.last_failure = Some(failure));
    }

    /// So many events are parked now.
    pub(super) fn parked(&self, count: usize) {
        self.status.send_if_modified(|status| std::mem::replace(&mut status.parked, count) != count);
    }

    pub(super) fn state(&self) -> ConsumerState {
        self.status.borrow().state
    }

    /// It is over, at this position.
    pub(super) fn ended(mut self, position: Position, outcome: Result<(), RunError>) {
        self.ended = true;
        let error = outcome.err().map(Arc::new);
        if let Some(error) = &error {
            log(error, "consumer stopped");
        }
        self.status.send_modify(|status| {
            status.position = position;
            match error {
                None => {
                    change(status, ConsumerState::Stopping);
                    change(status, ConsumerState::Stopped);
                }
                Some(error) => fail(status, error),
            }
        });
    }
}

fn change(status: &mut Status, state: ConsumerState) -> bool {
    if let Err(error) = status.state.check_next(state) {
        debug_assert!(false, "{error}");
        tracing::error!(%error, "please report this");
        return false;
    }
    let changed = status.state != state;
    status.state = state;
    changed
}

fn fail(status: &mut Status, error: Arc<RunError>) {
    status.state = ConsumerState::Failed;
    status.error = Some(error);
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.ended {
            self.status.send_modify(|status| fail(status, Arc::new(RunError::TaskEnded)));
        }
    }
}

/// Logs an error; formatting it may run user code.
pub(super) fn log(error: &RunError, what: &'static str) {
    if panics::catch(|| warn!(error = error as &dyn std::error::Error, "{what}")).is_err() {
        warn!("{what}; the text of the error panicked");
    }
}
