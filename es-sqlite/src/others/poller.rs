//! Polls for the writes of other processes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_framework::StoreError;
use es_framework::engine::Notifier;
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;
use crate::opening::open::StoreFile;
use crate::others::alarm::Alarm;
use crate::others::pace::{Found, Pace, Rest};
use crate::others::wal_events::WalEvents;
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
/// How long to poll, after changes of the `-wal` file could not be watched, before that is tried again.
const UNWATCHED: Duration = Duration::from_secs(60);

/// Looks for commits of other processes while there are watchers, until it is stopped.
pub(crate) fn work(
    connection: &Connection,
    alarm: &Alarm,
    notifier: &Arc<Notifier>,
    store: &StoreFile,
    interval: Duration,
) {
    let mut poller = Poller::new(connection, notifier, store, interval, Instant::now());
    let mut failed: Option<Failed> = None;
    loop {
        alarm.set_idle(!notifier.is_watched());
        // Checked again: a watcher registered in between has not seen that the poller is idle.
        let rest = if notifier.is_watched() {
            busy::allow(PATIENCE);
            match poller.listen_and_look(Instant::now()) {
                Ok(rest) => {
                    failed = None;
                    rest
                }
                Err(error) => {
                    poller.seen = None;
                    // Nobody else notifies the watchers; if the database is merely busy, a later poll will.
                    if !matches!(error, StoreError::Busy { .. }) {
                        notifier.distrust();
                    }
                    let again = Failed::with(&error, failed.take(), interval);
                    let pause = again.pause.max(interval);
                    failed = Some(again);
                    Rest::Ignoring(pause)
                }
            }
        } else {
            failed = None;
            poller.rest();
            Rest::Ignoring(IDLE)
        };
        let stopped = match (rest, &poller.events) {
            (Rest::Listening(pause), Some(events)) => alarm.sleep_until_changed(pause, events),
            (Rest::Listening(pause) | Rest::Ignoring(pause), _) => alarm.sleep(pause),
        };
        if stopped {
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
    interval: Duration,
    names: Names,
    /// The database version seen last.
    seen: Option<i64>,
    /// Reports of changes of the `-wal` file; [`None`] while there are none, and the file's time is looked at instead.
    events: Option<WalEvents>,
    pace: Pace,
    wal: WalFile,
    /// When to try again to watch the file; [`None`] for never again.
    watch_at: Option<Instant>,
}

impl<'a> Poller<'a> {
    fn new(
        connection: &'a Connection,
        notifier: &'a Arc<Notifier>,
        store: &'a StoreFile,
        interval: Duration,
        now: Instant,
    ) -> Self {
        let wal = WalFile::of(store.file.beside("-wal"), now);
        let (names, pace) = (Names::default(), Pace::new(interval));
        let watch_at = Some(now).filter(|_| cfg!(target_os = "linux"));
        Self { connection, notifier, store, interval, names, seen: None, events: None, pace, wal, watch_at }
    }

    /// Nobody watches: keeps nothing of the operating system's.
    fn rest(&mut self) {
        (self.seen, self.events) = (None, None);
    }

    /// Notifies the notifier of new commits, and returns how to rest until the next look.
    fn listen_and_look(&mut self, now: Instant) -> Result<Rest, StoreError> {
        self.listen(now);
        let looked = match &mut self.events {
            Some(events) => events.take().map(|reported| {
                if reported {
                    self.pace.reported();
                }
            }),
            None => return self.look(now).map(|()| Rest::Ignoring(self.interval)),
        };
        if let Err(error) = looked {
            self.cannot_listen(&error, now);
            return self.look(now).map(|()| Rest::Ignoring(self.interval));
        }
        let settled = self.pace.is_settled();
        self.store.file.check()?;
        let first = self.seen.is_none();
        let found = self.poll()?;
        if settled {
            self.check_reports(found == Found::News && !first, now);
        }
        Ok(self.pace.after(found))
    }

    /// Begins to watch the `-wal` file, if it is not watched and that may be possible.
    fn listen(&mut self, now: Instant) {
        if self.events.is_none() && self.watch_at.is_some_and(|at| at <= now) {
            match WalEvents::of(self.store.file.beside("-wal")) {
                Ok(events) => (self.events, self.pace) = (Some(events), Pace::new(self.interval)),
                Err(error) => self.cannot_listen(&error, now),
            }
        }
    }

    fn cannot_listen(&mut self, error: &std::io::Error, now: Instant) {
        tracing::debug!(%error, "changes of the -wal file cannot be watched: polling for a minute");
        (self.events, self.watch_at) = (None, Some(now + UNWATCHED));
    }

    /// After a look without a report: checks that it is still the right file that is watched, and that a commit that
    /// was found (`missed`) is reported at least by now. Some file systems do not report what another machine writes.
    fn check_reports(&mut self, missed: bool, now: Instant) {
        let Some(events) = &mut self.events else { return };
        match events.take().and_then(|reported| events.renew().map(|()| reported)) {
            Ok(false) if missed => {
                tracing::debug!("a commit was not reported: polling from now on");
                (self.events, self.watch_at) = (None, None);
            }
            Ok(true) => self.pace.reported(),
            Ok(false) => {}
            Err(error) => self.cannot_listen(&error, now),
        }
    }

    /// Notifies the notifier of new commits, unless the `-wal` file's metadata shows that there are none.
    fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        // Checked first, so that anything written meanwhile is reported the next time.
        let look = self.wal.look(now);
        if look == Look::Needless && self.seen.is_some() {
            return Ok(());
        }
        self.store.file.check()?;
        let found = self.poll()?;
        // Checked again: the events found may have been committed between the two.
        if found == Found::News && look == Look::ToBeSure && self.wal.look(now) != Look::Needed {
            self.wal.distrust();
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Found, StoreError> {
        let Self { connection, notifier, store, names, seen, .. } = self;
        let data_version: i64 = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(errors::store)?;
        if *seen == Some(data_version) {
            return Ok(Found::Nothing);
        }
        let news = pool::in_transaction(connection, names, |connection, names| {
            let (head, _) = log::head(connection)?;
            notifier.publish_foreign(head, |after, count| log::events_after(connection, names, store.id, after, count))
        })?;
        *seen = Some(data_version);
        Ok(if news { Found::News } else { Found::Known })
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

    const INTERVAL: Duration = Duration::from_millis(12);

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
        let mut poller = Poller::new(&connection, &notifier, &file, INTERVAL, start);
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

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn reports_that_do_not_come_are_not_waited_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let store = SqliteStore::open(&path).await.unwrap();
        write(&store).await;
        let file = StoreFile { file: DatabaseFile::opened(path.clone()).unwrap(), id: store.id() };
        let connection = open::another(&file, Purpose::Read, Durability::Full, 1 << 20).unwrap();
        let notifier = Arc::new(Notifier::new(Position::ZERO));
        let now = Instant::now();
        let mut poller = Poller::new(&connection, &notifier, &file, INTERVAL, now);
        assert!(matches!(poller.listen_and_look(now).unwrap(), Rest::Listening(_)), "it listens");
        let settle = |poller: &mut Poller<'_>| {
            while !poller.pace.is_settled() {
                assert!(matches!(poller.listen_and_look(now).unwrap(), Rest::Listening(_)));
            }
        };
        settle(&mut poller);
        let written = write(&store).await;
        assert_eq!(
            poller.listen_and_look(now).unwrap(),
            Rest::Listening(Duration::from_micros(200)),
            "it was reported"
        );
        assert_eq!(notifier.head(), written);
        // A file that nobody writes stands for a file system that reports nothing.
        let silent = folder.path().join("silent");
        fs::write(&silent, "").unwrap();
        poller.events = Some(WalEvents::of(silent).unwrap());
        settle(&mut poller);
        let written = write(&store).await;
        poller.listen_and_look(now).unwrap();
        assert_eq!(notifier.head(), written, "looked for all the same");
        for n in 0..3 {
            let now = now + UNWATCHED * n;
            assert_eq!(poller.listen_and_look(now).unwrap(), Rest::Ignoring(INTERVAL), "it polls from now on");
            let written = write(&store).await;
            poller.listen_and_look(now).unwrap();
            assert_eq!(notifier.head(), written);
        }
        store.close().await.unwrap();
    }

    /// The user's share of watches is used up, and some are given back later.
    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_file_that_cannot_be_watched_is_polled_and_tried_again_after_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let file = StoreFile { file: DatabaseFile::opened(path.clone()).unwrap(), id: store.id() };
        let connection = open::another(&file, Purpose::Read, Durability::Full, 1 << 20).unwrap();
        let notifier = Arc::new(Notifier::new(Position::ZERO));
        let now = Instant::now();
        let mut poller = Poller::new(&connection, &notifier, &file, INTERVAL, now);
        poller.cannot_listen(&std::io::ErrorKind::StorageFull.into(), now);
        for _ in 0..3 {
            let written = write(&store).await;
            assert_eq!(poller.listen_and_look(now + INTERVAL).unwrap(), Rest::Ignoring(INTERVAL));
            assert_eq!(notifier.head(), written);
        }
        poller.listen_and_look(now + UNWATCHED).unwrap();
        assert!(poller.events.is_some(), "tried again");
        poller.rest();
        assert!(poller.events.is_none(), "nobody watches");
        store.close().await.unwrap();
    }
}
