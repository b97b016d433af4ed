//! What another process wants of a consumer: a wish in the store, which its runner looks at.

use serde::{Deserialize, Serialize};

use super::control::Request;
use crate::log::Position;

/// The cell `consumer/<name>/want`: whether the consumer is to pause, and one thing to do.
///
/// Whether to pause is a state: a runner that starts while it is wanted does nothing. The other is an act: it is carried
/// out once, and its token is kept in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Names this wish.
    pub(super) token: String,
    pub(super) paused: bool,
    pub(super) act: Option<Act>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Act {
    Reset,
    SetPosition(u64),
    RetryParked { key: Option<String> },
    DropParked { position: u64, who: String, why: String },
}

impl Act {
    pub(super) fn request(&self) -> Request {
        match self {
            Self::Reset => Request::Reset,
            Self::SetPosition(position) => Request::Move(Position::new(*position)),
            Self::RetryParked { key } => Request::Retry(key.clone()),
            Self::DropParked { position, who, why } => {
                Request::Drop { position: Position::new(*position), who: who.clone(), why: why.clone() }
            }
        }
    }
}
