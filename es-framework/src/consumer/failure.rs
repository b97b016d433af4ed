//! What kinds of failures there are, and what is kept of one.

use std::fmt;
use std::sync::Arc;

use super::error::{ModelError, ReactionError, RunError};
use crate::domain::DecodeError;
use crate::log::{ErrorKind, Position, Timestamp};
use crate::panics;

/// What a consumer failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Category {
    /// The user's code returned an error, or wrote what its read model refuses to commit.
    UserCode,
    /// The user's code panicked.
    Panic,
    /// An event's payload cannot be decoded.
    Decode,
    /// An event has a name or a schema version that the type does not know.
    UnknownType,
    /// The read model, or whatever the consumer writes to, is out of order.
    ReadModel,
    /// The log cannot be read, or its checkpoint does not fit it.
    Log,
    /// The consumer itself: it was taken over, its runtime is gone, or it was configured wrongly.
    Consumer,
}

impl Category {
    /// Its name, as it is stored and shown: `user code`, `panic`, `decode`, `unknown type`, `read model`, `log`,
    /// `consumer`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserCode => "user code",
            Self::Panic => "panic",
            Self::Decode => "decode",
            Self::UnknownType => "unknown type",
            Self::ReadModel => "read model",
            Self::Log => "log",
            Self::Consumer => "consumer",
        }
    }

    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::UserCode, Self::Panic, Self::Decode, Self::UnknownType, Self::ReadModel, Self::Log, Self::Consumer];
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RunError {
    /// What failed.
    pub fn category(&self) -> Category {
        match self {
            Self::Decode(error) => category_of(error),
            Self::Panicked { .. } | Self::Reaction(ReactionError::Panicked { .. }) => Category::Panic,
            Self::Store(_) | Self::LogRewound { .. } => Category::Log,
            Self::Reaction(_) => Category::UserCode,
            Self::Model(error) => match error {
                ModelError::Refused { .. }
                | ModelError::Prepare { .. }
                | ModelError::NotAllowed { .. }
                | ModelError::CommitRefused { .. } => Category::UserCode,
                ModelError::Panicked { .. } => Category::Panic,
                ModelError::Failed { .. } | ModelError::Damaged { .. } => Category::ReadModel,
                ModelError::TakenOver { .. } | ModelError::Rebuilt { .. } => Category::Consumer,
            },
            _ => Category::Consumer,
        }
    }

    /// Whether the same may succeed without anybody changing anything about the consumer: a store is busy, its disk is
    /// full, a connection was lost.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error.kind(), ErrorKind::Retry | ErrorKind::Internal),
            Self::Model(error @ ModelError::Failed { .. }) => {
                matches!(error.kind(), ErrorKind::Retry | ErrorKind::Internal)
            }
            _ => false,
        }
    }
}

pub(super) fn category_of(error: &DecodeError) -> Category {
    match error {
        DecodeError::Unknown { .. } => Category::UnknownType,
        DecodeError::Payload { .. } => Category::Decode,
        DecodeError::Panicked { .. } => Category::Panic,
    }
}

/// The last failure of a consumer, whether it has recovered from it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What failed.
    pub category: Category,
    /// The error with its causes, joined by `: `; at most 2,000 bytes.
    pub error: Arc<str>,
    /// The event that could not be processed, if it was one.
    pub position: Option<Position>,
    /// How often it has been tried.
    pub attempts: u32,
    /// When it happened last, by the store's clock.
    pub time: Timestamp,
}

/// The maximum size in bytes of an error's text that is kept.
const TEXT: usize = 2_000;

/// The text of an error and of its causes, for keeping; formatting it may run user code.
pub(crate) fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    let text = panics::catch(|| {
        let mut text = error.to_string();
        for cause in std::iter::successors(error.source(), |cause| cause.source()) {
            text.push_str(": ");
            text.push_str(&cause.to_string());
        }
        text
    });
    let mut text = text.unwrap_or_else(|message| format!("the text of the error panicked: {message}"));
    if text.len() > TEXT {
        let mut end = TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
