//! A clock that is turned by hand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::log::{Clock, Timestamp, Turned};

/// A clock that stands still until it is turned; clones are the same clock.
///
/// Give it to a store, and everything that the store's clock decides follows it: the times of events, and whatever waits
/// until a time of that clock, which is woken by each turn. No test has to wait.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use es_framework::testing::ManualClock;
/// use es_framework::{CandidateEvent, ExpectedVersion, Limits, MemoryStore, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let store = MemoryStore::with(Limits::default(), Arc::new(clock.clone()));
/// let alice = store.open_stream("account-alice")?;
///
/// clock.advance(Duration::from_secs(60));
/// let opened = alice.write(CandidateEvent::new("opened", "")?, ExpectedVersion::Any).await?;
/// assert_eq!(opened.time, Timestamp::from_micros(60_000_000));
/// # Ok(()) }
/// ```
///
/// It can be turned back, like the clock of a real machine; the times in the log never go backwards.
#[derive(Debug, Clone)]
pub struct ManualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// Creates a clock that shows the start of 1970.
    pub fn new() -> Self {
        Self::at(Timestamp::default())
    }

    /// Creates a clock that shows this time.
    pub fn at(time: Timestamp) -> Self {
        Self { now: Arc::new(watch::Sender::new(time)) }
    }

    /// Turns it to a time, and wakes whatever waits for one.
    pub fn turn_to(&self, time: Timestamp) {
        self.now.send_replace(time);
    }

    /// Turns it forward, and returns the time it shows then.
    pub fn advance(&self, by: Duration) -> Timestamp {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let mut time = Timestamp::default();
        self.now.send_modify(|now| {
            *now = Timestamp::from_micros(now.as_micros().saturating_add(micros));
            time = *now;
        });
        time
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn turned(&self) -> Turned {
        let mut turns = self.now.subscribe();
        Turned::when(async move {
            if turns.changed().await.is_err() {
                // The last handle is gone: nobody can turn it any more.
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_turn_wakes_whoever_waits_even_if_it_comes_before_the_first_poll() {
        let clock = ManualClock::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut early = pin!(clock.turned());
        let late = pin!(clock.turned());
        assert_eq!(early.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(clock.advance(Duration::from_millis(1)), Timestamp::from_micros(1_000));
        assert_eq!(early.poll(&mut context), Poll::Ready(()));
        assert_eq!(late.poll(&mut context), Poll::Ready(()));
        assert_eq!(pin!(clock.turned()).poll(&mut context), Poll::Pending, "that turn is over");
        clock.turn_to(Timestamp::from_micros(-5));
        assert_eq!(clock.now(), Timestamp::from_micros(-5));
    }

    #[test]
    fn a_clock_that_nobody_can_turn_wakes_nobody() {
        let mut context = Context::from_waker(Waker::noop());
        let mut turned = pin!(ManualClock::new().turned());
        assert_eq!(turned.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(pin!(crate::log::SystemClock.turned()).poll(&mut context), Poll::Pending);
    }

    #[test]
    fn it_stops_at_the_end_of_time() {
        let clock = ManualClock::at(Timestamp::from_micros(i64::MAX - 1));
        assert_eq!(clock.advance(Duration::MAX), Timestamp::from_micros(i64::MAX));
    }
}
