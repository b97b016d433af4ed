//! What a consumer does about a failure.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::failure::Category;
use crate::domain::Envelope;

/// How often something is tried, and how long the pauses in between are.
///
/// Pause *n* is a random time between 0 and `first * 2^(n - 1)`, at most `longest` (exponential backoff with full
/// jitter, as in Marc Brooker's [article](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The maximum number of attempts, the first included.
    pub attempts: NonZeroU32,
    /// The upper bound of the first pause.
    pub first: Duration,
    /// The upper bound of every pause.
    pub longest: Duration,
}

impl Backoff {
    /// A single attempt.
    pub const NONE: Self = Self { attempts: NonZeroU32::MIN, first: Duration::ZERO, longest: Duration::ZERO };

    /// Creates one; at least one attempt is made.
    pub const fn new(attempts: u32, first: Duration, longest: Duration) -> Self {
        let attempts = match NonZeroU32::new(attempts) {
            Some(attempts) => attempts,
            None => NonZeroU32::MIN,
        };
        Self { attempts, first, longest }
    }

    /// The upper bound of the pause after this many failed attempts.
    pub(crate) fn bound(&self, failed: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failed.saturating_sub(1));
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// What to do with an event that still fails after the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Then {
    /// The consumer stops right before the event.
    #[default]
    Stop,
    /// The event is [parked](crate::ParkedEvent) in the same transaction as the checkpoint, and the consumer goes on. Later
    /// events with the same key queue behind it.
    Park,
}

/// What a consumer does about failures.
///
/// | failure of | attempts | first pause | longest pause |
/// |---|---|---|---|
/// | user code, panic | 5 | 50 ms | 5 s |
/// | decode, unknown type | 1: the same bytes decode the same way | | |
/// | read model, log | without end | 100 ms | 30 s |
///
/// An event that still fails after the last attempt stops the consumer ([`Self::then`]), or is parked: then later events
/// of its stream ([`Self::park_by`]) queue behind it, and all others go on. If more than [`Self::parked`] events are
/// parked, queued ones included, the consumer stops with [`RunError::TooManyParked`](super::RunError::TooManyParked).
///
/// A read model or a log that is out of order (busy, disk full, connection lost) is no failure of an event: the consumer
/// waits in [`ConsumerState::Waiting`](super::ConsumerState::Waiting), with the pauses of the last row, and goes on when
/// it is back.
#[derive(Clone)]
#[non_exhaustive]
pub struct Policy {
    /// For errors of the user's code.
    pub user_code: Backoff,
    /// For panics of the user's code.
    pub panic: Backoff,
    /// For a read model or a log that is out of order; its number of attempts is not used.
    pub outage: Backoff,
    /// What comes after the last attempt; by default the consumer stops.
    pub then: Then,
    /// The maximum number of parked events, 10,000 by default.
    pub parked: usize,
    key: Option<Arc<Key>>,
    /// Makes the pauses the same in every run, for tests; random by default.
    pub seed: Option<u64>,
}

type Key = dyn Fn(Envelope<'_>) -> String + Send + Sync;

impl Default for Policy {
    fn default() -> Self {
        let code = Backoff::new(5, Duration::from_millis(50), Duration::from_secs(5));
        let outage = Backoff::new(u32::MAX, Duration::from_millis(100), Duration::from_secs(30));
        Self { user_code: code, panic: code, outage, then: Then::Stop, parked: 10_000, key: None, seed: None }
    }
}

impl Policy {
    /// Retries nothing and stops at the first failure of an event.
    pub fn stop_at_once() -> Self {
        Self { user_code: Backoff::NONE, panic: Backoff::NONE, ..Self::default() }
    }

    /// Parks events that still fail after the last attempt, and goes on.
    pub fn park() -> Self {
        Self { then: Then::Park, ..Self::default() }
    }

    /// Keeps the order of events with the same key behind a parked one, rather than that of events of the same stream.
    #[must_use]
    pub fn park_by(mut self, key: impl Fn(Envelope<'_>) -> String + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    /// The key within which the order of an event is kept.
    pub(crate) fn key(&self, event: Envelope<'_>) -> String {
        self.key.as_ref().map_or_else(|| event.stream().as_str().to_owned(), |key| key(event))
    }

    /// The attempts and pauses for a category.
    pub fn backoff(&self, category: Category) -> Backoff {
        match category {
            Category::UserCode => self.user_code,
            Category::Panic => self.panic,

            Category::ReadModel | Category::Log => self.outage,
            Category::Decode | Category::UnknownType | Category::Consumer => Backoff::NONE,
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("user_code", &self.user_code)
            .field("panic", &self.panic)
            .field("outage", &self.outage)
            .field("then", &self.then)
            .field("parked", &self.parked)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Random pauses: splitmix64, which is enough to spread retries.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self(seed.unwrap_or_else(|| RandomState::new().hash_one(0)))
    }

    /// The pause after this many failed attempts.
    pub(crate) fn pause(&mut self, backoff: &Backoff, failed: u32) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(backoff.bound(failed).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(if bound == u64::MAX { mixed } else { mixed % (bound + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_the_same_for_a_seed() {
        let backoff = Backoff::new(9, Duration::from_millis(50), Duration::from_secs(1));
        assert_eq!([1, 2, 3, 5, 6, 99].map(|n| backoff.bound(n).as_millis()), [50, 100, 200, 800, 1_000, 1_000]);
        let pauses = |seed| {
            let mut jitter = Jitter::new(Some(seed));
            (1..=100).map(|n| jitter.pause(&backoff, n)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
        assert!(pauses(7).iter().zip(1..).all(|(pause, n)| *pause <= backoff.bound(n)));
        assert!(pauses(7).iter().any(|pause| *pause > Duration::from_millis(500)), "not always short");
        assert_eq!(Jitter::new(Some(1)).pause(&Backoff::NONE, 3), Duration::ZERO);
    }
}
