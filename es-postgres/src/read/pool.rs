//! A few connections, shared by everybody who needs one for single statements.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use es_framework::StoreError;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;

use crate::connection::connect::{Connector, Purpose};
use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;

/// How many tasks share a connection at the same time. More would not be served faster, and each may hold a page.
const SHARED: usize = 16;
/// The pauses between two attempts while the server cannot be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A few connections, opened on first use and opened again when they are lost.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Arc<Connector>,
    purpose: Purpose,
    patience: Duration,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    session: Mutex<Option<Arc<Session>>>,
    /// The tasks that use it or wait for it.
    users: AtomicUsize,
    room: Semaphore,
}

/// Counts a task among the users of a connection.
struct Using<'s>(&'s Slot);

impl<'s> Using<'s> {
    fn of(slot: &'s Slot) -> Self {
        slot.users.fetch_add(1, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(crate) fn new(connector: Arc<Connector>, purpose: Purpose, size: usize, patience: Duration) -> Self {
        // Behind a pooler, statements that are sent before the last one was answered may get out of step.
        let shared = if connector.is_pooled() { 1 } else { SHARED };
        let slot = |_| Slot { session: Mutex::new(None), users: AtomicUsize::new(0), room: Semaphore::new(shared) };
        Self { connector, purpose, patience, slots: (0..size.max(1)).map(slot).collect() }
    }

    /// Runs statements that change nothing when they are repeated, again if the connection is lost.
    pub(crate) async fn run<T, F>(&self, work: impl Fn(Arc<Session>) -> F + Send + Sync) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.once(begun, &work).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            match failure {
                Failure::Lost(_) | Failure::Again(_) if begun.elapsed() + pause < self.patience => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Failure::Waited(_) => return Err(StoreError::Busy { waited: begun.elapsed() }),
                failure => return Err(failure.into_store()),
            }
        }
    }

    /// Runs statements on a connection, once.
    pub(crate) async fn once<T, F>(
        &self,
        begun: Instant,
        work: impl Fn(Arc<Session>) -> F + Send + Sync,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let Some(slot) = self.slots.iter().min_by_key(|slot| slot.users.load(Ordering::Relaxed)) else {
            return Err(StoreError::Closed.into());
        };
        let _using = Using::of(slot);
        let _room = slot.room.acquire().await.map_err(|_| StoreError::Closed)?;
        let left = self.patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            // The connection is not to blame.
            return Err(Failure::Waited(errors::words(&"too many others are served")));
        }
        let session = self.session(slot).await?;
        session.within(left, work(Arc::clone(&session))).await
    }

    async fn session(&self, slot: &Slot) -> Result<Arc<Session>, Failure> {
        let mut session = slot.session.lock().await;
        match &*session {
            Some(open) if !open.is_over() => Ok(Arc::clone(open)),
            _ => {
                let opened = Arc::new(self.connector.connect(self.purpose).await?);
                *session = Some(Arc::clone(&opened));
                Ok(opened)
            }
        }
    }

    /// Ends all connections once the statements that were accepted have ended.
    pub(crate) async fn close(&self) {
        for slot in &self.slots {
            slot.room.close();
            let session = slot.session.lock().await.take();
            // A task that still uses it ends it when it is done.
            if let Some(session) = session.and_then(Arc::into_inner) {
                session.end().await;
            }
        }
    }
}
