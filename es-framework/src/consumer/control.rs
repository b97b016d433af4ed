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
    /// Nothing but to note that it was seen.
    Acknowledge,
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
    /// Names the wish that it comes from.
    pub(super) token: Option<String>,
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
    /// Another runner owns the consumer's name: ask that one, or leave a wish in the store.
    #[error("the consumer stands by for another runner, which owns its name")]
    StandingBy,
    /// The consumer has ended.
    #[error("the consumer has ended")]
    Ended,
}

/// What the heartbeat has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Alarm {
    #[default]
    None,
    /// The lease of this term is lost.
    Lost(u64),
    /// The store was closed.
    Closed,
}

/// The runner's end.
#[derive(Debug)]
pub(super) struct Control {
    stopping: watch::Receiver<bool>,
    commands: mpsc::UnboundedReceiver<Command>,
    alarm: watch::Receiver<Alarm>,
    /// The term of the lease that is held.
    pub(super) term: Option<u64>,
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
    /// The lease is lost.
    Lost,
    /// The store was closed.
    Closed,
}

impl Control {
    pub(super) fn new() -> (Self, Remote, watch::Sender<Alarm>) {
        let (stop, stopping) = watch::channel(false);
        let (commands, received) = mpsc::unbounded_channel();
        let (alarm, alarmed) = watch::channel(Alarm::None);
        let control = Self { stopping, commands: received, alarm: alarmed, term: None, next: None };
        (control, Remote { stop, commands }, alarm)
    }

    pub(super) fn stop_signal(&self) -> StopSignal {
        StopSignal(self.stopping.clone())
    }

    /// Waits until there is something to do; a command is in [`Self::next`].
    pub(super) async fn interrupted(&mut self) -> Interrupt {
        if self.next.is_some() && !*self.stopping.borrow() {
            return Interrupt::Command;
        }
        let term = self.term;
        tokio::select! {
            biased;
            // Dropping the handle stops the consumer too.
            _ = self.stopping.wait_for(|stop| *stop) => Interrupt::Stop,
            interrupt = alarmed(&mut self.alarm, term) => interrupt,
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

/// Waits until the lease of this term is lost or the store is closed.
async fn alarmed(alarm: &mut watch::Receiver<Alarm>, term: Option<u64>) -> Interrupt {
    let alarmed = alarm.wait_for(|alarm| match alarm {
        Alarm::None => false,
        Alarm::Lost(lost) => Some(*lost) == term,
        Alarm::Closed => true,
    });
    match alarmed.await.map(|alarm| *alarm) {
        Ok(Alarm::Closed) => Interrupt::Closed,
        Ok(Alarm::None | Alarm::Lost(_)) => Interrupt::Lost,
        // There is no heartbeat, or no longer.
        Err(_) => std::future::pending().await,
    }
}
