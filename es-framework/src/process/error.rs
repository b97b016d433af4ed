//! Why a step of a process was not taken.

use crate::domain::{DecodeError, EncodeError, KeyError};
use crate::log::{AppendError, BoxError, InvalidMetadata, InvalidName, Position, StoreError, StreamId, Version};

/// Why a step of a process was not taken, or its commands were not executed. It is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// An instance's id, together with the process's name, or an aggregate's id is not a valid stream id.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The process failed the step; see [`Actions::fail`](crate::Actions::fail).
    #[error("process {stream} failed: {reason}")]
    Failed {
        /// The stream of the process.
        stream: StreamId,
        /// The reason that it named.
        reason: String,
    },
    /// A command was rejected, and is tried again; see [`OnRejection::Retry`](crate::OnRejection::Retry).
    #[error("{stream} rejected the command {command:?}")]
    Rejected {
        /// The stream of the aggregate.
        stream: StreamId,
        /// The stored name of the command.
        command: String,
        /// The rejection.
        source: BoxError,
    },
    /// A command could not be executed for another reason than a rejection.
    #[error("the command {command:?} on {stream} could not be executed")]
    Execute {
        /// The stream of the aggregate.
        stream: StreamId,
        /// The stored name of the command.
        command: String,
        /// The [`ExecuteError`](crate::ExecuteError).
        source: BoxError,
    },
    /// A command has no fingerprint, or no valid name.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// After a crash the process was asked again for the commands of a step that was written, and named others. Nothing
    /// was executed. Go back to the program that wrote the step, or make the process
    /// [repeatable](crate::ProcessManager#repeatable).
    #[error("process {stream} decides otherwise than when its step {version} was written")]
    NotRepeatable {
        /// The stream of the process.
        stream: StreamId,
        /// The version of the step.
        version: Version,
    },
    /// The event that led to a step is not in the log any more, and the commands of the step cannot be found out.
    #[error("the event at position {position}, which led to a step of process {stream}, is gone")]
    CauseGone {
        /// The stream of the process.
        stream: StreamId,
        /// The position of the event.
        position: Position,
    },
    /// An event of the process's stream was not written by a process.
    #[error("the event of {stream} at version {version} is not the step of a process")]
    NotAStep {
        /// The stream of the process.
        stream: StreamId,
        /// The version of the event.
        version: Version,
    },
    /// A state, or the event that led to a step, could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The state could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The encoded state could not be decoded, so it was not written.
    #[error("a state that could never be read again was not written")]
    Unreadable(#[source] DecodeError),
    /// The step cannot be written as metadata.
    #[error(transparent)]
    Metadata(#[from] InvalidMetadata),
    /// The step could not be written.
    #[error(transparent)]
    Append(AppendError),
    /// Other owners of the process were faster each time.
    #[error("process {stream} is changed by others all the time")]
    Contended {
        /// The stream of the process.
        stream: StreamId,
    },
    /// The log could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for ProcessError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(error) => Self::Store(error),
            error => Self::Append(error),
        }
    }
}
