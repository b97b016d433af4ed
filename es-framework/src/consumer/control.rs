//! What a handle tells its runner.

use tokio::sync::{mpsc, oneshot, watch};

use super::error::RunError;
use super::parked::ParkedEvent;
use super::status::IllegalTransition;
use crate::log::Position;

/// What a handle, or a wish in the store, asks of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Pause,
    Resume,
    /// Empty what was written and start from the beginning.
    Reset,
    /// Move the checkpoint.
    Move(Position),
    /// List the parked events of a key, or all.
    List(Option<String>),
    /// Try the parked events of a key, or of all keys, in order.
    Retry(Option<String>),
    /// Drop a parked event.
    Drop {
        position: Position,
        who: String,
        why: String,
    },
}

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Listed(Vec<ParkedEvent>),
    Retried(Retried),
}

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Answer, ControlError>>,
}

/// What became of parked events that were tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Retried {
    /// The number of events that were applied and are no longer parked.
    pub applied: usize,
    /// The number of events that failed again. Those behind them with the same key were left alone.
    pub failed: usize,
}

/// Why a consumer did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It cannot go from its state to the requested one.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// There is no parked event at this position.
    #[error("there is no parked event at position {0}")]
    NotParked(Position),
    /// The position is beyond the end of the log.
    #[error("the log ends at position {head}, before position {position}")]
    BeyondHead {
        /// The requested position.
        position: Position,
        /// The end of the log.
        head: Position,
    },
    /// It could not be done; nothing has changed.
    #[error("the consumer could not do it; nothing has changed")]
    Failed(#[from] RunError),
    /// The consumer has ended.
    #[error("the consumer has ended")]
    Ended,
}

/// The runner's end.
#[derive(Debug)]
pub(super) struct Control {
    stopping: watch::Receiver<bool>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Received, and to be carried out before anything else.
    pub(super) next: Option<Command>,
}

/// Tells whether the consumer was told to stop.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    pub(crate) fn is_set(&self) -> bool {
        // Without a handle nobody can want it to go on.
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// The handle's end.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) stop: watch::Sender<bool>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

/// Why something was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    Stop,
    Command,
}

impl Control {
    pub(super) fn new() -> (Self, Remote) {
        let (stop, stopping) = watch::channel(false);
        let (commands, received) = mpsc::unbounded_channel();
        (Self { stopping, commands: received, next: None }, Remote { stop, commands })
    }

    pub(super) fn stop_signal(&self) -> StopSignal {
        StopSignal(self.stopping.clone())
    }

    /// Waits until there is something to do; the command is in [`Self::next`].
    pub(super) async fn interrupted(&mut self) -> Interrupt {
        if self.next.is_some() && !*self.stopping.borrow() {
            return Interrupt::Command;
        }
        tokio::select! {
            biased;
            // Dropping the handle stops the consumer too.
            _ = self.stopping.wait_for(|stop| *stop) => Interrupt::Stop,
            command = self.commands.recv() => match command {
                Some(command) => {
                    self.next = Some(command);
                    Interrupt::Command
                }
                None => Interrupt::Stop,
            }
        }
    }
}
