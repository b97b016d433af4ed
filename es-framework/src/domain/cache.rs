//! The states a repository remembers between commands.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::decide::Ran;
use super::turns::Turns;
use crate::log::{Position, StreamId, Timestamp, Version};

/// State folded up to a version.
#[derive(Debug)]
pub(super) struct Base<A> {
    pub(super) state: Arc<A>,
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) time: Timestamp,
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

/// A bounded cache with two generations: an entry that is not used while `capacity` others are is forgotten.
pub(super) struct Cache<T> {
    capacity: usize,
    generations: Mutex<Generations<T>>,
}

struct Generations<T> {
    young: HashMap<StreamId, Arc<T>>,
    old: HashMap<StreamId, Arc<T>>,
}

impl<T: Default> Cache<T> {
    /// Creates a cache that remembers between `capacity` and twice `capacity` aggregates.
    pub(super) fn new(capacity: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { capacity, generations: Mutex::new(generations) }
    }

    /// The slot of an aggregate, created if there is none.
    pub(super) fn slot(&self, stream: &StreamId) -> Arc<T> {
        let mut generations = self.lock();
        if let Some(slot) = generations.young.get(stream) {
            return Arc::clone(slot);
        }
        let slot = generations.old.remove(stream).unwrap_or_default();
        if self.capacity > 0 {
            if generations.young.len() >= self.capacity {
                generations.old = std::mem::take(&mut generations.young);
            }
            generations.young.insert(stream.clone(), Arc::clone(&slot));
        }
        slot
    }

    fn lock(&self) -> MutexGuard<'_, Generations<T>> {
        // Forgetting or keeping an entry is always safe, so a poisoned cache is usable.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::<u8>::new(10);
        let kept = cache.slot(&StreamId::new("kept").unwrap());
        for n in 0..1_000 {
            drop(cache.slot(&StreamId::new(format!("s-{n}")).unwrap()));
            assert!(Arc::ptr_eq(&kept, &cache.slot(&StreamId::new("kept").unwrap())));
        }
        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 20);
    }
}
