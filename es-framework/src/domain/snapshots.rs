//! Saving the state of an aggregate as a snapshot, and restoring it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{debug, warn};

use super::aggregate::{Aggregate, Apply};
use super::cache::Base;
use super::repository::Inner;
use super::state::StateError;
use crate::log::observer::SnapshotResult;
use crate::log::{Position, ProjectionName, Snapshot, SnapshotError, StreamId, Timestamp, Version};

/// A state that could not be saved. [`Inner::save_if_due`] counts it, logs it and decides whether to try again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    /// The state cannot be encoded, or does not decode to the same state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store did not accept the snapshot.
    #[error("the store did not accept the snapshot")]
    Store(#[from] SnapshotError),
}

impl<A: Aggregate + Apply> Inner<A> {
    /// The state of a snapshot, unless it is unusable, which is logged and counted.
    pub(super) fn restore(&self, snapshot: &Snapshot) -> Result<Base<A>, SnapshotResult> {
        let Some((snapshots, fingerprint)) = &self.snapshots else { return Err(SnapshotResult::NotAsked) };
        if snapshot.fingerprint != *fingerprint {
            self.counters.outdated.fetch_add(1, Ordering::Relaxed);
            debug!(stream = %snapshot.stream, at = snapshot.at, "snapshot is of another shape or `apply`: replaying");
            return Err(SnapshotResult::Outdated);
        }
        match SavedState::parse(&snapshot.state).map(|saved| (saved, snapshots.from_saved(saved.state))) {
            Some((saved, Ok(state))) => {
                self.counters.used.fetch_add(1, Ordering::Relaxed);
                Ok(Base {
                    state: Arc::new(state),
                    version: Version::new(snapshot.at),
                    position: saved.position,
                    time: saved.time,
                    current_at: saved.position,
                    snapshot_at: Arc::new(AtomicU64::new(snapshot.at)),
                })
            }
            Some((_, Err(StateError::OtherState))) => {
                self.counters.outdated.fetch_add(1, Ordering::Relaxed);
                debug!(stream = %snapshot.stream, at = snapshot.at, "snapshot is of another state: replaying");
                Err(SnapshotResult::Outdated)
            }
            unreadable => {
                self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                let error = unreadable.and_then(|(_, decoded)| decoded.err()).map(|error| error.to_string());
                warn!(stream = %snapshot.stream, at = snapshot.at, error, "snapshot cannot be read: replaying");
                Err(SnapshotResult::Unreadable)
            }
        }
    }

    /// Saves the state, whether it is due or not.
    pub(super) async fn save(&self, stream: &StreamId, base: &Base<A>) -> Result<(), SaveError> {
        // Never called for an aggregate without snapshots.
        let Some((snapshots, fingerprint)) = &self.snapshots else { return Ok(()) };
        let encoded = snapshots.to_saved(&base.state);
        if matches!(encoded, Err(StateError::Unfaithful { .. })) {
            self.counters.unfaithful.fetch_add(1, Ordering::Relaxed);
        }
        let state = encoded?;
        let state = SavedState { position: base.position, time: base.time, state: &state }.to_bytes();
        let snapshot = Snapshot::new(stream.clone(), snapshot_name(), base.version.get(), *fingerprint, state);
        Ok(self.store.engine().save_snapshot(snapshot).await?)
    }
}

/// The content of an aggregate's snapshot: the position and time of the newest event, which only its envelope holds,
/// followed by the state.
#[derive(Clone, Copy)]
struct SavedState<'a> {
    position: Position,
    time: Timestamp,
    state: &'a [u8],
}

impl<'a> SavedState<'a> {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.state.len());
        bytes.extend(self.position.get().to_le_bytes());
        bytes.extend(self.time.as_micros().to_le_bytes());
        bytes.extend(self.state);
        bytes
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (position, rest) = bytes.split_first_chunk()?;
        let (time, state) = rest.split_first_chunk()?;
        let position = Position::new(u64::from_le_bytes(*position));
        Some(Self { position, time: Timestamp::from_micros(i64::from_le_bytes(*time)), state })
    }
}

/// The name under which aggregates' snapshots are kept.
pub(super) fn snapshot_name() -> ProjectionName {
    ProjectionName::new("aggregate").expect("the name is short and has no control characters")
}
