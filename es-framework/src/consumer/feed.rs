//! The source of a runner's events: stretches of the log, each decoded while the previous one is being processed.

use std::future::Future;
use std::ops::{Deref, Range};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use super::pass::Seat;
use crate::domain::{DecodeError, Event, Recorded};
use crate::log::{Filter, Mark, Position, Store, StoreError, StoredEvent, Stretch, Watch};
use crate::panics;

/// The first panic of an event that was dropped; shared by all events of a run.
pub(super) type PanickedDrop = Arc<OnceLock<String>>;

/// Decoded events, in order.
#[derive(Debug)]
pub(crate) struct Events<E> {
    list: Vec<Recorded<E>>,
    panicked: PanickedDrop,
}

impl<E> Events<E> {
    pub(crate) fn none() -> Self {
        Self { list: Vec::new(), panicked: PanickedDrop::default() }
    }

    pub(super) fn one(event: Recorded<E>, panicked: &PanickedDrop) -> Self {
        Self { list: vec![event], panicked: Arc::clone(panicked) }
    }

    /// The size in bytes of the payloads and metadata of some of them.
    pub(crate) fn bytes(&self, range: Range<usize>) -> usize {
        self.get(range).unwrap_or_default().iter().map(Recorded::bytes).sum()
    }
}

impl<E> Deref for Events<E> {
    type Target = [Recorded<E>];
    fn deref(&self) -> &[Recorded<E>] {
        &self.list
    }
}

impl<E> Drop for Events<E> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<E>() {
            return;
        }
        // One by one: a second panic while dropping the whole vector would abort the process.
        for event in self.list.drain(..) {
            let position = event.position();
            if let Err(message) = panics::catch(|| drop(event)) {
                drop(
                    self.panicked
                        .set(format!("the event at position {position} panicked as it was dropped: {message}")),
                );
            }
        }
    }
}

/// An event that cannot be decoded.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) stored: StoredEvent,
    pub(super) error: DecodeError,
}

/// A stretch of the log, decoded.
#[derive(Debug)]
pub(super) struct Decoded<E> {
    /// The events that could be decoded.
    pub(super) events: Events<E>,
    /// Those in between that could not, in order.
    pub(super) unreadable: Vec<Unreadable>,
    /// The position up to which the log was read.
    pub(super) upto: u64,
    /// The last event at or below `upto`.
    pub(super) mark: Option<Mark>,
    /// Whether the log ended there.
    pub(super) caught_up: bool,
}

impl<E: Event> Decoded<E> {
    pub(super) fn of(stretch: Stretch, panicked: &PanickedDrop) -> Self {
        let Stretch { events: stored, upto, mark, caught_up } = stretch;
        let mut events = Events { list: Vec::with_capacity(stored.len()), panicked: Arc::clone(panicked) };
        let mut unreadable = Vec::new();
        for event in stored {
            match Recorded::decode_or_return(event) {
                Ok(event) => events.list.push(event),
                Err((stored, error)) => unreadable.push(Unreadable { stored: *stored, error }),
            }
        }
        Self { events, unreadable, upto, mark, caught_up }
    }
}

/// Where stretches come from.
enum Source {
    /// A reading of its own.
    Own(Box<Watch>),
    /// One that it shares with others, and what it takes to go on alone.
    Shared { seat: Seat, alone: Alone },
}

/// What it takes to read for itself, from where it has got to.
struct Alone {
    store: Store,
    wanted: Filter,
    after: u64,
}

impl Source {
    async fn next(&mut self) -> Option<Result<Stretch, StoreError>> {
        while let Self::Shared { seat, alone } = self {
            if let Some(stretch) = seat.next().await {
                alone.after = stretch.upto;
                return Some(Ok(stretch));
            }
            let watch = alone.store.all().watch().after(Position::new(alone.after)).filter(alone.wanted.clone());
            match watch.await {
                Ok(watch) => *self = Self::Own(Box::new(watch)),
                Err(error) => return Some(Err(error)),
            }
        }
        let Self::Own(watch) = self else { return None };
        watch.next_stretch().await
    }
}

/// Decoded stretches, in order.
pub(super) struct Feed<E> {
    source: Source,
    panicked: PanickedDrop,
    /// The next stretch, fetched while the previous one was being processed.
    ahead: Option<Result<Decoded<E>, StoreError>>,
    /// Whether the log ended after the last returned stretch.
    caught_up: bool,
}

impl<E: Event> Feed<E> {
    pub(super) fn new(watch: Watch, panicked: PanickedDrop) -> Self {
        Self { source: Source::Own(Box::new(watch)), panicked, ahead: None, caught_up: false }
    }

    /// One that shares the reading of the log with others, behind the position `after`.
    pub(super) fn shared(seat: Seat, store: Store, wanted: Filter, after: u64, panicked: PanickedDrop) -> Self {
        let source = Source::Shared { seat, alone: Alone { store, wanted, after } };
        Self { source, panicked, ahead: None, caught_up: false }
    }

    /// The next stretch, when there is one; [`None`] after an error was returned. Nothing is lost when the future is
    /// dropped.
    pub(super) async fn next(&mut self) -> Option<Result<Decoded<E>, StoreError>> {
        let next = if let Some(ahead) = self.ahead.take() {
            Some(ahead)
        } else {
            let stretch = self.source.next().await;
            stretch.map(|stretch| stretch.map(|stretch| Decoded::of(stretch, &self.panicked)))
        };
        if let Some(Ok(decoded)) = &next {
            self.caught_up = decoded.caught_up;
        }
        next
    }

    /// Runs the processing of the last returned stretch to completion, and meanwhile fetches and decodes at most one
    /// more. So the log's reader, the decoding and the model's transaction work at the same time: of the 8,800
    /// instructions that an event costs until it is a row in a table, they take 4,300, 800 and 3,700.
    ///
    /// It does not fetch ahead once it has caught up: the next stretch would be just the first event written, with a
    /// transaction of its own, whereas all events written during one transaction can share the next.
    pub(super) async fn meanwhile<T>(&mut self, dealing: impl Future<Output = T>) -> T {
        let mut dealing = pin!(dealing);
        if !self.caught_up {
            tokio::select! {
                // Polled first, so that it is under way while the next stretch is decoded.
                biased;
                done = &mut dealing => return done,
                next = self.next() => self.ahead = next,
            }
        }
        dealing.await
    }
}
