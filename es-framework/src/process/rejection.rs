//! What becomes of a command that its aggregate rejects.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::log::{CommandKey, StreamId};

/// A command that was rejected, as the process's stream remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rejected {
    /// The stored name of the command.
    pub command: String,
    /// The stream of the aggregate that rejected it.
    pub stream: StreamId,
    /// The command's key.
    pub key: CommandKey,
    /// The text of the rejection, or what [`OnRejection::Handle`] says instead.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, stream, reason, .. } = self;
        write!(f, "{stream} rejected the command {command:?}: {reason}")
    }
}

/// What to do about a rejected command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRejection {
    /// Call [`ProcessManager::rejected`](crate::ProcessManager::rejected) with this as the reason.
    Handle(String),
    /// Go on with the next command. If the process is killed before the step is finished, the command is tried once more.
    Ignore,
    /// Try again later, as the [`Policy`](crate::Policy) says for errors of user code. The commands before it are not
    /// executed again.
    Retry,
}
