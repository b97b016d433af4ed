//! What can go wrong while a projection runs.

use std::any::Any;
use std::sync::Arc;

use crate::domain::DecodeError;
use crate::log::{BoxError, ErrorKind, InvalidName, Position, ProjectionName, SnapshotError, StoreError};
use crate::panics;

/// A projection that stopped because it could not go on. Its checkpoint is where it was after the last whole batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The projector's name is no valid projection name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// [`Projection::start`](super::Projection::start) was called where no tokio runtime is current. Nothing was begun.
    #[error("no tokio runtime is current, and a projection that is started runs in a task of one; `catch_up` needs none")]
    NoRuntime,
    /// The log is not the one the checkpoint was taken in: another store, a restored backup, or a lost tail. Rebuild the
    /// read model from the beginning, or bring back the right log.
    #[error("projection {name} is at position {position}, but the log was rewound: {reason}")]
    LogRewound {
        /// The projection.
        name: ProjectionName,
        /// The position of its checkpoint.
        position: Position,
        /// How that was noticed.
        reason: String,
    },
    /// An event could not be decoded; the projection stands right before it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The read model rolled back: the projector refused, it panicked, or somebody else took over.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Code that a user wrote panicked outside of a transaction, for example as an event or the projector was dropped.
    /// What was committed before is in the model.
    #[error("the projection panicked: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// The task that ran the projection ended before the projection did: its runtime was shut down. What was committed
    /// before is in the model; start the projection again.
    #[error("the task of the projection ended before the projection did: its runtime was shut down")]
    TaskEnded,
}

impl RunError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) | Self::NoRuntime => ErrorKind::Caller,
            Self::LogRewound { .. } | Self::Decode(_) => ErrorKind::Data,
            Self::Model(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Panicked { .. } | Self::TaskEnded => ErrorKind::Internal,
        }
    }

    pub(super) fn panicked(message: String) -> Self {
        Self::Panicked { message }
    }
}

/// A transaction of a read model that was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The checkpoint was moved by somebody else, who runs the same projection.
    #[error("projection {name} was taken over: its checkpoint is at {found}, expected {expected}")]
    TakenOver {
        /// The projection.
        name: ProjectionName,
        /// The position this runner left it at.
        expected: Position,
        /// The position it was found at.
        found: Position,
    },
    /// The projector refused an event.
    #[error("the projector refused the event at position {position}")]
    Refused {
        /// The position of the event.
        position: Position,
        /// What the projector said.
        source: BoxError,
    },
    /// The model's engine refused what the projector wrote when the transaction was committed, for example because of a
    /// deferred foreign key of the projector's own tables.
    #[error("what the projector wrote{} could not be committed", at(*position))]
    CommitRefused {
        /// The position of the event, once the runner has found it out: events before it can be committed, together with
        /// this one they cannot. A model returns [`None`].
        position: Option<Position>,
        /// What the engine said.
        source: BoxError,
    },
    /// The projector could not make the model ready.
    #[error("the projector could not make its model ready")]
    Prepare {
        /// What the projector said.
        source: BoxError,
    },
    /// Code that a user wrote panicked: the projector, or what saves a state.
    #[error("the projector panicked{}: {message}", at(*position))]
    Panicked {
        /// The position of the event the projector was given, if it was given one.
        position: Option<Position>,
        /// The message of the panic.
        message: String,
    },
    /// The model could not be read or written.
    #[error("the read model failed")]
    Failed {
        /// What its engine said.
        source: BoxError,
    },
}

fn at(position: Option<Position>) -> String {
    position.map(|position| format!(" at the event at position {position}")).unwrap_or_default()
}

impl ModelError {
    /// Wraps what a model's own engine said.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::Failed { source: source.into() }
    }

    /// The error for a panic, from what `catch_unwind` caught.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked { position: None, message: panics::message(panic) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TakenOver { .. } => ErrorKind::Conflict,
            Self::Refused { .. } | Self::CommitRefused { .. } | Self::Prepare { .. } => ErrorKind::Caller,
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::Failed { source } => {
                let store = source.downcast_ref::<StoreError>().map(StoreError::kind);
                let snapshot = || source.downcast_ref::<SnapshotError>().map(SnapshotError::kind);
                store.or_else(snapshot).unwrap_or(ErrorKind::Internal)
            }
        }
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
