//! What a consumer is doing, and how far it has got.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::RunError;
use super::failure::Failure;
use crate::log::Position;

/// What a consumer is doing. [`Self::check_next`] says what may follow what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It prepares what it writes to and looks for its checkpoint.
    Starting,
    /// It is processing the existing log.
    CatchingUp,
    /// It has processed the whole log and waits for more.
    Live,
    /// An event could not be processed, and will be tried again after a pause.
    Retrying,
    /// The read model or the log is out of order. It tries again with growing pauses and goes on where it was.
    Waiting,
    /// It was paused, and does nothing until it is resumed.
    Paused,
    /// It builds its read model anew.
    Rebuilding,
    /// Another runner holds the lease of its name; it takes over when that one ends.
    StandingBy,
    /// It was told to stop and finishes its current batch.
    Stopping,
    /// It was stopped.
    Stopped,
    /// It could not continue.
    Failed,
}

impl ConsumerState {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Starting,
        Self::CatchingUp,
        Self::Live,
        Self::Retrying,
        Self::Waiting,
        Self::Paused,
        Self::Rebuilding,
        Self::StandingBy,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// Its name, as it is stored and shown, for example `catching up`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::CatchingUp => "catching up",
            Self::Live => "live",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Rebuilding => "rebuilding",
            Self::StandingBy => "standing by",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether it has ended for good: stopped or failed.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// Whether it owns its name and reads the log: catching up, live, retrying or rebuilding.
    pub const fn is_running(self) -> bool {
        matches!(self, Self::CatchingUp | Self::Live | Self::Retrying | Self::Rebuilding)
    }

    /// Checks that a state may follow this one; every state may follow itself.
    ///
    /// | from | to |
    /// |---|---|
    /// | starting | catching up, live, rebuilding, retrying, waiting, paused, standing by, stopping |
    /// | catching up, live, retrying, rebuilding | each other, starting, waiting, paused, standing by, stopping |
    /// | waiting, paused, standing by | starting, catching up, rebuilding, each other, stopping |
    /// | stopping | stopped |
    /// | stopped, failed | nothing |
    ///
    /// Every state but the last two may be followed by failed.
    ///
    /// # Errors
    ///
    /// [`IllegalTransition`], with both states.
    pub fn check_next(self, to: Self) -> Result<(), IllegalTransition> {
        let legal = match self {
            _ if self == to => true,
            Self::Stopped | Self::Failed => false,
            Self::Stopping => matches!(to, Self::Stopped | Self::Failed),
            Self::Waiting | Self::Paused | Self::StandingBy => {
                !matches!(to, Self::Live | Self::Retrying | Self::Stopped)
            }
            Self::Starting | Self::CatchingUp | Self::Live | Self::Retrying | Self::Rebuilding => to != Self::Stopped,
        };
        if legal { Ok(()) } else { Err(IllegalTransition { from: self, to }) }
    }
}

impl fmt::Display for ConsumerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A consumer cannot go from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a consumer that is {from} cannot become {to}")]
#[non_exhaustive]
pub struct IllegalTransition {
    /// The state it is in.
    pub from: ConsumerState,
    /// The state that cannot follow it.
    pub to: ConsumerState,
}

/// How a read model that is built anew is getting on. Events count whether the projector handles them or not.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// The number of events at or below the position that it has reached.
    pub done: u64,
    /// The number of events in the log, as far as this process knew when it moved last.
    pub total: u64,
    /// How many events a second it has processed since this run of it began: one that is resumed counts from where it
    /// was. Zero until it has moved.
    pub per_second: f64,
    /// How long the rest will take at that rate; [`None`] until there is one.
    pub left: Option<Duration>,
    began: Instant,
    began_at: u64,
}

impl RebuildProgress {
    /// What follows once it is at `position` of a log with this head.
    pub(super) fn next(before: Option<Self>, position: Position, head: Position, now: Instant) -> Self {
        let (done, total) = (position.get(), head.max(position).get());
        let (began, began_at) = match before {
            // It may have been reset.
            Some(before) if before.began_at <= done => (before.began, before.began_at),
            _ => (now, done),
        };
        let seconds = now.saturating_duration_since(began).as_secs_f64();
        let per_second = if seconds > 0.0 { number(done - began_at) / seconds } else { 0.0 };
        let left = match total - done {
            0 => Some(Duration::ZERO),
            _ if per_second > 0.0 => Duration::try_from_secs_f64(number(total - done) / per_second).ok(),
            _ => None,
        };
        Self { done, total, per_second, left, began, began_at }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn number(count: u64) -> f64 {
    count as f64
}

/// How far a consumer has got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// What it is doing.
    pub state: ConsumerState,
    /// The position it has reached: every event at or below it that the consumer handles has taken effect.
    ///
    /// While it runs, its checkpoint may be behind this by events that it does not handle; see
    /// [`Projection`](crate::Projection#checkpoints). After it has ended, both are the same, unless the checkpoint could
    /// not be written.
    pub position: Position,
    /// While it builds its read model anew: the position up to which it has done so. Queries see the old one, up to
    /// [`Self::position`], until it has reached the end of the log.
    pub rebuilt: Option<Position>,
    /// How that goes, and how long it will take; [`None`] if it builds nothing anew.
    pub rebuild: Option<RebuildProgress>,
    /// Why it could not continue.
    pub error: Option<Arc<RunError>>,
    /// The last failure, whether it has recovered from it or not; [`None`] if nothing has failed since it started.
    pub last_failure: Option<Failure>,
    /// The number of parked events.
    pub parked: usize,
    /// The end of the log, as far as this process knew when the consumer moved last.
    pub head: Position,
    /// How far it is behind: zero if it has processed the whole log, otherwise the time since the last event that it has
    /// handled was written.
    pub behind: Duration,
    /// The number of events it has handled since it started.
    pub events: u64,
    /// Who holds its lease, and which term it has; [`None`] without a lease.
    pub lease: Option<(Arc<str>, u64)>,
    /// The token of the last wish that was carried out or refused.
    pub acknowledged: Option<String>,
    /// Why that wish was refused.
    pub refused: Option<String>,
}

impl Status {
    pub(super) fn new(position: Position) -> Self {
        Self {
            state: ConsumerState::Starting,
            position,
            rebuilt: None,
            rebuild: None,
            error: None,
            last_failure: None,
            parked: 0,
            head: position,
            behind: Duration::ZERO,
            events: 0,
            lease: None,
            acknowledged: None,
            refused: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_rate_of_this_run() {
        let begun = Instant::now();
        let at = |before, position, seconds| {
            let now = begun + Duration::from_secs(seconds);
            RebuildProgress::next(before, Position::new(position), Position::new(10_000), now)
        };
        // It is resumed at 4,000.
        let first = at(None, 4_000, 0);
        assert_eq!((first.done, first.total, first.per_second, first.left), (4_000, 10_000, 0.0, None));
        let second = at(Some(first), 5_000, 2);
        assert_eq!((second.per_second, second.left), (500.0, Some(Duration::from_secs(10))));
        let third = at(Some(second), 10_000, 4);
        assert_eq!((third.per_second, third.left), (1_500.0, Some(Duration::ZERO)));
        let reset = at(Some(third), 0, 5);
        assert_eq!((reset.done, reset.left), (0, None));
    }
}
