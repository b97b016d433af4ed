//! The only writer: takes everything that waits, commits it together and notifies the callers.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use es_framework::engine::{self, CommitHooks, Committer, GroupError, Inbox, Next, Notifier, Permit, Queued};
use es_framework::{Clock, Position, StoreError, StoreId, Version};
use tokio_rusqlite::rusqlite::{self, Connection, ErrorCode};

use crate::connection::busy;
use crate::connection::errors;
use crate::connection::worker::{roll_back, unpanicked};
use crate::opening::file::{DatabaseFile, Presence};
use crate::tables::log;
use crate::tables::meta;
use crate::tables::postings::TermEnd;
use crate::tables::rows::Header;
use crate::tables::schema::Layout;
use crate::write::append::Transaction;
use crate::write::memory::{Memory, TagHead};
use crate::write::upkeep::Upkeep;

/// Maximum number of events of other processes that are scanned for their streams; beyond that all heads are discarded.
const LEARNT_EVENTS: u64 = 2_048;
/// How long another process counts as writing after its last commit, and the gap left for it between two groups.
const CONTENDED: Duration = Duration::from_millis(50);
const GAP: Duration = Duration::from_micros(700);

/// A write that shares its transaction with others.
pub(crate) trait Write: Send {
    /// Runs the write, possibly a second time after the first transaction was rolled back. An error means that the
    /// transaction cannot be committed.
    fn run(&mut self, tx: &mut Transaction<'_>) -> Result<(), StoreError>;

    /// Reports the result to the caller, once the transaction has ended.
    fn answer(self: Box<Self>, ended: Result<(), StoreError>);
}

/// A job that runs alone, between two groups of writes. It gives its place back before it replies.
pub(crate) type Alone = dyn FnOnce(&mut Connection, &mut Writer, Permit) + Send;

/// The writer's own state, apart from its connection.
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
    /// Whether the file is still where it was; [`None`] if the database is in memory.
    presence: Option<Presence>,
    upkeep: Upkeep,
}

impl Writer {
    pub(crate) fn new(
        store: StoreId,
        clock: Arc<dyn Clock>,
        hooks: Arc<CommitHooks>,
        notifier: Arc<Notifier>,
        timeout: Duration,
        file: Option<DatabaseFile>,
    ) -> Self {
        let shared = file.is_some();
        let memory = Memory::new(store, clock, hooks);
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

    /// Works until the queue is closed and empty.
    pub(crate) fn work(&mut self, connection: &mut Connection, inbox: &mut Inbox<Box<dyn Write>, Box<Alone>>) {
        while let Some(next) = inbox.next() {
            match next {
                Next::Alone(Queued { item: run, since, permit, .. }) => {
                    self.leave_a_gap();
                    busy::allow_since(since, self.timeout);
                    if let Err(panic) = unpanicked(connection, |connection| run(connection, self, permit)) {
                        tracing::error!(panic, "a job of the writer panicked");
                        self.forget();
                    }
                    self.last_commit = Some(Instant::now());
                }
                Next::Write(first) => {
                    let patience = self.timeout;
                    inbox.commit_together(first, patience, &mut OnConnection { writer: self, connection });
                }
            }
            self.upkeep.after_job(connection);
        }
    }

    fn commit(&mut self, connection: &Connection, group: &mut Group<'_>) -> Result<(), GroupError> {
        self.leave_a_gap();
        busy::allow_since(group.since(), self.timeout);
        let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        begun.map_err(|error| GroupError::Group(errors::store(error)))?;
        let written = self.catch_up(connection).map_err(GroupError::Group).and_then(|()| {
            self.memory.watched = self.notifier.is_watched();
            self.memory.written.clear();
            let mut tx = Transaction::new(connection, &mut self.memory);
            let run = group.run(|write| write.run(&mut tx));
            run.and_then(|()| tx.written().map(drop)).map_err(GroupError::Write)
        });
        let committed = written.and_then(|()| {
            let committed = connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
            committed.map(|_| ()).map_err(|error| self.not_committed(error))
        });
        if committed.is_err() {
            roll_back(connection);
            self.forget();
        } else {
            std::mem::take(&mut self.memory.hooked).committed();
        }
        self.last_commit = Some(Instant::now());
        committed
    }

    /// A constraint of a read model that is checked at the end, such as a deferred foreign key, concerns one append of
    /// the group: each is tried alone.
    fn not_committed(&self, error: rusqlite::Error) -> GroupError {
        let of_a_hook = !self.memory.hooked.is_empty();
        if of_a_hook && error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
            return GroupError::Write(errors::ended(error));
        }
        GroupError::Group(errors::store(error))
    }

    /// Starts every write transaction: learns what other processes have committed since the last one.
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
        // Recorded as seen only if everything below succeeds.
        self.data_version = None;
        if known.is_some() {
            self.foreign_commit = Some(Instant::now());
        }
        let layout = Layout::read(connection)?;
        let generation = meta::integer(connection, meta::GENERATION)?;
        if self.generation != generation {
            meta::check_write_requires(connection)?;
            self.memory.forget();
            self.generation = generation;
        }
        self.memory.names.layout = layout;
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
        self.memory.last_tag = None;
        self.memory.type_ends.clear();
        self.memory.last_block = None;
        let count = head.get().saturating_sub(before.get());
        if count > LEARNT_EVENTS {
            self.memory.heads.clear();
            self.memory.tags.clear();
        } else if count > 0 {
            self.learn_heads(connection, before)?;
            match self.learn_tags(connection, before) {
                // Whoever reads the event reports the damage. What the index knows of its tags is right.
                Err(StoreError::Corrupt { .. }) => self.memory.tags.clear(),
                learnt => learnt?,
            }
        }
        // Events of other processes precede ours in the log, so watchers are notified of them first.
        let Memory { names, store, .. } = &mut self.memory;
        let read = |after, count| log::events_after(connection, names, *store, after, count);
        self.notifier.publish_foreign(head, read).map(drop)
    }

    fn learn_heads(&mut self, connection: &Connection, after: Position) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(HEADS_AFTER).map_err(errors::store)?;
        let mut rows = statement.query([after.as_i64()]).map_err(errors::store)?;
        while let Some(row) = rows.next().map_err(errors::store)? {
            let name = row.get_ref(0).and_then(|name| Ok(name.as_str()?)).map_err(errors::store)?;
            if let Some(known) = self.memory.heads.get(name) {
                let number = row.get(1).map_err(errors::store)?;
                let version: i64 = row.get(2).map_err(errors::store)?;
                let version = Version::new(version.unsigned_abs());
                known.number = number;
                known.stream.version = version;
            }
        }
        Ok(())
    }

    /// Learns where the events with the known tags end. Each row is verified, because a conflict would be missed if its
    /// tags became others.
    fn learn_tags(&mut self, connection: &Connection, after: Position) -> Result<(), StoreError> {
        let Memory { names, tags, .. } = &mut self.memory;
        if names.layout == Layout::Plain || tags.is_empty() {
            return Ok(());
        }
        let sql = format!("SELECT {} FROM es_event NOT INDEXED WHERE position > ?1 ORDER BY position", names.columns());
        let mut statement = connection.prepare_cached(&sql).map_err(errors::store)?;
        let mut rows = statement.query([after.as_i64()]).map_err(errors::store)?;
        let mut numbers = Vec::new();
        while let Some(row) = rows.next().map_err(errors::store)? {
            let header = Header::of(row)?;
            header.verify(row, connection, names)?;
            numbers.clear();
            header.each_tag(row, |number| numbers.push(number))?;
            for number in &numbers {
                let tag = names.tag(connection, *number, header.position)?;
                if let Some(known) = tags.get(tag) {
                    let count = known.end.count + 1;
                    *known = TagHead { number: *number, end: TermEnd { position: header.position, count } };
                }
            }
        }
        Ok(())
    }

    /// Notifies watchers of the committed group.
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

    /// Discards what was known of the log, after a transaction was rolled back.
    pub(crate) fn forget(&mut self) {
        self.memory.forget();
        self.data_version = None;
    }

    /// SQLite's lock is not fair: a process that releases it and takes it again at once starves the others.
    fn leave_a_gap(&self) {
        let contended = self.foreign_commit.is_some_and(|at| at.elapsed() < CONTENDED);
        if let Some(last) = self.last_commit.filter(|_| contended) {
            thread::sleep(GAP.saturating_sub(last.elapsed()));
        }
    }
}

/// Finds the heads of streams that were written after a position. Without `NOT INDEXED`, SQLite walks the whole index
/// over streams and versions to group them, which took a quarter of a second at ten million events.
const HEADS_AFTER: &str = "SELECT s.name, s.id, max(e.version)
     FROM es_event e NOT INDEXED JOIN es_stream s ON s.id = e.stream WHERE e.position > ?1 GROUP BY e.stream";

/// A group of writes.
type Group<'i> = engine::Group<'i, Box<dyn Write>, Box<Alone>>;

/// A writer and the connection it writes on.
struct OnConnection<'w> {
    writer: &'w mut Writer,
    connection: &'w mut Connection,
}

impl OnConnection<'_> {
    fn attempt(&mut self, group: &mut Group<'_>) -> Result<(), GroupError> {
        let Self { writer, connection } = self;
        let done = unpanicked(connection, |connection| writer.commit(connection, group));
        done.unwrap_or_else(|panic| {
            writer.forget();
            Err(GroupError::Write(errors::internal(panic)))
        })
    }
}

impl Committer<Box<dyn Write>, Box<Alone>> for OnConnection<'_> {
    fn commit(&mut self, group: &mut Group<'_>) -> Result<(), GroupError> {
        let mut ended = self.attempt(group);
        if matches!(ended, Err(GroupError::Write(_))) && std::mem::take(&mut self.writer.memory.collided) {
            // The index has shown that an id of the group is known: now each of its ids is looked up first.
            self.writer.memory.look_up = true;
            ended = self.attempt(group);
            self.writer.memory.look_up = false;
            self.writer.memory.collided = false;
        }
        ended
    }

    fn committed(&mut self) {
        self.writer.publish();
    }

    fn notifier(&self) -> Option<&Notifier> {
        Some(&self.writer.notifier)
    }

    fn answer(&mut self, write: Box<dyn Write>, ended: Result<(), StoreError>) {
        write.answer(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_learnt_from_the_end_of_the_log() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {HEADS_AFTER}");
        let plan = connection.query_row(&explain, [1], |row| row.get::<_, String>(3)).unwrap();
        assert_eq!(plan, "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)");
    }
}
