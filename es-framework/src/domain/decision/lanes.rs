//! Decisions that contend for the same thing line up, so that they do not conflict with each other.
//!
//! A decision is tried without waiting for others. If it loses, its next tries are made in the *lane* of what it lost by
//! (a stream or a query), one at a time with all others that lost by the same; and a decision that finds somebody in a
//! lane of what it reads joins it at once. A lane keeps nobody from writing: it only avoids conflicts.
//!
//! For example, 64 decisions subscribe to one course. All are tried, one is written. The other 63 line up: each finds
//! the state that the one before left in memory, and is written at its second try.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::turns::Turns;
use super::current::Source;
use crate::engine::BoundedMap;

/// The minimum number of lanes that are kept.
const LANES: usize = 1_024;

/// The outcome of a step of a decision of any type.
pub(super) type AnyRan = Box<dyn Any + Send>;

/// Where decisions that contend for one thing take turns.
#[derive(Default)]
struct Lane {
    turns: Arc<Turns<(), AnyRan>>,
    waiting: AtomicUsize,
}

/// The lanes of a store.
pub(super) struct Lanes(Mutex<BoundedMap<Source, Arc<Lane>>>);

impl Default for Lanes {
    fn default() -> Self {
        Self(Mutex::new(BoundedMap::new(LANES)))
    }
}

/// A place in a lane, until it is dropped.
pub(super) struct Place(Arc<Lane>);

impl Lanes {
    /// A place in the lane of the first source for which others are waiting.
    pub(super) fn join_busy<'s>(&self, sources: impl IntoIterator<Item = &'s Source>) -> Option<Place> {
        let mut lanes = self.lanes();
        let busy = |source: &Source| {
            let lane = lanes.get(source)?;
            (lane.waiting.load(Ordering::Relaxed) > 0).then(|| Place::new(lane))
        };
        sources.into_iter().find_map(busy)
    }

    /// A place in the lane of a source.
    pub(super) fn join(&self, source: &Source) -> Place {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(source) {
            return Place::new(lane);
        }
        let lane = Arc::default();
        let place = Place::new(&lane);
        lanes.insert(source.clone(), lane);
        place
    }

    fn lanes(&self) -> MutexGuard<'_, BoundedMap<Source, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn new(lane: &Arc<Lane>) -> Self {
        lane.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(lane))
    }

    /// The turns of the lane.
    pub(super) fn turns(&self) -> &Arc<Turns<(), AnyRan>> {
        &self.0.turns
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
