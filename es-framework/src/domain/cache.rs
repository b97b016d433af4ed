//! The states a repository remembers between commands.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::decide::Ran;
use super::turns::Turns;
use crate::engine::BoundedMap;
use crate::log::{Position, StreamId, Timestamp, Version};

/// State folded up to a version.
#[derive(Debug)]
pub struct Base<A> {
    pub(super) state: Arc<A>,
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) time: Timestamp,
    /// The log has been folded up to here: no event of it between `position` and this one changes the state.
    pub(super) current_at: Position,
    /// The version of the newest snapshot that is known or being saved.
    pub(super) snapshot_at: Arc<AtomicU64>,
}

impl<A> Clone for Base<A> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            version: self.version,
            position: self.position,
            time: self.time,
            current_at: self.current_at,
            snapshot_at: Arc::clone(&self.snapshot_at),
        }
    }
}

/// What a repository remembers about one aggregate. It is never trusted: every write is checked against the log.
pub(super) struct Slot<A> {
    /// Commands of one repository on one aggregate take turns, so that they do not conflict with each other.
    pub(super) turns: Arc<Turns<Memory<A>, Ran<A>>>,
    /// The state that was last loaded for a repeated command, so that the next one can continue from its version.
    pub(super) past: Mutex<Option<Base<A>>>,
}

impl<A: Send + Sync + 'static> Default for Slot<A> {
    fn default() -> Self {
        Self { turns: Arc::default(), past: Mutex::default() }
    }
}

/// The newest known state.
pub(super) struct Memory<A> {
    pub(super) base: Option<Base<A>>,
    /// Whether the result of an append suggests that it is behind the log.
    pub(super) is_stale: bool,
}

impl<A> Default for Memory<A> {
    fn default() -> Self {
        Self { base: None, is_stale: false }
    }
}

/// A bounded cache: an entry that is not used while `capacity` others are is forgotten.
pub(super) struct Cache<T> {
    capacity: usize,
    slots: Mutex<BoundedMap<StreamId, Arc<T>>>,
}

impl<T: Default> Cache<T> {
    /// Creates a cache that remembers between `capacity` and twice `capacity` aggregates.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, slots: Mutex::new(BoundedMap::new(capacity)) }
    }

    /// The slot of an aggregate, created if there is none.
    pub(super) fn slot(&self, stream: &StreamId) -> Arc<T> {
        if self.capacity == 0 {
            return Arc::default();
        }
        // Forgetting or keeping an entry is always safe, so a poisoned cache is usable.
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(stream) {
            return Arc::clone(slot);
        }
        let slot = Arc::<T>::default();
        slots.insert(stream.clone(), Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_what_is_asked_for_and_nothing_without_capacity() {
        let cache = Cache::<u8>::new(10);
        let slot = |name: &str| cache.slot(&StreamId::new(name).unwrap());
        let kept = slot("kept");
        let forgotten = Arc::downgrade(&slot("forgotten"));
        for n in 0..1_000 {
            drop(slot(&format!("s-{n}")));
            assert!(Arc::ptr_eq(&kept, &slot("kept")));
        }
        assert!(forgotten.upgrade().is_none());
        let none = Cache::<u8>::new(0);
        let stream = StreamId::new("kept").unwrap();
        assert!(!Arc::ptr_eq(&none.slot(&stream), &none.slot(&stream)));
    }
}
