//! What a consumer is doing, and how far it has got.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
