//! State saved at a place in a stream or in `@all`.

use bytes::Bytes;

use super::append::Fingerprint;
use super::name::{ProjectionName, StreamId};
use super::time::Timestamp;

/// State saved at a version of a stream, or at a position of `@all`, under a projection name.
///
/// There is one snapshot per stream and name: saving an older one over a newer one does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The stream, or `@all`.
    pub stream: StreamId,
    /// The name it is stored under.
    pub name: ProjectionName,
    /// The version of the stream, or the position of `@all`, at which the state was taken.
    pub at: u64,
    /// Identifies the shape and the `apply` that produced the state; a reader with another fingerprint replays.
    pub fingerprint: Fingerprint,
    /// When it was saved; set by the engine.
    pub time: Timestamp,
    /// The state, stored byte for byte.
    pub state: Bytes,
}

impl Snapshot {
    /// Creates a snapshot; the engine sets its time when it is saved.
    pub fn new(
        stream: StreamId,
        name: ProjectionName,
        at: u64,
        fingerprint: Fingerprint,
        state: impl Into<Bytes>,
    ) -> Self {
        Self { stream, name, at, fingerprint, time: Timestamp::default(), state: state.into() }
    }
}
