//! Noticing what other processes write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use es_framework::{Notifier, StoreError, StoreId};
use tokio_rusqlite::rusqlite::Connection;

use crate::names::Names;
use crate::{busy, errors, log, pool};

/// The events that are handed to watchers; beyond that they read pages.
const EVENTS: u32 = 2_048;
/// How long the poller sleeps at most while nobody watches; it is woken by the first read of a watcher.
const IDLE: Duration = Duration::from_secs(1);
/// How long the poller sleeps at most after a failure.
const DISCOURAGED: Duration = Duration::from_secs(1);
/// What a poll may wait for: a database that is being recovered.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sleep of the poller, shared with those who end it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    idle: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    woken: bool,
}

impl Alarm {
    /// Begins to poll if somebody watches and the poller sleeps. Costs two loads otherwise.
    pub(crate) fn watched(&self, notifier: &Notifier) {
        if notifier.is_watched() && self.idle.load(Ordering::SeqCst) {
            self.lock().woken = true;
            self.changed.notify_all();
        }
    }

    /// Ends the poller.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Sleeps for so long; answers whether the poller was stopped.
    fn sleep(&self, interval: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, interval, |state| !state.stopped && !state.woken);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        state.stopped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for commits of other processes until it is stopped, while somebody watches.
pub(crate) fn work(
    connection: &Connection,
    alarm: &Alarm,
    notifier: &Arc<Notifier>,
    store: StoreId,
    interval: Duration,
) {
    let mut names = Names::default();
    let mut seen = None;
    let mut failed: Option<Failed> = None;
    loop {
        alarm.idle.store(!notifier.is_watched(), Ordering::SeqCst);
        // Asked again: who began to watch in between has not seen that the poller is idle.
        if notifier.is_watched() {
            busy::allow(PATIENCE);
            failed = match poll(connection, notifier, store, &mut names, &mut seen) {
                Ok(()) => None,
                Err(error) => {
                    seen = None;
                    // Nobody else tells the watchers; whoever is only busy will have more to tell.
                    if !matches!(error, StoreError::Busy { .. }) {
                        notifier.distrust();
                    }
                    Some(Failed::with(&error, failed, interval))
                }
            };
        } else {
            (seen, failed) = (None, None);
        }
        let pause = match &failed {
            Some(failed) => failed.pause.max(interval),
            None if notifier.is_watched() => interval,
            None => IDLE,
        };
        if alarm.sleep(pause) {
            return;
        }
    }
}

/// A failure that lasts: said once, and tried more and more seldom.
struct Failed {
    said: String,
    pause: Duration,
}

impl Failed {
    fn with(error: &StoreError, before: Option<Self>, interval: Duration) -> Self {
        // How long it waited differs each time.
        let said = if matches!(error, StoreError::Busy { .. }) { "busy".to_owned() } else { error.to_string() };
        match before {
            Some(before) if before.said == said => Self { said, pause: (before.pause * 2).min(DISCOURAGED) },
            _ => {
                tracing::warn!(%error, "could not look for writes of other processes");
                Self { said, pause: interval.min(DISCOURAGED) }
            }
        }
    }
}

fn poll(
    connection: &Connection,
    notifier: &Arc<Notifier>,
    store: StoreId,
    names: &mut Names,
    seen: &mut Option<i64>,
) -> Result<(), StoreError> {
    let data_version: i64 = connection
        .prepare_cached("PRAGMA data_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(errors::store)?;
    if *seen == Some(data_version) {
        return Ok(());
    }
    pool::in_transaction(connection, |connection| {
        let after = notifier.head();
        let (head, _) = log::head(connection)?;
        if head <= after {
            return Ok(());
        }
        if head.get() - after.get() > u64::from(EVENTS) {
            notifier.advance(head);
            return Ok(());
        }
        match log::events_after(connection, names, store, after, EVENTS) {
            Ok(Some(events)) => notifier.publish(after, events, head),
            // Watchers that read it will say so.
            Ok(None) | Err(StoreError::Corrupt { .. }) => notifier.advance(head),
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    *seen = Some(data_version);
    Ok(())
}
