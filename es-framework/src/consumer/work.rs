//! What differs between kinds of consumers.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::checkpoint::{Checkpoint, CheckpointRecord};
use super::control::StopSignal;
use super::error::RunError;
use super::feed::Events;
use crate::domain::{Envelope, Event, Recorded};
use crate::log::{Direction, Mark, Position, ProjectionName, Read, Store, StoreError, StreamId, Timestamp};

/// What differs between kinds of consumers: where the checkpoint is kept, and what an event does.
///
/// The loop calls one method at a time, and after an error of [`Trouble::Down`] or [`Trouble::Behind`] begins anew with
/// [`Self::begin`]. Whatever a future that was dropped has done, `begin` finds out.
pub(crate) trait Work: Send + 'static {
    /// The events it handles. Events of other types are never decoded.
    type Event: Event;

    /// Prepares what it writes to, and finds the checkpoint.
    ///
    /// With a term, it writes it into the checkpoint's record in the same transaction, unless a higher one is there
    /// ([`Trouble::Fenced`]). From then on every transaction compares it.
    fn begin(&mut self, term: Option<u64>) -> impl Future<Output = Result<Begun, Trouble>> + Send;

    /// Processes some events and moves the checkpoint behind them, both or neither.
    ///
    /// If an event cannot be processed, those before it are applied, and [`Trouble::Event`] names it.
    fn apply(&mut self, portion: Portion<Self::Event>) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// What the order of an event is kept within, if the policy is not to say so. Runs user code, which may panic.
    fn key(&self, _: &Recorded<Self::Event>) -> Option<String> {
        None
    }

    /// Whether the event at this position is passed over when it is met, because the consumer has been there before.
    fn passes_over(&self, _: Position) -> bool {
        false
    }

    /// Called once, before anything else. A portion that takes long can end early with [`Trouble::Stopped`].
    fn stop_by(&mut self, _: StopSignal) {}

    /// Waits until there is something to do that is no event: a timeout. Only while there are no events; can be dropped
    /// at any time.
    fn due(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The time up to which events were processed, if something that is no event was due before it.
    fn overdue(&self) -> Option<Timestamp> {
        None
    }

    /// Does what was due at this time, some of it at least.
    fn fire(&mut self, until: Timestamp) -> impl Future<Output = Result<(), Trouble>> + Send {
        let _: Timestamp = until;
        async { Ok(()) }
    }

    /// Whether an event is this consumer's: if not, another one that shares its work applies it.
    fn has(&self, event: Envelope<'_>) -> bool {
        let _: Envelope<'_> = event;
        true
    }

    /// The number of events of a portion that this consumer applies.
    fn count(&self, portion: &Portion<Self::Event>) -> usize {
        portion.range.len() - portion.skip.len()
    }

    /// Called once everything that was in the log is applied, if [`Begun::rebuilding`] said so.
    fn at_head(&mut self) -> impl Future<Output = Result<AtHead, Trouble>> + Send {
        async { Ok(AtHead::Stay) }
    }

    /// Makes everything durable and releases what was kept; called at the end, however it came.
    fn settle(&mut self) -> impl Future<Output = Result<(), RunError>> + Send;
}

/// What [`Work::begin`] found.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The checkpoint; [`None`] if the consumer has never run.
    pub(crate) record: Option<CheckpointRecord>,
    /// The records whose keys start with [`PARKED`](super::PARKED).
    pub(crate) parked: Vec<(String, Bytes)>,
    /// The record [`ACKNOWLEDGED`](super::ACKNOWLEDGED).
    pub(crate) acknowledged: Option<Bytes>,
    /// Whether something is built anew that nobody can see yet.
    pub(crate) rebuilding: bool,
}

/// What follows once everything that was in the log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtHead {
    /// The same as before.
    Stay,
    /// Begin again.
    Again,
    /// The consumer has done what it was started for.
    Done,
}

/// Some events in a row, where the checkpoint goes, and records to write: all in one transaction.
#[derive(Debug)]
pub(crate) struct Portion<E> {
    pub(crate) events: Arc<Events<E>>,
    /// Which of them; empty to write the checkpoint and records only.
    pub(crate) range: Range<usize>,
    /// The indexes of those that are not to be applied, ascending: they are parked.
    pub(crate) skip: Vec<usize>,
    /// Where the checkpoint is.
    pub(crate) from: Option<Checkpoint>,
    /// Where it goes: at or behind the last of the events.
    pub(crate) to: Option<Checkpoint>,
    /// Whether what the consumer has written so far is to be removed first.
    pub(crate) clear: bool,
    /// Records to write. If only the first events are applied, those that belong to them.
    pub(crate) writes: Vec<Write>,
}

/// A record to write, or to remove.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The event that it belongs to; [`Position::ZERO`] if to none.
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
}

impl Write {
    pub(crate) fn now(key: String, value: Option<Bytes>) -> Self {
        Self { at: Position::ZERO, key, value }
    }
}

impl<E> Portion<E> {
    /// Only the checkpoint.
    pub(crate) fn checkpoint(from: Option<Checkpoint>, to: Option<Checkpoint>) -> Self {
        let events = Arc::new(Events::none());
        Self { events, range: 0..0, skip: Vec::new(), from, to, clear: false, writes: Vec::new() }
    }

    /// Whether the event with this index is to be applied.
    pub(crate) fn applies(&self, index: usize) -> bool {
        self.skip.is_empty() || self.skip.binary_search(&index).is_err()
    }

    /// The index of the first of the events at or after a position.
    pub(crate) fn index(&self, position: Position) -> usize {
        self.events.partition_point(|event| event.position() < position).clamp(self.range.start, self.range.end)
    }
}

/// Why a portion was not applied.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// An event cannot be processed. Everything before it is applied, and the checkpoint is where it says.
    Event { position: Position, checkpoint: Option<Checkpoint>, error: RunError },
    /// It was told to stop before the portion was finished. Everything before the checkpoint is applied.
    Stopped { checkpoint: Option<Checkpoint> },
    /// Something that is no event failed, and will be tried again later.
    Later { error: RunError, attempts: u32 },
    /// What it writes to has lost more than the portion: begin again. If an event cannot be processed, it is named.
    Behind { culprit: Option<(Position, RunError)> },
    /// What it writes to is out of order for now.
    Down(RunError),
    /// The checkpoint has this higher term: another owns the name.
    Fenced(u64),
    /// The portion was committed, but it cannot continue.
    Afterwards(RunError),
    /// It cannot continue.
    Final(RunError),
}

impl Trouble {
    /// [`Self::Down`] if the error may pass by itself, otherwise [`Self::Final`].
    pub(crate) fn of(error: RunError) -> Self {
        if error.may_pass() { Self::Down(error) } else { Self::Final(error) }
    }
}

/// The position of a checkpoint.
pub(crate) fn position_of(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::ZERO, |at| at.position)
}

/// Checks that the event at the checkpoint is still the same.
pub(crate) async fn check_log(store: &Store, name: &ProjectionName, checkpoint: &Checkpoint) -> Result<(), RunError> {
    let rewound = |reason: String| RunError::LogRewound { name: name.clone(), position: checkpoint.position, reason };
    if checkpoint.store != store.id() {
        return Err(rewound(format!("the checkpoint is of store {}, this is store {}", checkpoint.store, store.id())));
    }
    let position = checkpoint.position.get();
    let at = Read { after: position.saturating_sub(1), before: Some(position + 1), ..Read::new(StreamId::all()) };
    let page = store.engine().read(at).await?;
    if page.head < position {
        return Err(rewound(format!("the log ends at position {}", page.head)));
    }
    match page.mark {
        Some(mark) if mark.position == checkpoint.position && mark.checksum != checkpoint.checksum => {
            Err(rewound("the event at that position is another".to_owned()))
        }
        Some(_) => Ok(()),
        None => Err(rewound("there is no event at that position".to_owned())),
    }
}

/// The checkpoint at a position: at the last event at or below it; [`None`] if there is none.
pub(crate) async fn checkpoint_at(store: &Store, position: Position) -> Result<Option<Checkpoint>, StoreError> {
    let last = Read {
        direction: Direction::Backward,
        before: Some(position.get().saturating_add(1)),
        events: 1,
        ..Read::new(StreamId::all())
    };
    let page = store.engine().read(last).await?;
    let mark = page.events.first().map(|event| Mark { position: event.position, checksum: event.checksum });
    Ok(mark.map(|mark| Checkpoint::new(store.id(), mark)))
}
