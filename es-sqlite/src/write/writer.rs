//! The one writer: takes all that waits, commits it together, tells everybody.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use es_framework::{
    Clock, EventType, Notifier, Position, StoreError, StoreId, StoredEvent, StreamId, Timestamp, Version,
};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;
use crate::connection::file::{DatabaseFile, Presence};
use crate::connection::worker::{roll_back, unpanicked};
use crate::tables::bounded::Bounded;
use crate::tables::interned::Names;
use crate::tables::log;
use crate::tables::meta;
use crate::tables::schema;
use crate::write::append::Transaction;
use crate::write::inbox::Inbox;
use crate::write::insert_buffer::Pending;
use crate::write::queue::{Job, Write};
use crate::write::upkeep::Upkeep;

/// The events of other processes that are handed to watchers; beyond that they read pages.
const FOREIGN_EVENTS: u32 = 2_048;
/// How long another process counts as writing after its last commit, and the gap left to it between two groups.
const CONTENDED: Duration = Duration::from_millis(50);
const GAP: Duration = Duration::from_micros(700);

/// Where a stream ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    /// The stream's number; 0 if it has none yet.
    pub(crate) number: i64,
    pub(crate) version: Version,
}

/// What the writer knows without asking the database. All of it is the state inside the running transaction: it is
/// forgotten when one is rolled back.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) store: StoreId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) head: Option<(Position, Timestamp)>,
    pub(crate) heads: Bounded<StreamId, Head>,
    pub(crate) last_stream: Option<i64>,
    pub(crate) types: Bounded<Arc<EventType>, i64>,
    pub(crate) last_type: Option<(Arc<EventType>, i64)>,
    pub(crate) names: Names,
    /// Whether anybody watches, so that events written are kept for the notifier.
    pub(crate) watched: bool,
    pub(crate) written: Vec<StoredEvent>,
    pub(crate) pending: Pending,
    /// How many appends with ids are looked up before they are written.
    pub(crate) careful: u32,
    /// Whether an id was found to be known only when it was written.
    pub(crate) collided: bool,
    /// Whether all ids are looked up, because one of the group was known.
    pub(crate) look_up: bool,
}

impl Memory {
    fn forget(&mut self) {
        self.head = None;
        self.heads.clear();
        self.last_stream = None;
        self.types.clear();
        self.last_type = None;
        self.names.clear();
        self.written.clear();
        self.pending.clear();
    }
}

/// The writer's own state, beside its connection.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) memory: Memory,
    notifier: Arc<Notifier>,
    timeout: Duration,
    /// Whether other processes can write to the database.
    shared: bool,
    data_version: Option<i64>,
    generation: Option<i64>,
    foreign_commit: Option<Instant>,
    last_commit: Option<Instant>,
    /// Whether the file is still where it was; nothing if the database is in memory.
    presence: Option<Presence>,
    upkeep: Upkeep,
}

impl Writer {
    pub(crate) fn new(
        store: StoreId,
        clock: Arc<dyn Clock>,
        notifier: Arc<Notifier>,
        timeout: Duration,
        file: Option<DatabaseFile>,
    ) -> Self {
        let shared = file.is_some();
        let memory = Memory {
            store,
            clock,
            head: None,
            heads: Bounded::new(65_536),
            last_stream: None,
            types: Bounded::new(4_096),
            last_type: None,
            names: Names::default(),
            watched: false,
            written: Vec::new(),
            pending: Pending::default(),
            careful: 0,
            collided: false,
            look_up: false,
        };
        Self {
            memory,
            notifier,
            timeout,
            shared,
            data_version: None,
            generation: None,
            foreign_commit: None,
            last_commit: None,
            upkeep: Upkeep::of(file.as_ref()),
            presence: file.map(Presence::of),
        }
    }

    /// Works until it is told to stop or nobody is left who could ask for anything.
    pub(crate) fn work(&mut self, connection: &mut Connection, jobs: &Receiver<Job>) {
        let mut inbox = Inbox::new(jobs);
        while let Some(job) = inbox.next() {
            match job {
                Job::Stop => return,
                Job::Alone { queued, run } => {
                    self.leave_a_gap();
                    busy::allow_since(queued, self.timeout);
                    if let Err(panic) = unpanicked(connection, |connection| run(connection, self)) {
                        tracing::error!(panic, "a job of the writer panicked");
                        self.forget();
                    }
                    self.last_commit = Some(Instant::now());
                }
                Job::Write(first) => {
                    inbox.open(first.bytes());
                    self.commit_together(connection, &mut inbox, vec![first]);
                }
            }
            self.upkeep.after_job(connection);
        }
    }

    /// Writes a group in one transaction, and takes into it what comes meanwhile. If one of it cannot be written each is
    /// tried alone, so that only that one fails.
    fn commit_together(&mut self, connection: &mut Connection, inbox: &mut Inbox<'_>, mut group: Vec<Box<dyn Write>>) {
        while !group.is_empty() {
            let mut ended = self.attempt(connection, inbox, &mut group);
            inbox.shut();
            if matches!(ended, Err(Failure::Write(_))) && std::mem::take(&mut self.memory.collided) {
                // An id of the group is known, as the index has told: now each of its ids is looked up first.
                self.memory.look_up = true;
                ended = self.attempt(connection, inbox, &mut group);
                self.memory.look_up = false;
                self.memory.collided = false;
            }
            match ended {
                Ok(()) => {
                    self.publish();
                    inbox.answering(group.len());
                    answer(group, || Ok(()));
                    return;
                }
                Err(Failure::Write(_)) if group.len() > 1 => {
                    for write in group {
                        self.commit_together(connection, inbox, vec![write]);
                    }
                    return;
                }
                Err(Failure::Group(StoreError::Busy { .. })) => {
                    // Who came later may wait for longer.
                    let overdue;
                    (overdue, group) =
                        group.into_iter().partition::<Vec<_>, _>(|write| write.queued().elapsed() >= self.timeout);
                    for write in overdue {
                        let waited = write.queued().elapsed();
                        answer(vec![write], || Err(StoreError::Busy { waited }));
                    }
                }
                Err(Failure::Write(error) | Failure::Group(error)) => {
                    answer(group, || Err(errors::repeat(&error)));
                    return;
                }
            }
        }
    }

    fn attempt(
        &mut self,
        connection: &mut Connection,
        inbox: &mut Inbox<'_>,
        group: &mut Vec<Box<dyn Write>>,
    ) -> Result<(), Failure> {
        let done = unpanicked(connection, |connection| self.commit(connection, inbox, group));
        done.unwrap_or_else(|panic| {
            self.forget();
            Err(Failure::Write(errors::internal(panic)))
        })
    }

    fn commit(
        &mut self,
        connection: &Connection,
        inbox: &mut Inbox<'_>,
        group: &mut Vec<Box<dyn Write>>,
    ) -> Result<(), Failure> {
        self.leave_a_gap();
        let oldest = group.iter().map(|write| write.queued()).min().unwrap_or_else(Instant::now);
        busy::allow_since(oldest, self.timeout);
        let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        begun.map_err(|error| Failure::Group(errors::store(error)))?;
        let written = self.catch_up(connection).map_err(Failure::Group).and_then(|()| {
            self.memory.watched = self.notifier.is_watched();
            self.memory.written.clear();
            let mut tx = Transaction::new(connection, &mut self.memory);
            let run = run_all(&mut tx, inbox, group);
            run.and_then(|()| tx.written().map(drop)).map_err(Failure::Write)
        });
        let committed = written.and_then(|()| {
            let committed = connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
            committed.map(|_| ()).map_err(|error| Failure::Group(errors::store(error)))
        });
        if committed.is_err() {
            roll_back(connection);
            self.forget();
        }
        self.last_commit = Some(Instant::now());
        committed
    }

    /// What begins every write transaction: learns what other processes have committed since the last one.
    pub(crate) fn catch_up(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if !self.shared && self.data_version.is_some() {
            return Ok(());
        }
        if let Some(presence) = &mut self.presence {
            presence.check()?;
        }
        let data_version: i64 = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(errors::store)?;
        let known = self.data_version.replace(data_version);
        if known == Some(data_version) {
            return Ok(());
        }
        // Noted as seen only if all that follows succeeds.
        self.data_version = None;
        if known.is_some() {
            self.foreign_commit = Some(Instant::now());
        }
        let format = schema::format(connection).map_err(errors::store)?;
        if format != schema::FORMAT {
            return Err(StoreError::FormatChanged { opened: schema::FORMAT, found: format });
        }
        let generation = meta::integer(connection, meta::GENERATION)?;
        if self.generation != generation {
            meta::check_write_requires(connection)?;
            self.memory.forget();
            self.generation = generation;
        }
        self.learn(connection)?;
        self.data_version = Some(data_version);
        Ok(())
    }

    /// Reads the log after the known head.
    fn learn(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let before = self.memory.head.map_or_else(|| self.notifier.head(), |(position, _)| position);
        let (head, time) = log::head(connection)?;
        if head <= before && self.memory.head.is_some() {
            return Ok(());
        }
        self.memory.head = Some((head, time));
        self.memory.last_stream = None;
        let count = head.get().saturating_sub(before.get());
        if count > u64::from(FOREIGN_EVENTS) {
            self.memory.heads.clear();
        } else if count > 0 {
            self.learn_heads(connection, before)?;
        }
        // Some of it the poller may have told already.
        let told = before.max(self.notifier.head());
        if head > told {
            self.publish_foreign(connection, told, head)?;
        }
        Ok(())
    }

    fn learn_heads(&mut self, connection: &Connection, after: Position) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(HEADS_AFTER).map_err(errors::store)?;
        let mut rows = statement.query([after.as_i64()]).map_err(errors::store)?;
        while let Some(row) = rows.next().map_err(errors::store)? {
            let name = row.get_ref(0).and_then(|name| Ok(name.as_str()?)).map_err(errors::store)?;
            if let Some(known) = self.memory.heads.get(name) {
                let number = row.get(1).map_err(errors::store)?;
                let version: i64 = row.get(2).map_err(errors::store)?;
                *known = Head { number, version: Version::new(version.unsigned_abs()) };
            }
        }
        Ok(())
    }

    /// Events of other processes come before ours in the log, so watchers hear of them first.
    fn publish_foreign(&mut self, connection: &Connection, after: Position, head: Position) -> Result<(), StoreError> {
        let count = head.get().saturating_sub(after.get());
        if !self.notifier.is_watched() || count > u64::from(FOREIGN_EVENTS) {
            self.notifier.advance(head);
            return Ok(());
        }
        let Memory { names, store, .. } = &mut self.memory;
        match log::events_after(connection, names, *store, after, FOREIGN_EVENTS) {
            Ok(Some(events)) => self.notifier.publish(after, events, head),
            // Too much to be held, or damaged: watchers read pages, and those who read it will say so.
            Ok(None) | Err(StoreError::Corrupt { .. }) => self.notifier.advance(head),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells watchers of the group that was committed.
    fn publish(&mut self) {
        let Some((head, _)) = self.memory.head else { return };
        match self.memory.written.first() {
            Some(first) => {
                let after = Position::new(first.position.get() - 1);
                self.notifier.publish(after, self.memory.written.drain(..), head);
            }
            None if head > self.notifier.head() => self.notifier.advance(head),
            None => {}
        }
    }

    /// Forgets what was known of the log, after a transaction that was rolled back.
    pub(crate) fn forget(&mut self) {
        self.memory.forget();
        self.data_version = None;
    }

    /// SQLite's lock is not fair: who gives it back and takes it at once starves the others.
    fn leave_a_gap(&self) {
        let contended = self.foreign_commit.is_some_and(|at| at.elapsed() < CONTENDED);
        if let Some(last) = self.last_commit.filter(|_| contended) {
            thread::sleep(GAP.saturating_sub(last.elapsed()));
        }
    }
}

/// Where streams end that were written after a position. Without `NOT INDEXED` SQLite goes through the whole index over
/// streams and versions to have them grouped, which took a quarter of a second at ten million events.
const HEADS_AFTER: &str = "SELECT s.name, s.id, max(e.version)
     FROM es_event e NOT INDEXED JOIN es_stream s ON s.id = e.stream WHERE e.position > ?1 GROUP BY e.stream";

/// Why a group was rolled back.
enum Failure {
    /// One of its writes could not be done.
    Write(StoreError),
    /// The transaction could not be begun or committed.
    Group(StoreError),
}

/// Runs the writes of a group, and those that join it meanwhile: while callers who were just answered come back, the
/// first of them are being written. At 512 callers that takes an eighth off the time from one commit to the next.
fn run_all(tx: &mut Transaction<'_>, inbox: &mut Inbox<'_>, group: &mut Vec<Box<dyn Write>>) -> Result<(), StoreError> {
    for write in group.iter_mut() {
        write.run(tx)?;
    }
    while let Some(write) = inbox.more(group.len()) {
        // In the group before it runs: if it panics, it is one of those that are tried alone.
        group.push(write);
        if let Some(write) = group.last_mut() {
            write.run(tx)?;
        }
    }
    Ok(())
}

/// Answers a group. The places are given back first: who is answered may ask again at once.
fn answer(mut group: Vec<Box<dyn Write>>, ended: impl Fn() -> Result<(), StoreError>) {
    let places = group.iter_mut().filter_map(|write| write.leave());
    // All at once, for each release takes the lock that callers who wait for a place take.
    drop(places.reduce(|mut all, place| {
        all.merge(place);
        all
    }));
    for write in group {
        write.answer(ended());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_learnt_from_the_end_of_the_log() {
        let connection = crate::connection::open::memory(1 << 20).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {HEADS_AFTER}");
        let plan = connection.query_row(&explain, [1], |row| row.get::<_, String>(3)).unwrap();
        assert_eq!(plan, "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)");
    }
}
