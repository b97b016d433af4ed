//! What a handle tells its runner.

use tokio::sync::{mpsc, oneshot, watch};

use super::status::IllegalTransition;

/// What a handle asks of its runner.
#[derive(Debug)]
pub(super) enum Request {
    Pause,
    Resume,
}

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<(), ControlError>>,
}

/// Why a consumer did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It cannot go from its state to the requested one.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The consumer ended before it got to it.
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
