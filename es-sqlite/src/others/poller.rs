//! Polls for the writes of other processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use es_framework::StoreError;
use es_framework::engine::Notifier;
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;
use crate::opening::open::StoreFile;
use crate::others::wal_hint::{Look, WalFile};
use crate::read::pool;
use crate::tables::interned::Names;
use crate::tables::log;

/// How long the poller sleeps at most while there are no watchers; the first read of a watcher wakes it.
const IDLE: Duration = Duration::from_secs(1);
/// How long the poller sleeps at most after a failure.
const DISCOURAGED: Duration = Duration::from_secs(1);
/// How long a poll may wait, for a database that is being recovered.
const PATIENCE: Duration = Duration::from_secs(1);

/// The poller's sleep, shared with those who interrupt it.
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
    /// Wakes the poller if there are watchers and it is idle. Otherwise costs two loads.
    pub(crate) fn watched(&self, notifier: &Notifier) {
        if notifier.is_watched() && self.idle.load(Ordering::SeqCst) {
            self.lock().woken = true;
            self.changed.notify_all();
        }
    }

    /// Stops the poller.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Sleeps for `interval`; returns whether the poller was stopped.
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

/// Polls for commits of other processes while there are watchers, until it is stopped.
pub(crate) fn work(
    connection: &Connection,
    alarm: &Alarm,
    notifier: &Arc<Notifier>,
    store: &StoreFile,
    interval: Duration,
) {
    let mut poller = Poller::new(connection, notifier, store, Instant::now());
    let mut failed: Option<Failed> = None;
    loop {
        alarm.idle.store(!notifier.is_watched(), Ordering::SeqCst);
        // Checked again: a watcher registered in between has not seen that the poller is idle.
        if notifier.is_watched() {
            busy::allow(PATIENCE);
            failed = match poller.look(Instant::now()) {
                Ok(()) => None,
                Err(error) => {
                    poller.seen = None;
                    // Nobody else notifies the watchers; if the database is merely busy, a later poll will.
                    if !matches!(error, StoreError::Busy { .. }) {
                        notifier.distrust();
                    }
                    Some(Failed::with(&error, failed, interval))
                }
            };
        } else {
            (poller.seen, failed) = (None, None);
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

/// A persistent failure: logged once, and retried with increasing pauses.
struct Failed {
    said: String,
    pause: Duration,
}

impl Failed {
    fn with(error: &StoreError, before: Option<Self>, interval: Duration) -> Self {
        // The time waited differs each time.
        let said = if matches!(error, StoreError::Busy { .. }) { "busy".to_owned() } else { error.to_string() };
        match before {
            Some(before) if before.said == said => Self { said, pause: (before.pause * 2).min(DISCOURAGED) },
            _ => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "could not look for writes of other processes");
                Self { said, pause: interval.min(DISCOURAGED) }
            }
        }
    }
}

/// What the poller knows of the log.
struct Poller<'a> {
    connection: &'a Connection,
    notifier: &'a Arc<Notifier>,
    store: &'a StoreFile,
    names: Names,
    wal: WalFile,
    /// The database version seen last.
    seen: Option<i64>,
}

impl<'a> Poller<'a> {
    fn new(connection: &'a Connection, notifier: &'a Arc<Notifier>, store: &'a StoreFile, now: Instant) -> Self {
        let wal = WalFile::of(store.file.beside("-wal"), now);
        Self { connection, notifier, store, names: Names::default(), wal, seen: None }
    }

    /// Notifies the notifier of new commits, unless the `-wal` file shows that there are none.
    fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        // Checked first, so that anything written meanwhile is reported the next time.
        let look = self.wal.look(now);
        if look == Look::Needless && self.seen.is_some() {
            return Ok(());
        }
        self.store.file.check()?;
        let found = self.poll()?;
        // Checked again: the events found may have been committed between the two.
        if found && look == Look::ToBeSure && self.wal.look(now) != Look::Needed {
            self.wal.distrust();
        }
        Ok(())
    }

    /// Returns whether there were events that the notifier did not know.
    fn poll(&mut self) -> Result<bool, StoreError> {
        let Self { connection, notifier, store, names, seen, .. } = self;
        let data_version: i64 = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(errors::store)?;
        if *seen == Some(data_version) {
            return Ok(false);
        }
        let found = pool::in_transaction(connection, names, |connection, names| {
            let (head, _) = log::head(connection)?;
            notifier.publish_foreign(head, |after, count| log::events_after(connection, names, store.id, after, count))
        })?;
        *seen = Some(data_version);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use es_framework::{CandidateEvent, ExpectedVersion, Position};

    use super::*;
    use crate::SqliteStore;
    use crate::opening::file::DatabaseFile;
    use crate::opening::open::{self, Purpose};
    use crate::options::Durability;

    async fn write(store: &SqliteStore) -> Position {
        let event = CandidateEvent::new("happened", "x").unwrap();
        store.open_stream("a-1").unwrap().write(event, ExpectedVersion::Any).await.unwrap().position
    }

    /// First what the `-wal` file reveals, then that it is detected when it reveals nothing.
    #[tokio::test]
    #[cfg(unix)]
    async fn a_commit_is_seen_at_the_next_look_and_at_the_latest_when_looking_to_be_sure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let wal = folder.path().join("log.db-wal");
        let silent = || {
            let file = fs::File::options().write(true).open(&wal).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        };
        let store = SqliteStore::open(&path).await.unwrap();
        let mut written = write(&store).await;
        let file = StoreFile { file: DatabaseFile::opened(path.clone()).unwrap(), id: store.id() };
        let connection = open::another(&file, Purpose::Read, Durability::Full, 1 << 20).unwrap();
        let notifier = Arc::new(Notifier::new(Position::ZERO));
        let start = Instant::now();
        let mut poller = Poller::new(&connection, &notifier, &file, start);
        silent();
        poller.look(start).unwrap();
        assert_eq!(notifier.head(), written);
        for minutes in 1..=3 {
            let now = start + Duration::from_secs(minutes * 60);
            poller.look(now).unwrap();
            written = write(&store).await;
            poller.look(now).unwrap();
            assert_eq!(notifier.head(), written, "after a quiet minute");
            silent();
            poller.look(now).unwrap();
        }
        // From here on the file no longer grows, and its time is kept from changing.
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        let now = start + Duration::from_secs(3_600);
        poller.look(now).unwrap();
        let known = written;
        written = write(&store).await;
        silent();
        poller.look(now).unwrap();
        assert_eq!(notifier.head(), known, "nothing told of it");
        let now = now + Duration::from_secs(1);
        poller.look(now).unwrap();
        assert_eq!(notifier.head(), written, "looked for all the same");
        written = write(&store).await;
        silent();
        poller.look(now).unwrap();
        assert_eq!(notifier.head(), written, "not trusted any more");
        store.close().await.unwrap();
    }
}
