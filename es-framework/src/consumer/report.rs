//! The one place where a run tells others what happens in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::error::RunError;
use super::failure::Failure;
use super::status::{ConsumerState, RebuildProgress, Status};
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

    /// Up to this position, something is built anew that nobody can see yet.
    pub(super) fn rebuilt(&self, position: Position, head: Position) {
        self.status.send_modify(|status| {
            status.rebuilt = Some(position);
            status.head = head;
            status.rebuild = Some(RebuildProgress::next(status.rebuild, position, head, Instant::now()));
            change(status, ConsumerState::Rebuilding);
        });
    }

    /// It has reached this position of a log with this head, and is now in this state.
    pub(super) fn moved(&self, position: Position, head: Position, state: ConsumerState) {
        self.status.send_if_modified(|status| {
            let moved = status.position != position || status.rebuilt.is_some();
            (status.position, status.rebuilt, status.head) = (position, None, head.max(position));
            status.rebuild = None;
            if state == ConsumerState::Live {
                status.behind = Duration::ZERO;
            }
            change(status, state) || moved
        });
    }

    /// A transaction of this many events was committed, the last of which is as old as this.
    pub(super) fn batch(&self, events: usize, age: Duration) {
        self.status.send_if_modified(|status| {
            status.events += events as u64;
            status.behind = age;
            false
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

    pub(super) fn position(&self) -> Position {
        self.status.borrow().position
    }

    pub(super) fn state(&self) -> ConsumerState {
        self.status.borrow().state
    }

    /// It holds its lease in this term, or no longer.
    pub(super) fn lease(&self, lease: Option<(Arc<str>, u64)>) {
        self.status.send_if_modified(move |status| {
            let changed = status.lease != lease;
            status.lease = lease;
            changed
        });
    }

    /// This wish was acknowledged, as far as the checkpoint's transaction knows.
    pub(super) fn found(&self, token: Option<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.acknowledged != token;
            if changed {
                (status.acknowledged, status.refused) = (token, None);
            }
            changed
        });
    }

    /// A wish was carried out, or refused for this reason.
    pub(super) fn acknowledged(&self, token: Option<String>, refused: Option<String>) {
        self.status.send_modify(|status| (status.acknowledged, status.refused) = (token, refused));
    }

    /// What its status is when it is over.
    pub(super) fn last(&self, position: Position, outcome: Result<(), RunError>) -> Status {
        let mut status = self.status.borrow().clone();
        status.position = position;
        match outcome {
            Ok(()) => {
                change(&mut status, ConsumerState::Stopping);
                change(&mut status, ConsumerState::Stopped);
            }
            Err(error) => {
                log(&error, "consumer stopped");
                fail(&mut status, Arc::new(error));
            }
        }
        status
    }

    /// It is over.
    pub(super) fn ended(mut self, last: Status) {
        self.ended = true;
        self.status.send_replace(last);
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
