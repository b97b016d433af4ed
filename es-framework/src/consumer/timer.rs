//! Waiting until a point in time, on any executor.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::panics;

/// How long the thread stays alive with no waits: the next one is likely to come soon, and a thread costs more than a
/// wait.
const LINGERS: Duration = Duration::from_secs(1);

/// Wakes futures when their time is up. Clones share a thread, which starts with the first wait and ends soon after the
/// last.
///
/// Tokio's timer is not used: it panics in a runtime without one, and with paused time it jumps ahead whenever all
/// tasks wait, even while a consumer's work is under way on another thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waits: Mutex<Waits>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waits {
    by_time: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    /// When the thread will wake up by itself; [`None`] while there is no thread.
    looks_at: Option<Instant>,
}

impl Timer {
    /// The timer of the whole process.
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Timer> = OnceLock::new();
        SHARED.get_or_init(Self::default).clone()
    }

    /// A future that is ready at `at`, or never if that is [`None`].
    pub(crate) fn at(&self, at: Option<Instant>) -> Deadline {
        Deadline { timer: self.clone(), at, id: None }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        // Nothing in here panics half-way through a change, so poisoned waits are consistent.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_until_nobody_waits(&self) {
        let mut waits = self.lock();
        loop {
            let now = Instant::now();
            let later = waits.by_time.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut waits.by_time, later);
            if !due.is_empty() {
                drop(waits);
                for waker in due.into_values() {
                    // This is the executor's code: its panic must not cost the others their wake-ups.
                    drop(panics::catch(|| waker.wake()));
                }
                waits = self.lock();
                continue;
            }
            let next = waits.by_time.first_key_value().map(|((at, _), _)| *at);
            let looks_at = next.unwrap_or(now + LINGERS);
            waits.looks_at = Some(looks_at);
            let waited = self.changed.wait_timeout(waits, looks_at.saturating_duration_since(now));
            let timed_out;
            (waits, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() && next.is_none() && waits.by_time.is_empty() {
                waits.looks_at = None;
                return;
            }
        }
    }
}

/// See [`Timer::at`].
#[derive(Debug)]
pub(crate) struct Deadline {
    timer: Timer,
    at: Option<Instant>,
    id: Option<u64>,
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let shared = Arc::clone(&self.timer.shared);
        let mut waits = shared.lock();
        let id = *self.id.get_or_insert(waits.next_id);
        waits.next_id = waits.next_id.max(id + 1);
        let before = waits.by_time.insert((at, id), context.waker().clone());
        match waits.looks_at {
            Some(looks_at) if looks_at <= at => {}
            Some(_) => shared.changed.notify_one(),
            None => {
                waits.looks_at = Some(Instant::now());
                let thread = Arc::clone(&shared);
                let begun = thread::Builder::new()
                    .name("es-consumer-timer".to_owned())
                    .spawn(move || thread.wake_until_nobody_waits());
                if let Err(error) = begun {
                    waits.looks_at = None;
                    drop(waits);
                    tracing::warn!(%error, "there is no thread for a timer: the wait is over now");
                    return Poll::Ready(());
                }
            }
        }
        drop(waits);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let (Some(at), Some(id)) = (self.at, self.id) {
            let waker = self.timer.shared.lock().by_time.remove(&(at, id));
            drop(waker);
        }
    }
}
