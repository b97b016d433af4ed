//! Waiting for other processes.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

thread_local! {
    /// When this thread's job started, and how long it may wait. A busy handler cannot take an argument of ours, and
    /// each connection is used by one thread at a time.
    static WAIT: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Allows the following statements on this thread to wait for `timeout` in total.
pub(crate) fn allow(timeout: Duration) {
    WAIT.set(Some((Instant::now(), timeout)));
}

/// Like [`allow`], for a wait that started earlier.
pub(crate) fn allow_since(since: Instant, timeout: Duration) {
    WAIT.set(Some((since, timeout)));
}

/// The time since [`allow`].
pub(crate) fn waited() -> Duration {
    WAIT.get().map_or(Duration::ZERO, |(since, _)| since.elapsed())
}

/// Returns whether to try again, after a short sleep.
///
/// SQLite's own handler backs off to 100 ms and starves: with two processes writing back to back, one of them waited
/// for seconds. Sleeps of 0.1 to 0.5 ms kept the worst wait at 60 ms.
pub(crate) fn handler(attempt: i32) -> bool {
    let Some((since, timeout)) = WAIT.get() else { return false };
    if since.elapsed() >= timeout {
        return false;
    }
    let step = u64::try_from(attempt % 5).unwrap_or(0);
    thread::sleep(Duration::from_micros(100 + 100 * step));
    true
}
