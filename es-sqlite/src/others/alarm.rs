//! The poller's sleep, and what interrupts it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use es_framework::engine::Notifier;

use crate::others::wal_events::{Bell, WalEvents};

/// The poller's sleep, shared with those who interrupt it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    idle: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// Interrupts a sleep that also waits for changes of the `-wal` file.
    bell: Bell,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    woken: bool,
}

impl Alarm {
    /// Wakes the poller if there are watchers and it is idle. Otherwise costs two loads.
    pub(crate) fn watched(&self, notifier: &Notifier) {
        if notifier.is_watched() && self.idle.load(Ordering::SeqCst) {
            self.lock().woken = true;
            self.ring();
        }
    }

    /// Stops the poller.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.ring();
    }

    /// Whether nobody watches, so that the poller sleeps until somebody does.
    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    /// Sleeps for `time`; returns whether the poller was stopped.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.stopped && !state.woken);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        state.stopped
    }

    /// Sleeps for `time`, but only until the `-wal` file changes; returns whether the poller was stopped.
    pub(super) fn sleep_until_changed(&self, time: Duration, events: &WalEvents) -> bool {
        {
            let mut state = self.lock();
            if state.stopped || std::mem::take(&mut state.woken) {
                return state.stopped;
            }
        }
        // A ring after the check above is still there: the bell stays rung until it is heard.
        if !events.wait(&self.bell, time) {
            return self.sleep(time);
        }
        let mut state = self.lock();
        state.woken = false;
        state.stopped
    }

    fn ring(&self) {
        self.changed.notify_all();
        self.bell.ring();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
