//! State saved at a place of a stream or of `@all`.

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
    /// The name it is kept under.
    pub name: ProjectionName,
    /// The version of the stream, or the position of `@all`, whose state it is.
    pub at: u64,
    /// Which shape and which `apply` the state comes from; a reader with another one replays.
    pub fingerprint: Fingerprint,
    /// When it was saved; set by the engine.
    pub time: Timestamp,
    /// The state; bytes in are bytes out.
    pub state: Bytes,
}

impl Snapshot {
    /// Makes a snapshot; the engine sets its time when it is saved.
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
