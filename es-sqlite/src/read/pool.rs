//! The pool of reader connections.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use es_framework::StoreError;
use tokio::sync::{Notify, oneshot};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;
use crate::connection::worker::{Worker, unpanicked};
use crate::opening::file::Presence;
use crate::opening::open::{self, Purpose, StoreFile};
use crate::options::Settings;
use crate::tables::interned::Names;
use crate::tables::schema::Layout;

/// A few reader connections, each on its own thread, opened on first use.
///
/// A waiting read is cancelled when its caller goes away. A read that has started continues without the caller and
/// gives the connection back: callers may stop polling halfway through (a paused reader, a watch among many) and block
/// nobody.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    store: StoreFile,
    purpose: Purpose,
    settings: Settings,
    state: Mutex<State>,
    /// There is a job, or the pool was closed.
    changed: Condvar,
    /// A connection was opened, or failed to open.
    opened: Notify,
}

#[derive(Default)]
struct State {
    jobs: Jobs,
    closed: bool,
    /// The number of connections, including those being opened.
    readers: usize,
    idle: usize,
    opening: usize,
    workers: Vec<Worker>,
}

/// Which queue a read is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A caller is waiting for it.
    Now,
    /// It was requested ahead of time.
    Ahead,
}

/// The waiting reads, in two queues that take turns: next to readers of everything, who have several pages queued, a
/// short read waits for one of those pages and not for all.
#[derive(Default)]
struct Jobs {
    now: VecDeque<(u64, Job)>,
    ahead: VecDeque<(u64, Job)>,
    next: u64,
    ahead_is_next: bool,
}

impl Jobs {
    fn len(&self) -> usize {
        self.now.len() + self.ahead.len()
    }

    fn push(&mut self, turn: Turn, job: Job) -> u64 {
        let number = self.next;
        self.next += 1;
        self.line(turn).push_back((number, job));
        number
    }

    fn pop(&mut self) -> Option<Job> {
        let turn =
            if self.now.is_empty() || self.ahead_is_next && !self.ahead.is_empty() { Turn::Ahead } else { Turn::Now };
        let (_, job) = self.line(turn).pop_front()?;
        self.ahead_is_next = turn == Turn::Now;
        Some(job)
    }

    fn remove(&mut self, turn: Turn, number: u64) -> Option<Job> {
        let line = self.line(turn);
        let place = line.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        line.remove(place).map(|(_, job)| job)
    }

    fn take(&mut self) -> impl Iterator<Item = Job> + use<> {
        let Self { now, ahead, .. } = std::mem::take(self);
        now.into_iter().chain(ahead).map(|(_, job)| job)
    }

    fn line(&mut self, turn: Turn) -> &mut VecDeque<(u64, Job)> {
        match turn {
            Turn::Now => &mut self.now,
            Turn::Ahead => &mut self.ahead,
        }
    }
}

/// One read; called with an error if there is no connection to run it on.
type Job = Box<dyn FnOnce(Result<(&mut Connection, &mut Names), StoreError>) + Send>;

impl Pool {
    pub(crate) fn new(store: StoreFile, purpose: Purpose, settings: &Settings) -> Self {
        let (state, settings) = (Mutex::default(), settings.clone());
        let (changed, opened) = (Condvar::new(), Notify::new());
        Self { shared: Arc::new(Shared { store, purpose, settings, state, changed, opened }) }
    }

    pub(crate) fn store(&self) -> &StoreFile {
        &self.shared.store
    }

    /// Runs a job in a read transaction of its own, so that it sees a single state of the log.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        turn: Turn,
        job: impl FnOnce(&Connection, &mut Names) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |reader| {
            let done = reader.and_then(|(connection, names)| {
                let run = |connection: &mut Connection| in_transaction(connection, names, job);
                unpanicked(connection, run).unwrap_or_else(|panic| Err(errors::internal(panic)))
            });
            // The caller may be gone and not need the result.
            drop(reply.send(done));
        });
        let _waiting = self.enqueue(turn, job)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Waits for the reads in progress and closes all connections. Closing twice does nothing.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        loop {
            let opened = self.shared.opened.notified();
            if self.shared.lock().opening == 0 {
                break;
            }
            opened.await;
        }
        let workers = self.shared.lock().workers.clone();
        let mut closed = Ok(());
        for worker in workers {
            // Runs after the worker's own job, which ends with the last read.
            closed = closed.and(worker.close().await);
        }
        self.shared.lock().workers.clear();
        closed
    }

    fn enqueue(&self, turn: Turn, job: Job) -> Result<Waiting<'_>, StoreError> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let number = state.jobs.push(turn, job);
        let another = state.jobs.len() > state.idle + state.opening && state.readers < self.shared.settings.readers;
        if another {
            state.readers += 1;
            state.opening += 1;
        }
        drop(state);
        if another {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("es-sqlite-open".to_owned());
            if let Err(source) = thread.spawn(move || shared.open()) {
                self.shared.not_opened(&StoreError::Io { source: source.into() });
            }
        } else {
            self.shared.changed.notify_one();
        }
        Ok(Waiting { shared: &self.shared, turn, number })
    }
}

/// A read's place in the queue. It is given up when the caller goes away: otherwise callers that lose patience and
/// retry would make the queue longer and longer, full of reads that nobody waits for.
struct Waiting<'a> {
    shared: &'a Shared,
    turn: Turn,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // [`None`] if it has started.
        let given_up = state.jobs.remove(self.turn, self.number);
        drop(state);
        // Dropped after the lock is released: it may hold the last handle to this very pool.
        drop(given_up);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn open(self: Arc<Self>) {
        let Self { store, purpose, settings, .. } = &*self;
        busy::allow(settings.write_timeout);
        match open::another(store, *purpose, settings.durability, settings.reader_cache_bytes()) {
            Ok(connection) => {
                let worker = Worker::of(connection, settings.write_timeout);
                let shared = Arc::clone(&self);
                worker.occupy(move |connection| shared.serve(connection));
                let mut state = self.lock();
                state.opening -= 1;
                state.workers.push(worker);
                drop(state);
                self.opened.notify_waiters();
            }
            Err(error) => self.not_opened(&error),
        }
    }

    /// Fails the waiting reads, unless another connection can serve them.
    fn not_opened(&self, error: &StoreError) {
        let mut state = self.lock();
        state.opening -= 1;
        state.readers -= 1;
        let jobs = (state.readers == 0).then(|| state.jobs.take());
        drop(state);
        self.opened.notify_waiters();
        for job in jobs.into_iter().flatten() {
            job(Err(error.repeated()));
        }
    }

    /// Runs jobs until the pool is closed and none is left.
    fn serve(&self, connection: &mut Connection) {
        let mut names = Names::default();
        let mut presence = Presence::of(self.store.file.clone());
        while let Some(job) = self.next() {
            busy::allow(self.settings.write_timeout);
            job(presence.check().map(|()| (&mut *connection, &mut names)));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics halfway through a change, so a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("Pool")
            .field("path", &self.store.file.path())
            .field("readers", &state.readers)
            .finish_non_exhaustive()
    }
}

/// Runs a job in a read transaction, after checking the format.
pub(crate) fn in_transaction<T>(
    connection: &Connection,
    names: &mut Names,
    job: impl FnOnce(&Connection, &mut Names) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    run(connection, "BEGIN")?;
    let answer = Layout::read(connection).and_then(|layout| {
        names.layout = layout;
        job(connection, names)
    });
    let ended = run(connection, "COMMIT");
    answer.and_then(|answer| ended.map(|()| answer))
}

fn run(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(errors::store)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lines_take_turns_and_each_keeps_its_order() {
        let mut jobs = Jobs::default();
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut push = |turn, name| {
            let said = Arc::clone(&said);
            jobs.push(turn, Box::new(move |_| said.lock().unwrap().push(name)))
        };
        for name in ["a1", "a2", "a3", "a4"] {
            push(Turn::Ahead, name);
        }
        push(Turn::Now, "n1");
        let given_up = push(Turn::Now, "n2");
        push(Turn::Now, "n3");
        assert!(jobs.remove(Turn::Now, given_up).is_some() && jobs.remove(Turn::Now, given_up).is_none());
        while let Some(job) = jobs.pop() {
            job(Err(StoreError::Closed));
        }
        assert_eq!(*said.lock().unwrap(), ["n1", "a1", "n3", "a2", "a3", "a4"]);
        assert_eq!(jobs.len(), 0);
    }
}
