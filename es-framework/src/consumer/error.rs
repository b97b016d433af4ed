//! What can go wrong while a consumer runs.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::DecodeError;
use crate::log::{BoxError, ErrorKind, InvalidName, Position, ProjectionName, SnapshotError, StoreError, StreamId};
use crate::panics;

/// A projection that stopped because it could not continue. Its checkpoint is where it was after the last whole batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The projector's name is not a valid projection name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// [`Projection::start`](crate::Projection::start) was called outside a tokio runtime. Nothing was started.
    #[error(
        "no tokio runtime is current, and a projection that is started runs in a task of one; `catch_up` needs none"
    )]
    NoRuntime,
    /// The log is not the one in which the checkpoint was made: another store, a restored backup, or a lost tail.
    /// Rebuild the read model from the beginning, or restore the right log.
    #[error("projection {name} is at position {position}, but the log was rewound: {reason}")]
    LogRewound {
        /// The projection.
        name: ProjectionName,
        /// The position of its checkpoint.
        position: Position,
        /// How that was detected.
        reason: String,
    },
    /// An event could not be decoded; the projection stopped right before it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The read model rolled back: the projector returned an error or panicked, or another runner took over.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A reactor could not have an effect, or a process manager could not take a step.
    #[error(transparent)]
    Reaction(#[from] ReactionError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One more event would have to be parked, beyond the bound of the policy. The consumer stopped right before it. Look
    /// at the parked events, try them again or drop them, or raise the bound.
    #[error("consumer {name} has {limit} parked events, and the event at position {position} would be one more")]
    TooManyParked {
        /// The consumer.
        name: ProjectionName,
        /// The maximum number of parked events.
        limit: usize,
        /// The event that would be parked.
        position: Position,
    },
    /// A consumer without a checkpoint was to start after a position that the log has not reached.
    #[error("consumer {name} cannot start after position {position}: the log ends at {head}")]
    StartsBeyondHead {
        /// The consumer.
        name: ProjectionName,
        /// Where it was to start.
        position: Position,
        /// The end of the log.
        head: Position,
    },
    /// The read model was built by another projector of this name: of another version, or with tables that look
    /// different. Say with [`Projection::on_change`](crate::Projection::on_change) that it is to be built anew, or use
    /// another name.
    #[error(
        "the read model of {name} was built by {stored} of its projector, this is {current}: say with `on_change` that it is \
         to be built anew, or use another name"
    )]
    ProjectorChanged {
        /// The projection.
        name: ProjectionName,
        /// The projector that has built it: its version, and the fingerprint of its rows.
        stored: String,
        /// This one.
        current: String,
    },
    /// A projection cannot be divided like that.
    #[error("{name} cannot be divided into partitions: {reason}")]
    Partitions {
        /// The projection.
        name: String,
        /// Why not.
        reason: String,
    },
    /// User code panicked outside a transaction, for example when an event or the projector was dropped. Everything
    /// committed before is in the model.
    #[error("the projection panicked: {message}")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// The task that ran the projection ended before the projection did: its runtime was shut down. Everything
    /// committed before is in the model; start the projection again.
    #[error("the task of the projection ended before the projection did: its runtime was shut down")]
    TaskEnded,
}

impl RunError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::NoRuntime
            | Self::StartsBeyondHead { .. }
            | Self::ProjectorChanged { .. }
            | Self::Partitions { .. } => ErrorKind::Caller,
            Self::TooManyParked { .. } | Self::LogRewound { .. } | Self::Decode(_) => ErrorKind::Data,
            Self::Model(error) => error.kind(),
            Self::Reaction(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Panicked { .. } | Self::TaskEnded => ErrorKind::Internal,
        }
    }

    /// The model has lost what it had committed; it is asked again.
    pub(crate) fn behind() -> Self {
        ModelError::failed("the read model has lost what it had committed").into()
    }

    pub(crate) fn panicked(message: String) -> Self {
        Self::Panicked { message }
    }
}

/// What a reactor could not do about an event, or a process manager about an event or a timeout. It may have happened all
/// the same, and is tried again with the same key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReactionError {
    /// The reactor returned an error.
    #[error("the reactor failed at the event at position {position}")]
    Failed {
        /// The position of the event.
        position: Position,
        /// The reactor's error.
        source: BoxError,
    },
    /// The reactor panicked.
    #[error("the reactor panicked at the event at position {position}: {message}")]
    Panicked {
        /// The position of the event.
        position: Position,
        /// The message of the panic.
        message: String,
    },
    /// The reactor took too long, and its future was dropped.
    #[error("the reactor was not done with the event at position {position} after {after:?}")]
    TimedOut {
        /// The position of the event.
        position: Position,
        /// The configured maximum.
        after: Duration,
    },
    /// A timeout of a process manager could not be handled.
    #[error("process {instance} could not handle its timeout {timeout:?}")]
    Timeout {
        /// The stream of the process.
        instance: StreamId,
        /// The name of the timeout.
        timeout: String,
        /// Why not.
        source: BoxError,
    },
}

impl ReactionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { .. } | Self::Timeout { .. } => ErrorKind::Caller,
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::TimedOut { .. } => ErrorKind::Retry,
        }
    }
}

/// A transaction of a read model that was rolled back.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelError {
    /// Another runner of the same projection moved the checkpoint.
    TakenOver {
        /// The projection.
        name: ProjectionName,
        /// The position at which this runner left it.
        expected: Position,
        /// The position at which it was found.
        found: Position,
    },
    /// The read model was built anew meanwhile. The runner begins again.
    Rebuilt {
        /// The projection.
        name: ProjectionName,
    },
    /// The projector refused an event.
    Refused {
        /// The position of the event.
        position: Position,
        /// The projector's error.
        source: BoxError,
    },
    /// The projector could not prepare the model.
    Prepare {
        /// The projector's error.
        source: BoxError,
    },
    /// User code panicked: the projector, or code that saves a state.
    Panicked {
        /// The position of the event that was passed to the projector, if any.
        position: Option<Position>,
        /// The message of the panic.
        message: String,
    },
    /// The model's engine did not allow what was requested.
    NotAllowed {
        /// What is not allowed, and what to do instead.
        source: BoxError,
    },
    /// The transaction cannot be committed because of what was written in it, for example because of a deferred foreign
    /// key in the projector's own tables. A model returns this; a projection finds the event and fails with
    /// [`Self::Refused`].
    CommitRefused {
        /// The error of the model's engine.
        source: BoxError,
    },
    /// A record that the model keeps for its runner does not match its checksum, or is of a newer release. Restore the
    /// model from a backup, or build it anew.
    Damaged {
        /// The key of the record.
        key: String,
    },
    /// The model could not be read or written.
    Failed {
        /// The error of its engine.
        source: BoxError,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenOver { name, expected, found } => {
                write!(f, "projection {name} was taken over: its checkpoint is at {found}, expected {expected}")
            }
            Self::Rebuilt { name } => write!(f, "the read model of {name} was built anew meanwhile"),
            Self::Refused { position, .. } => write!(f, "the projector refused the event at position {position}"),
            Self::Prepare { .. } => f.write_str("the projector could not make its model ready"),
            Self::Panicked { position: Some(position), message } => {
                write!(f, "the projector panicked at the event at position {position}: {message}")
            }
            Self::Panicked { position: None, message } => write!(f, "the projector panicked: {message}"),
            Self::NotAllowed { source } => write!(f, "{source}"),
            Self::CommitRefused { source } => write!(f, "what the projector wrote cannot be committed: {source}"),
            Self::Damaged { key } => {
                write!(f, "the record {key} of the read model is damaged, or of a newer release")
            }
            Self::Failed { source } => write!(f, "the read model failed: {source}"),
        }
    }
}

/// A cause whose text is already in the message is left out of the chain; its own cause follows instead.
impl std::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TakenOver { .. } | Self::Rebuilt { .. } | Self::Panicked { .. } | Self::Damaged { .. } => None,
            Self::Refused { source, .. } | Self::Prepare { source } => Some(&**source),
            Self::NotAllowed { source } | Self::CommitRefused { source } | Self::Failed { source } => source.source(),
        }
    }
}

impl ModelError {
    /// Wraps an error of the model's own engine.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::Failed { source: source.into() }
    }

    /// Wraps the reason why the model's own engine did not allow something.
    pub fn not_allowed(source: impl Into<BoxError>) -> Self {
        Self::NotAllowed { source: source.into() }
    }

    /// Wraps the reason why a transaction could not be committed because of what was written in it.
    pub fn commit_refused(source: impl Into<BoxError>) -> Self {
        Self::CommitRefused { source: source.into() }
    }

    /// The error for a record that cannot be decoded.
    pub fn damaged(key: impl Into<String>) -> Self {
        Self::Damaged { key: key.into() }
    }

    /// The error for a panic, from what `catch_unwind` caught.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::Panicked { position: None, message: panics::message(panic) }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TakenOver { .. } | Self::Rebuilt { .. } => ErrorKind::Conflict,
            Self::Refused { .. } | Self::Prepare { .. } | Self::NotAllowed { .. } | Self::CommitRefused { .. } => {
                ErrorKind::Caller
            }
            Self::Damaged { .. } => ErrorKind::Data,
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::Failed { source } => {
                let store = source.downcast_ref::<StoreError>().map(StoreError::kind);
                let snapshot = || source.downcast_ref::<SnapshotError>().map(SnapshotError::kind);
                store.or_else(snapshot).unwrap_or(ErrorKind::Internal)
            }
        }
    }
}

/// Why a consumer did not reach a position.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The timeout expired.
    #[error("projection {name} reached position {reached} in time, not {wanted}")]
    TimedOut {
        /// The projection.
        name: ProjectionName,
        /// The requested position.
        wanted: Position,
        /// The position it has reached.
        reached: Position,
    },
    /// The projection was stopped before it got there.
    #[error("projection {name} was stopped at position {reached}")]
    Stopped {
        /// The projection.
        name: ProjectionName,
        /// The position it has reached.
        reached: Position,
    },
    /// The projection failed before it got there.
    #[error("projection {name} failed at position {reached}")]
    Failed {
        /// The projection.
        name: ProjectionName,
        /// The position it has reached.
        reached: Position,
        /// Why it could not continue.
        source: Arc<RunError>,
    },
    /// The status of the consumer cannot be read.
    #[error("the status of the consumer cannot be read")]
    Store(#[source] Arc<StoreError>),
}

impl WaitError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TimedOut { .. } => ErrorKind::Retry,
            Self::Stopped { .. } => ErrorKind::Closed,
            Self::Failed { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}
