//! The only task that writes to the log: takes everything that waits, commits it together and tells the callers.
//!
//! There are two ways to commit a group. *Alone*, the writer judges by what it remembers and writes on the condition
//! that the log still ends there: one round trip. *In turn*, after others have written, it locks the writers' row
//! first, learns what they wrote, and judges then: two round trips, but no attempt is in vain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_framework::engine::{Deferred, Inbox, Next, Notifier, Queued};
use es_framework::{
    Append, AppendError, Appended, Clock, Mark, Position, StoreError, StoreId, StreamHead, StreamId, Version,
};
use futures_util::future::{join, join4};
use tokio::time::sleep;

use super::ask::Asked;
use super::draft::{Draft, Unsure, Witness};
use super::herald::Herald;
use super::memory::{End, Head, Memory};
use crate::connection::connect::{Connector, Purpose};
use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{count, natural};
use crate::read::pool::Pool;
use crate::tables::cells;
use crate::tables::log::LogHead;
use crate::tables::names::Names;
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// An append on its way to the log.
pub(crate) type Write = Deferred<Append, Appended, AppendError>;
/// Nothing runs alone: every other write is a statement of its own on another connection.
pub(crate) type Alone = std::convert::Infallible;

/// After an id turned out to be known, this many appends with ids are looked up before they are written: retries come
/// in runs.
const CAREFUL: usize = 1_000;
/// How long others count as writing after their last commit.
const CONTENDED: Duration = Duration::from_millis(100);
/// Maximum number of events of others that are scanned for their streams; beyond that all heads are forgotten.
const LEARNT_EVENTS: usize = 2_048;
/// How much longer than the server's own timeout the writer waits for its answer, before it gives the connection up.
const GRACE: Duration = Duration::from_secs(2);
/// The pauses between two attempts while the server cannot be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The writer's state.
#[derive(Debug)]
pub(crate) struct Writer {
    connector: Arc<Connector>,
    statements: Arc<Statements>,
    store: StoreId,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
    timeout: Duration,
    session: Option<Session>,
    memory: Memory,
    names: Names,
    herald: Herald,
    /// The number of further appends with ids that are looked up first.
    careful: usize,
    foreign_commit: Option<Instant>,
    /// The newest event that this writer knows of. If another one is there, the log was rewound and written again.
    newest: Option<Mark>,
}

/// After this many collisions with what is in the log, an id that is in an index was not found by it.
const MOST_COLLISIONS: u32 = 3;

/// Whether an error may be that of one append in a group.
fn is_of_one(error: &StoreError) -> bool {
    matches!(error, StoreError::Internal { .. } | StoreError::Corrupt { .. })
}

/// How an attempt to commit a group ended.
enum Ended {
    /// It is committed.
    Committed(Draft),
    /// It was committed by an earlier attempt, whose answer was lost.
    CommittedBefore(Draft),
    /// Nothing was written, because the log had grown.
    Missed,
    /// Nothing was written, because an id or a command is known that was not looked up.
    Known(Option<String>),
    /// Nothing was written, and it may succeed now: a cell was set since it was read, or the server chose so.
    Again,
    /// Nothing was written, and it may succeed later.
    Waited,
    /// The connection is gone. If the draft was sent, nobody knows whether it was committed.
    Lost(Option<Draft>, es_framework::BoxError),
    /// Nothing was written.
    Failed(StoreError),
}

impl Ended {
    fn of(failure: Failure) -> Self {
        match failure {
            Failure::Lost(source) => Self::Lost(None, source),
            Failure::Waited(_) => Self::Waited,
            Failure::Again(_) => Self::Again,
            Failure::Taken { by } => Self::Known(Some(by)),
            Failure::Refused(error) => Self::Failed(error),
        }
    }

    /// How an attempt ended whose draft was sent.
    fn of_sent(draft: Draft, failure: Failure) -> Self {
        match failure {
            Failure::Lost(source) => Self::Lost(Some(draft), source),
            failure => Self::of(failure),
        }
    }
}

impl Writer {
    /// Creates the writer of a store, with its first connection.
    pub(crate) fn new(
        connector: Arc<Connector>,
        statements: Arc<Statements>,
        store: StoreId,
        clock: Arc<dyn Clock>,
        notifier: Arc<Notifier>,
        timeout: Duration,
        session: Session,
    ) -> Self {
        Self {
            connector,
            statements,
            store,
            clock,
            notifier,
            timeout,
            session: Some(session),
            memory: Memory::default(),
            names: Names::default(),
            herald: Herald::default(),
            careful: 0,
            foreign_commit: None,
            newest: None,
        }
    }

    /// Works until the queue is closed and empty. Commits are announced on a connection of `pool`.
    pub(crate) async fn work(mut self, mut inbox: Inbox<Write, Alone>, pool: Arc<Pool>) {
        let herald = self.herald.clone().work(pool, Arc::clone(&self.statements), self.store);
        let herald = tokio::spawn(herald);
        while let Some(next) = inbox.ready().await {
            let first = match next {
                Next::Write(first) => first,
                Next::Alone(never) => match never.item {},
            };
            let group = inbox.gather(first).await;
            self.commit(group, &mut inbox).await;
        }
        herald.abort();
        if let Some(session) = self.session.take() {
            session.end().await;
        }
    }

    /// Commits a group, however long it takes, and tells its callers.
    async fn commit(&mut self, mut group: Vec<Queued<Write>>, inbox: &mut Inbox<Write, Alone>) {
        // Attempts of which nobody knows whether they were committed; at most one of them was or will be.
        let mut unknown: Vec<Draft> = Vec::new();
        let mut ids = self.careful > 0;
        let mut pause = FIRST_PAUSE;
        let mut collisions = 0;
        while !group.is_empty() {
            match self.attempt(&group, &mut unknown, ids).await {
                Ended::Committed(draft) => {
                    self.memory.tags.commit();
                    self.committed(draft, group, inbox);
                    return;
                }
                // What is remembered of tags is of a later attempt, and forgotten.
                Ended::CommittedBefore(draft) => {
                    self.committed(draft, group, inbox);
                    return;
                }
                Ended::Missed => self.foreign_commit = Some(Instant::now()),
                Ended::Known(Some(by)) if collisions >= MOST_COLLISIONS => {
                    let what = format!("{by} holds a row that should not be there, and that is not found");
                    self.fail(group, inbox, &errors::damaged(None, what));
                    return;
                }
                Ended::Known(_) => {
                    collisions += 1;
                    // From now on the log is read under the lock.
                    self.foreign_commit = Some(Instant::now());
                    self.careful = CAREFUL;
                    ids = true;
                }
                Ended::Again => {
                    // From now on cells are locked when they are read.
                    self.foreign_commit = Some(Instant::now());
                    self.overdue(&mut group, &mut unknown, |waited| StoreError::Busy { waited });
                }
                Ended::Waited => self.overdue(&mut group, &mut unknown, |waited| StoreError::Busy { waited }),
                Ended::Lost(draft, source) => {
                    self.session = None;
                    unknown.extend(draft);
                    let words = source.to_string();
                    self.overdue(&mut group, &mut unknown, |_| StoreError::Io { source: words.clone().into() });
                    if !group.is_empty() {
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                Ended::Failed(error) if group.len() > 1 && unknown.is_empty() && is_of_one(&error) => {
                    // One of them cannot be written: each is tried alone.
                    for write in group {
                        Box::pin(self.commit(vec![write], inbox)).await;
                    }
                    return;
                }
                Ended::Failed(error) => {
                    self.fail(group, inbox, &error);
                    return;
                }
            }
        }
    }

    fn fail(&mut self, group: Vec<Queued<Write>>, inbox: &mut Inbox<Write, Alone>, error: &StoreError) {
        self.memory.forget();
        if matches!(error, StoreError::ReadOnly) {
            // A server that became a standby: the connection string may lead to the new primary.
            self.session = None;
        }
        for write in inbox.release(group) {
            write.answer(Err(error.repeated()));
        }
    }

    /// Tells the callers whose time is up.
    fn overdue(&self, group: &mut Vec<Queued<Write>>, unknown: &mut [Draft], error: impl Fn(Duration) -> StoreError) {
        let mut at = 0;
        while let Some(write) = group.get(at) {
            let waited = write.since.elapsed();
            if waited < self.timeout {
                at += 1;
                continue;
            }
            let Queued { item, permit, .. } = group.remove(at);
            for draft in &mut *unknown {
                drop(draft.results.remove(at));
            }
            drop(permit);
            item.answer(Err(error(waited)));
        }
    }

    fn committed(&mut self, mut draft: Draft, group: Vec<Queued<Write>>, inbox: &mut Inbox<Write, Alone>) {
        self.newest = draft.mark().or(self.newest);
        let grew = draft.end.position > draft.before.position;
        draft.keep(&mut self.memory);
        self.careful = self.careful.saturating_sub(group.len());
        if grew {
            let (before, head) = (draft.before.position, draft.end.position);
            if self.notifier.is_watched() {
                self.notifier.publish(before, draft.events(), head);
            } else {
                self.notifier.advance(head);
            }
            self.herald.announce(head);
        }
        let results = std::mem::take(&mut draft.results);
        let writes = inbox.release(group);
        inbox.report(writes.len(), &self.notifier);
        for (mut write, result) in writes.into_iter().zip(results) {
            let ended = write.run(|_| result);
            write.answer(ended);
        }
    }

    async fn attempt(&mut self, group: &[Queued<Write>], unknown: &mut Vec<Draft>, ids: bool) -> Ended {
        let since = group.iter().map(|write| write.since).min().unwrap_or_else(Instant::now);
        let patience = self.timeout.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        let session = if let Some(session) = self.session.take().filter(|session| !session.is_over()) {
            session
        } else {
            // What happened to the log in the meantime is not known.
            self.memory.end = None;
            match tokio::time::timeout(patience + GRACE, self.connector.connect(Purpose::Write)).await {
                Ok(Ok(session)) => session,
                Ok(Err(failure)) => return Ended::of(failure),
                Err(_) => return Ended::of(errors::silent()),
            }
        };
        let contended = self.foreign_commit.is_some_and(|at| at.elapsed() < CONTENDED);
        let in_turn = contended || !unknown.is_empty() || self.memory.end.is_none();
        let ended = if in_turn {
            self.in_turn(&session, group, unknown, ids, patience).await
        } else {
            self.alone(&session, group, ids, patience).await
        };
        self.session = Some(session);
        ended
    }

    /// Judges by what is remembered, and writes if the log still ends there.
    async fn alone(&mut self, session: &Session, group: &[Queued<Write>], ids: bool, patience: Duration) -> Ended {
        let Some(end) = self.memory.end else { return Ended::Missed };
        self.memory.tags.begin(end.position);
        let asked = Asked::about(requests(group), &mut self.memory, ids, false);
        let found = if asked.is_empty() {
            super::ask::Found { ids: ids.then(Default::default), ..Default::default() }
        } else {
            let answer = asked.answer(session, &self.statements, self.store, &self.names, ids);
            match session.within(patience + GRACE, answer).await {
                Ok(found) => found,
                Err(failure) => return Ended::of(failure),
            }
        };
        let draft = match self.judge(group, end, found) {
            Ok(draft) => draft,
            Err(Unsure::Ids) => return Ended::Known(None),
        };
        if draft.is_empty() {
            // Whoever is refused, or only checks, must be so by the log as it is now.
            let head = LogHead::read(session, &self.statements);
            return match session.within(patience + GRACE, head).await {
                Ok(head) => match self.same(&head, end) {
                    Ok(true) => Ended::Committed(draft),
                    Ok(false) => Ended::Missed,
                    Err(error) => Ended::Failed(error),
                },
                Err(failure) => Ended::of(failure),
            };
        }
        let millis = patience.as_millis().clamp(1, i32::MAX.unsigned_abs().into()).to_string();
        if let Err(failure) = session.within(GRACE + patience, session.prepare(&[&self.statements.append])).await {
            return Ended::of(failure);
        }
        let insert = async {
            if !self.connector.is_pooled() {
                return draft.insert(session, &self.statements, &millis).await;
            }
            let begin = self.connector.begin(patience);
            let insert = draft.insert(session, &self.statements, &millis);
            let (begun, inserted) = join(session.batch(&begin), insert).await;
            let committed = session.batch("COMMIT").await;
            begun?;
            let inserted = inserted?;
            committed?;
            Ok(inserted)
        };
        match session.within(patience + GRACE, insert).await {
            Ok(true) => Ended::Committed(draft),
            Ok(false) => Ended::Missed,
            Err(failure) => Ended::of_sent(draft, failure),
        }
    }

    /// Locks the log, learns what others wrote, judges and writes.
    async fn in_turn(
        &mut self,
        session: &Session,
        group: &[Queued<Write>],
        unknown: &mut Vec<Draft>,
        ids: bool,
        patience: Duration,
    ) -> Ended {
        let ended = self.locked(session, group, unknown, ids, patience).await;
        if !matches!(ended, Ended::Committed(_) | Ended::Lost(..)) {
            // The lock is released even if this cannot be sent, with the connection.
            let rolled_back = session.within(GRACE, session.batch("ROLLBACK")).await;
            if let Err(failure) = rolled_back {
                tracing::debug!(?failure, "a transaction could not be rolled back");
            }
        }
        ended
    }

    async fn locked(
        &mut self,
        session: &Session,
        group: &[Queued<Write>],
        unknown: &mut Vec<Draft>,
        ids: bool,
        patience: Duration,
    ) -> Ended {
        let statements = Arc::clone(&self.statements);
        let known = self.memory.end.map(|end| end.position);
        if known.is_none() {
            self.memory.heads.clear();
        }
        let asked = Asked::about(requests(group), &mut self.memory, ids, true);
        let wait = patience + GRACE;
        let in_order = [&statements.lock, &statements.head, &statements.written_after, &statements.append];
        if let Err(failure) = session.within(wait, session.prepare(&in_order)).await {
            return Ended::of(failure);
        }
        let begin = self.connector.begin(patience);
        // One flush: sent in this order, and each statement sees what was committed before it got the lock.
        let learn = async {
            let begun = async {
                let (begun, locked) = join(session.batch(&begin), session.query(&statements.lock, &[])).await;
                begun?;
                locked
            };
            let written = self.written_after(session, known);
            let answers = asked.answer(session, &statements, self.store, &self.names, ids);
            let (locked, head, written, found) =
                join4(begun, LogHead::read(session, &statements), written, answers).await;
            locked?;
            Ok((head?, written?, found?))
        };
        let (head, written, mut found) = match session.within(wait, learn).await {
            Ok(learnt) => learnt,
            Err(failure) => return Ended::of(failure),
        };
        if let Err(error) = self.check(&head) {
            return Ended::Failed(error);
        }
        if known.is_none() {
            // The connection was lost in the meantime, and this may be another server.
            match session.within(wait, self.check_newest(session)).await {
                Ok(()) => {}
                Err(failure) => return Ended::of(failure),
            }
        }
        if let Some(committed) = match self.find_committed(session, unknown, wait).await {
            Ok(committed) => committed,
            Err(failure) => return Ended::of(failure),
        } {
            let draft = unknown.swap_remove(committed);
            return Ended::CommittedBefore(draft);
        }
        let end = End {
            position: head.position,
            time: head.time,
            generation: head.generation,
            last_stream: head.last_stream,
            last_type: head.last_type,
        };
        self.newest = head.mark.or(self.newest);
        if self.learn(known, &end, written) {
            // Everything about streams was forgotten, so that all of the group have to be asked for.
            let asked = Asked::about(requests(group), &mut self.memory, ids, true);
            let answer = asked.answer(session, &statements, self.store, &self.names, ids);
            found = match session.within(wait, answer).await {
                Ok(found) => found,
                Err(failure) => return Ended::of(failure),
            };
        }
        self.memory.tags.begin(end.position);
        let draft = match self.judge(group, end, found) {
            Ok(draft) => draft,
            Err(Unsure::Ids) => return Ended::Known(None),
        };
        let millis = patience.as_millis().clamp(1, i32::MAX.unsigned_abs().into()).to_string();
        let commit = async {
            if draft.is_empty() {
                return session.batch("COMMIT").await.map(|()| true);
            }
            let insert = draft.insert(session, &statements, &millis);
            // If the insert fails, the server rolls back instead.
            let (inserted, committed) = join(insert, session.batch("COMMIT")).await;
            let inserted = inserted?;
            committed?;
            Ok(inserted)
        };
        match session.within(wait, commit).await {
            Ok(true) => Ended::Committed(draft),
            Ok(false) => Ended::Missed,
            Err(failure) => Ended::of_sent(draft, failure),
        }
    }

    fn judge(&mut self, group: &[Queued<Write>], end: End, found: super::ask::Found) -> Result<Draft, Unsure> {
        let mut draft = Draft::new(self.store, end, found);
        for append in requests(group) {
            draft.push(append, &mut self.memory, &*self.clock)?;
        }
        Ok(draft)
    }

    /// Rejects a store that must not be written.
    fn check(&self, head: &LogHead) -> Result<(), StoreError> {
        head.check(self.store, self.notifier.head())?;
        head.check_write_requires()
    }

    /// Rejects a log that was rewound and written again, beyond where it ended before.
    async fn check_newest(&self, session: &Session) -> Result<(), Failure> {
        let Some(newest) = self.newest else { return Ok(()) };
        let rows = session.query(&self.statements.sums_at, &[&&[newest.position.as_i64()][..]]).await?;
        let sum: Option<i32> = rows.first().map(|row| column(row, 1, None)).transpose()?;
        match sum {
            Some(sum) if sum != newest.checksum.cast_signed() => Err(errors::changed(format!(
                "the log was rewound: another event is at position {}, after a failover or a restore",
                newest.position
            ))
            .into()),
            // It may have been removed since.
            _ => Ok(()),
        }
    }

    /// Whether the log still ends where the writer remembers.
    fn same(&self, head: &LogHead, end: End) -> Result<bool, StoreError> {
        self.check(head)?;
        Ok(head.position == end.position && head.generation == end.generation)
    }

    /// The streams that were written after the known end, with the number of their new events.
    async fn written_after(&self, session: &Session, known: Option<Position>) -> Result<Vec<Written>, Failure> {
        let Some(known) = known else { return Ok(Vec::new()) };
        let limit = count(LEARNT_EVENTS);
        let rows = session.query(&self.statements.written_after, &[&known.as_i64(), &limit]).await?;
        let mut written = Vec::with_capacity(rows.len());
        for row in &rows {
            let stream: &str = column(row, 0, None)?;
            let stream = StreamId::new(stream).map_err(|_| errors::damaged(None, "a stream has no valid name"))?;
            written.push(Written {
                stream,
                number: column(row, 1, None)?,
                version: natural(column(row, 2, None)?, None)?,
                events: natural(column(row, 3, None)?, None)?,
            });
        }
        Ok(written)
    }

    /// Brings the memory up to date; returns whether the heads of streams had to be forgotten.
    fn learn(&mut self, known: Option<Position>, end: &End, written: Vec<Written>) -> bool {
        let same_generation = self.memory.end.is_some_and(|known| known.generation == end.generation);
        let learnt: u64 = written.iter().map(|written| written.events).sum();
        let is_whole = known.is_some_and(|known| end.position.get() - known.get().min(end.position.get()) == learnt);
        if known.is_some_and(|known| end.position > known) {
            self.foreign_commit = Some(Instant::now());
        }
        if !same_generation || !is_whole {
            self.memory.heads.clear();
            self.memory.end = Some(*end);
            return known.is_some();
        }
        for Written { stream, number, version, .. } in written {
            let head = Head { number, stream: StreamHead::at(Version::new(version)) };
            if let Some(known) = self.memory.heads.get(&stream) {
                *known = head;
            }
        }
        self.memory.end = Some(*end);
        false
    }

    /// Which of the attempts with an unknown outcome was committed.
    async fn find_committed(
        &self,
        session: &Session,
        unknown: &[Draft],
        wait: Duration,
    ) -> Result<Option<usize>, Failure> {
        for (at, draft) in unknown.iter().enumerate() {
            let found = async {
                match draft.witness() {
                    Some(Witness::Event(mark)) => {
                        let positions = [mark.position.as_i64()];
                        let rows = session.query(&self.statements.sums_at, &[&&positions[..]]).await?;
                        let sum: Option<i32> = rows.first().map(|row| column(row, 1, None)).transpose()?;
                        Ok(sum == Some(mark.checksum.cast_signed()))
                    }
                    Some(Witness::Command(key, sum)) => {
                        let rows = session.query(&self.statements.commands_by_key, &[&&[key.as_str()][..]]).await?;
                        let found: Option<i32> = rows.first().map(|row| column(row, 7, None)).transpose()?;
                        Ok(found == Some(sum))
                    }
                    Some(Witness::Cells(cells)) => {
                        let keys: Vec<&str> = cells.iter().map(|(key, _)| key.as_str()).collect();
                        let found = cells::facts(session, &self.statements, &keys, true).await?;
                        let now = |key| found.get(key).copied().unwrap_or_default().next() - 1;
                        if cells.iter().any(|(key, before)| i64::try_from(now(key)) == Ok(*before)) {
                            return Ok(false);
                        }
                        let source = errors::words(&"the answer was lost, and the cells may be set; read them");
                        Err(StoreError::Io { source }.into())
                    }
                    None => Ok(false),
                }
            };
            if session.within(wait, found).await? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// A stream that others wrote.
struct Written {
    stream: StreamId,
    number: i64,
    version: u64,
    /// The number of its new events that were scanned.
    events: u64,
}

fn requests(group: &[Queued<Write>]) -> impl Iterator<Item = &Append> {
    group.iter().map(|write| write.item.request())
}
