//! Waiting that ends, whatever happens.

use std::fmt::Write as _;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::consumer::{Running, WaitError};
use crate::log::Position;
use crate::panics;

/// Runs a test in a thread of its own with a runtime of its own, and waits for it no longer than `timeout`.
///
/// It returns in time even if the test blocks its thread, which no timer inside of it could do anything about.
///
/// ```
/// use std::time::Duration;
///
/// let sum = es_framework::testing::bounded("adding up", Duration::from_secs(10), async || 1 + 1);
/// assert_eq!(sum, 2);
/// ```
///
/// # Panics
///
/// With the panic of the test; or, with `what` in the message, if it has not ended in time. Its thread is left behind.
pub fn bounded<T: Send + 'static>(what: &str, timeout: Duration, test: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let spawned = thread::Builder::new().name("bounded".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.expect("the operating system can start a runtime").block_on(test());
        // Whoever waited has given up.
        drop(done.send(result));
    });
    let thread = spawned.expect("the operating system can start a thread");
    match ended.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what} did not end within {timeout:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => panic!("{what} ended without a result"),
        },
    }
}

/// Consumers that did not get where they should, each with what it was doing instead.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotCaughtUp {
    /// Why each of them did not.
    pub waits: Vec<WaitError>,
    /// What each of them was doing, as text.
    states: Vec<String>,
}

impl std::fmt::Display for NotCaughtUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.states.join("; "))
    }
}

impl std::error::Error for NotCaughtUp {}

/// Waits until all these consumers have reached a position, all together no longer than `timeout`.
///
/// ```
/// # use es_framework::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: u64 }
/// # #[derive(Debug, Default, Serialize, Deserialize)] struct Total { cents: u64 }
/// # struct Totals;
/// # impl Projector for Totals {
/// #     type Event = Deposited; type Model = StateModel<Total>; type Error = std::convert::Infallible;
/// #     const NAME: &'static str = "totals";
/// #     fn project(&self, event: &Recorded<Deposited>, total: &mut StateTx<'_, Total>) -> Result<(), Self::Error> {
/// #         total.cents += event.cents; Ok(()) } }
/// use std::time::Duration;
///
/// use es_framework::testing::caught_up;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::from(MemoryStore::new());
/// let totals = Projection::new(&store, Totals, StateModel::new(&store)).start().await?;
/// let written = store.open_stream("account-a")?.write(Deposited { cents: 5 }.encode()?, ExpectedVersion::Any).await?;
/// caught_up([&totals], written.position, Duration::from_secs(5)).await?;
///
/// let late = caught_up([&totals], Position::new(7), Duration::from_millis(1)).await.unwrap_err();
/// assert_eq!(late.to_string(), "totals is live at position 1, and 6 positions are missing");
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`NotCaughtUp`] names those that did not, their states, and the last failure of each.
///
/// # Cancel safety
///
/// Dropping the future has no effect.
pub async fn caught_up(
    consumers: impl IntoIterator<Item = &Running>,
    position: Position,
    timeout: Duration,
) -> Result<(), NotCaughtUp> {
    let until = Instant::now() + timeout;
    let (mut waits, mut states) = (Vec::new(), Vec::new());
    for consumer in consumers {
        let left = until.saturating_duration_since(Instant::now());
        if let Err(error) = consumer.wait_for(position, left).await {
            waits.push(error);
            states.push(description(consumer, position));
        }
    }
    if waits.is_empty() { Ok(()) } else { Err(NotCaughtUp { waits, states }) }
}

fn description(consumer: &Running, wanted: Position) -> String {
    let status = consumer.status();
    let missing = wanted.get().saturating_sub(status.position.get());
    let mut text = format!(
        "{} is {} at position {}, and {missing} positions are missing",
        consumer.name(),
        status.state,
        status.position
    );
    if let Some(failure) = &status.last_failure {
        let _ = write!(text, "; last failure ({}): {}", failure.category, failure.error);
    } else if let Some(error) = &status.error {
        // Formatting an error may run user code.
        let error = panics::catch(|| error.to_string()).unwrap_or_else(|panic| format!("its text panicked: {panic}"));
        let _ = write!(text, "; {error}");
    }
    text
}

/// Looks again and again until something holds, no longer than `timeout`: for what nobody can wait for otherwise. Between
/// two looks it lets others work for a millisecond.
///
/// # Errors
///
/// [`NotInTime`] with `what`.
///
/// # Cancel safety
///
/// Dropping the future has no effect of its own; a running look is dropped.
pub async fn eventually<F>(what: &str, timeout: Duration, mut look: impl FnMut() -> F) -> Result<(), NotInTime>
where
    F: Future<Output = bool>,
{
    let until = Instant::now() + timeout;
    let timer = crate::consumer::Timer::default();
    loop {
        let holds = tokio::select! {
            biased;
            holds = look() => holds,
            () = timer.at(Some(until)) => false,
        };
        if holds {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(NotInTime { what: what.to_owned(), timeout });
        }
        timer.at(Some(Instant::now() + Duration::from_millis(1))).await;
    }
}

/// Something that did not happen in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not happen within {timeout:?}")]
#[non_exhaustive]
pub struct NotInTime {
    /// What should have happened.
    pub what: String,
    /// How long it was waited for.
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_test_that_blocks_its_thread_is_given_up() {
        let (_keep, never) = mpsc::channel::<()>();
        let blocked = catch_unwind(|| bounded("the blocked one", SHORT, async move || never.recv().is_ok()));
        assert_eq!(panics::message(&*blocked.unwrap_err()), "the blocked one did not end within 20ms");
    }

    #[test]
    fn a_test_that_panics_panics_here() {
        let panicked = catch_unwind(|| bounded("it", Duration::from_secs(60), async || panic!("its own words")));
        assert_eq!(panics::message(&*panicked.unwrap_err()), "its own words");
    }

    #[tokio::test]
    async fn what_never_happens_and_what_never_answers_is_given_up() {
        let never = eventually("the moon falls", SHORT, async || false).await.unwrap_err();
        assert_eq!(never.to_string(), "the moon falls did not happen within 20ms");
        eventually("an answer", SHORT, std::future::pending::<bool>).await.unwrap_err();
        let mut looks = 0;
        let third = eventually("a third look", Duration::from_secs(60), || {
            looks += 1;
            std::future::ready(looks == 3)
        });
        third.await.unwrap();
    }
}
