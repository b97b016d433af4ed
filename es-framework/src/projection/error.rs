//! What can go wrong while a projection runs.

use std::any::Any;
use std::fmt;
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
    #[error(
        "no tokio runtime is current, and a projection that is started runs in a task of one; `catch_up` needs none"
    )]
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
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelError {
    /// The checkpoint was moved by somebody else, who runs the same projection.
    TakenOver {
        /// The projection.
        name: ProjectionName,
        /// The position this runner left it at.
        expected: Position,
        /// The position it was found at.
        found: Position,
    },
    /// The projector refused an event.
    Refused {
        /// The position of the event.
        position: Position,
        /// What the projector said.
        source: BoxError,
    },
    /// The projector could not make the model ready.
    Prepare {
        /// What the projector said.
        source: BoxError,
    },
    /// Code that a user wrote panicked: the projector, or what saves a state.
    Panicked {
        /// The position of the event the projector was given, if it was given one.
        position: Option<Position>,
        /// The message of the panic.
        message: String,
    },
    /// The model's engine did not allow what it was asked for.
    NotAllowed {
        /// What is not allowed, and what to do instead.
        source: BoxError,
    },
    /// What was done in the transaction cannot be committed, for example because of a deferred foreign key of the
    /// projector's own tables. A model returns it; a projection finds the event and fails with [`Self::Refused`].
    CommitRefused {
        /// What the model's engine said.
        source: BoxError,
    },
    /// The model could not be read or written.
    Failed {
        /// What its engine said.
        source: BoxError,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenOver { name, expected, found } => {
                write!(f, "projection {name} was taken over: its checkpoint is at {found}, expected {expected}")
            }
            Self::Refused { position, .. } => write!(f, "the projector refused the event at position {position}"),
            Self::Prepare { .. } => f.write_str("the projector could not make its model ready"),
            Self::Panicked { position: Some(position), message } => {
                write!(f, "the projector panicked at the event at position {position}: {message}")
            }
            Self::Panicked { position: None, message } => write!(f, "the projector panicked: {message}"),
            Self::NotAllowed { source } => write!(f, "{source}"),
            Self::CommitRefused { source } => write!(f, "what the projector wrote cannot be committed: {source}"),
            Self::Failed { source } => write!(f, "the read model failed: {source}"),
        }
    }
}

/// A cause that the message says already is left out of the chain: there its own cause follows.
impl std::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TakenOver { .. } | Self::Panicked { .. } => None,
            Self::Refused { source, .. } | Self::Prepare { source } => Some(&**source),
            Self::NotAllowed { source } | Self::CommitRefused { source } | Self::Failed { source } => source.source(),
        }
    }
}

impl ModelError {
    /// Wraps what a model's own engine said.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::Failed { source: source.into() }
    }

    /// Wraps why a model's own engine did not allow something.
    pub fn not_allowed(source: impl Into<BoxError>) -> Self {
        Self::NotAllowed { source: source.into() }
    }

    /// Wraps why a transaction could not be committed because of what was done in it.
    pub fn commit_refused(source: impl Into<BoxError>) -> Self {
        Self::CommitRefused { source: source.into() }
    }

    /// The error for a panic, from what `catch_unwind` caught.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked { position: None, message: panics::message(panic) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TakenOver { .. } => ErrorKind::Conflict,
            Self::Refused { .. } | Self::Prepare { .. } | Self::NotAllowed { .. } | Self::CommitRefused { .. } => {
                ErrorKind::Caller
            }
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
