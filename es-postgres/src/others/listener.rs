//! Listens for the writes of other processes while there are watchers, and looks from time to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use es_framework::StoreError;
use es_framework::engine::{Notifier, Read};
use es_framework::{Position, StoreId, StreamId};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::connection::connect::{Connector, Purpose};
use crate::connection::session::Session;
use crate::read::reader::Reader;
use crate::tables::log::channel;

/// How often to look while notifications arrive: one may be lost.
const TO_BE_SURE: Duration = Duration::from_secs(1);
/// How long the listener sleeps after a failure, at most.
const DISCOURAGED: Duration = Duration::from_secs(1);
/// Maximum number of other processes' events that are read for watchers; beyond that, watchers read pages.
const FOREIGN_EVENTS: usize = 2_048;

/// Wakes the listener, and ends it.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    idle: AtomicBool,
    stopped: AtomicBool,
    changed: Arc<Notify>,
}

impl Alarm {
    /// Wakes the listener if there are watchers and it is idle. Otherwise costs two loads.
    pub(crate) fn watched(&self, notifier: &Notifier) {
        if notifier.is_watched() && self.idle.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Ends the listener.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// Notices commits of other processes while there are watchers.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) connector: Arc<Connector>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) store: StoreId,
    /// How often to look without notifications.
    pub(crate) interval: Duration,
}

impl Listener {
    /// Works until it is stopped.
    pub(crate) async fn work(self) {
        let mut listening: Option<Session> = None;
        let mut failed: Option<Failed> = None;
        while !self.alarm.is_stopped() {
            if !self.is_watched() {
                if let Some(session) = listening.take() {
                    session.end().await;
                }
                failed = None;
                self.alarm.changed.notified().await;
                continue;
            }
            if listening.as_ref().is_none_or(Session::is_over) && failed.is_none() {
                listening = self.listen().await;
            }
            // After the listening began, so that nothing falls in between.
            failed = match self.look().await {
                Ok(()) => None,
                Err(error) => Some(self.failed(&error, failed)),
            };
            let pause = match (&failed, &listening) {
                (Some(failed), _) => failed.pause,
                (None, Some(session)) if !session.is_over() => TO_BE_SURE,
                (None, _) => self.interval,
            };
            // Notifications wake it, too.
            let _elapsed = timeout(pause, self.alarm.changed.notified()).await;
        }
        if let Some(session) = listening {
            session.end().await;
        }
    }

    fn is_watched(&self) -> bool {
        self.alarm.idle.store(!self.notifier.is_watched(), Ordering::SeqCst);
        // Checked again: a watcher registered in between has not seen that the listener is idle.
        self.notifier.is_watched()
    }

    /// Begins to listen; without that, the listener looks more often.
    async fn listen(&self) -> Option<Session> {
        if self.connector.is_pooled() {
            return None;
        }
        let heard = Some(Arc::clone(&self.alarm.changed));
        let listening = async {
            let session = self.connector.connect_and_hear(Purpose::Read, heard).await?;
            session.batch(&format!("LISTEN \"{}\"", channel(self.store))).await?;
            Ok::<_, crate::connection::errors::Failure>(session)
        };
        match listening.await {
            Ok(session) => Some(session),
            Err(failure) => {
                tracing::debug!(?failure, "no notifications of other processes' writes");
                None
            }
        }
    }

    /// Tells the notifier of new commits.
    async fn look(&self) -> Result<(), StoreError> {
        let head = self.reader.head().await?;
        let known = self.notifier.head();
        if head <= known {
            return Ok(());
        }
        if head.get() - known.get() > FOREIGN_EVENTS as u64 {
            self.notifier.advance(head);
            return Ok(());
        }
        let mut read = Read::new(StreamId::all());
        (read.after, read.events) = (known.get(), FOREIGN_EVENTS);
        match self.reader.page(&read).await {
            Ok(page) if page.end => self.notifier.publish(known, page.events, Position::new(page.head)),
            // Too large to hold, or damaged: watchers read it themselves.
            Ok(_) | Err(StoreError::Corrupt { .. }) => self.notifier.advance(head),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn failed(&self, error: &StoreError, before: Option<Failed>) -> Failed {
        // Nobody else notifies the watchers. If the server is merely away, so are the pages that they would read.
        if !matches!(error, StoreError::Busy { .. }) {
            self.notifier.distrust();
        }
        let said = error.to_string();
        match before {
            Some(before) if before.said == said => Failed { said, pause: (before.pause * 2).min(DISCOURAGED) },
            _ => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "could not look for writes of other processes");
                Failed { said, pause: self.interval.min(DISCOURAGED) }
            }
        }
    }
}

/// A persistent failure: logged once, and retried with increasing pauses.
#[derive(Debug)]
struct Failed {
    said: String,
    pause: Duration,
}
