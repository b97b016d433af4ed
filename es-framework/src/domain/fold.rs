//! Folding events into state.

use std::any::Any;
use std::borrow::Borrow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::aggregate::Apply;
use super::cache::Base;
use super::event::{DecodeError, Envelope, Event};
use super::repository::LoadError;
use crate::log::{
    Appended, CandidateEvent, EventId, Position, Reading, StoreId, StoredEvent, StreamId, Timestamp, Version,
};

/// A panic in the code that folds an event: `apply`, the event's `Deserialize`, its conversion from an old version, or the
/// `Clone` and `Drop` of states and events in between.
///
/// Every load of the stored event fails the same way, until a program runs whose code does not panic on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} panicked on event {name:?}, version {version} of {stream}: {message}")]
#[non_exhaustive]
pub struct FoldPanic {
    /// What panicked: `apply`, `decoding`, or `copying the state`.
    pub code: &'static str,
    /// The stream of the event.
    pub stream: StreamId,
    /// The version of the event.
    pub version: Version,
    /// The stored name of the event.
    pub name: String,
    /// The message of the panic.
    pub message: String,
}

impl FoldPanic {
    pub(super) fn new(code: &'static str, stored: &StoredEvent, message: String) -> Self {
        let (stream, version) = (stored.stream.clone(), stored.version);
        Self { code, stream, version, name: stored.name().to_owned(), message }
    }
}

/// Runs the user's code; returns the message of a panic as the error.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // Every caller discards what the code was changing when it panicked.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_message(&*panic))
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    match panic.downcast_ref::<&str>() {
        Some(message) => (*message).to_owned(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a message".to_owned()),
    }
}

/// The events of one command, read back before they are written. Their positions in `@all` and their time are not known
/// yet, so their envelopes hold guesses.
pub(super) struct Unwritten<E> {
    events: Vec<(E, StoredEvent)>,
    store: StoreId,
}

impl<E: Event> Unwritten<E> {
    /// Reads back the events that are about to be written after `base`.
    pub(super) fn read_back<A>(
        base: &Base<A>,
        stream: &StreamId,
        store: StoreId,
        now: Timestamp,
        candidates: &[CandidateEvent],
    ) -> Result<Self, ReadBackError> {
        let mut events = Vec::with_capacity(candidates.len());
        for (candidate, n) in candidates.iter().zip(1..) {
            let mut stored = StoredEvent::from_stored(
                stream.clone(),
                base.version.plus(n),
                // An event that cannot be decoded is not reported under a position that belongs to another event.
                Position::ZERO,
                base.time.max(now),
                EventId::derived(store, Position::ZERO),
                Arc::clone(candidate.event_type()),
                candidate.payload().clone(),
                candidate.metadata().cloned(),
                candidate.tags().clone(),
                0,
            );
            let event = caught(|| E::decode(&stored))
                .map_err(|message| ReadBackError::Panicked(FoldPanic::new("decoding", &stored, message)))?
                .map_err(ReadBackError::Decode)?;
            stored.position = Position::new(base.position.get() + n);
            stored.id = id_of(candidate, store, stored.position);
            events.push((event, stored));
        }
        Ok(Self { events, store })
    }

    /// Applies the events to a copy of the state, to check that `apply` does not panic on them.
    pub(super) fn try_on<A: Apply<Event = E>>(&self, base: &Base<A>) -> Result<(), FoldPanic> {
        let Some((_, first)) = self.events.first() else { return Ok(()) };
        let mut copy = caught(|| A::clone(&base.state)).map_err(|panic| FoldPanic::new(COPYING, first, panic))?;
        let applied = self.events.iter().try_for_each(|(event, stored)| apply(&mut copy, event, stored));
        applied.and(caught(|| drop(copy)).map_err(|panic| FoldPanic::new(COPYING, first, panic)))
    }

    /// Corrects the envelopes once the events are written. The positions of an append are contiguous and end at
    /// `appended.position`.
    fn written(&mut self, appended: &Appended, candidates: &[CandidateEvent]) {
        let before = appended.position.get().saturating_sub(self.events.len() as u64);
        for (((_, stored), candidate), n) in self.events.iter_mut().zip(candidates).zip(1..) {
            stored.position = Position::new(before + n);
            stored.time = appended.time;
            stored.id = id_of(candidate, self.store, stored.position);
        }
    }
}

fn id_of(candidate: &CandidateEvent, store: StoreId, position: Position) -> EventId {
    candidate.id().cloned().unwrap_or_else(|| EventId::derived(store, position))
}

/// An event that cannot be read back.
pub(super) enum ReadBackError {
    Decode(DecodeError),
    Panicked(FoldPanic),
}

impl<A: Apply> Base<A> {
    pub(super) fn empty() -> Self {
        Self {
            state: Arc::default(),
            version: Version::ZERO,
            position: Position::ZERO,
            time: Timestamp::default(),
            current_at: Position::ZERO,
            snapshot_at: Arc::default(),
        }
    }

    pub(super) async fn fold_all(&mut self, mut events: Reading) -> Result<(), LoadError> {
        while let Some(batch) = events.next_batch().await {
            self.fold_events(&batch?)?;
        }
        Ok(())
    }

    /// Folds stored events. After an error the state is unusable.
    pub(super) fn fold_events(&mut self, events: &[StoredEvent]) -> Result<(), LoadError> {
        let Some(last) = events.last() else { return Ok(()) };
        let state = own(&mut self.state, events.first().unwrap_or(last))?;
        for stored in events {
            let event = caught(|| A::Event::decode(stored))
                .map_err(|message| FoldPanic::new("decoding", stored, message))??;
            apply(state, event, stored)?;
        }
        (self.version, self.position, self.time) = (last.version, last.position, last.time);
        self.current_at = self.current_at.max(last.position);
        Ok(())
    }

    /// Applies events that were just written. After an error the state is unusable.
    pub(super) fn apply_written(
        &mut self,
        mut events: Unwritten<A::Event>,
        appended: &Appended,
        candidates: &[CandidateEvent],
    ) -> Result<(), FoldPanic> {
        events.written(appended, candidates);
        let Some((_, first)) = events.events.first() else { return Ok(()) };
        let state = own(&mut self.state, first)?;
        for (event, stored) in events.events {
            apply(state, event, &stored)?;
            (self.version, self.position, self.time) = (stored.version, stored.position, stored.time);
        }
        self.current_at = appended.position;
        Ok(())
    }
}

/// What clones and drops a state.
pub(super) const COPYING: &str = "copying the state";

/// The state, to be changed. It is copied only while somebody else holds it, a receipt for example.
pub(super) fn own<'s, A: Clone>(state: &'s mut Arc<A>, first: &StoredEvent) -> Result<&'s mut A, FoldPanic> {
    caught(|| Arc::make_mut(state)).map_err(|message| FoldPanic::new(COPYING, first, message))
}

/// Applies an event, which is a reference to one or is dropped afterwards.
pub(super) fn apply<A: Apply>(
    state: &mut A,
    event: impl Borrow<A::Event>,
    stored: &StoredEvent,
) -> Result<(), FoldPanic> {
    caught(move || state.apply(event.borrow(), Envelope::of(stored)))
        .map_err(|message| FoldPanic::new("apply", stored, message))
}
