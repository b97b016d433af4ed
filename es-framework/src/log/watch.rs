//! Watching: history first, then new events as they are written, forever.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture, Pending, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::engine::Engine;
use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::Filter;
use super::name::StreamId;
use super::notifier::Subscription;
use super::pages::Pages;
use super::position::{Place, Position};
use super::read::{Mark, Page, Read};
use super::store::Store;
use super::stream::place_in;

/// A builder for a watch; awaiting it starts the watch.
#[derive(Debug, Clone)]
#[must_use = "a watch begins when it is awaited: `.watch().await?`"]
pub struct WatchBuilder {
    store: Store,
    stream: StreamId,
    filter: Filter,
    after: Option<Place>,
}

impl WatchBuilder {
    pub(super) fn new(store: Store, stream: StreamId) -> Self {
        Self { store, stream, filter: Filter::new(), after: None }
    }

    /// Starts with the history after this version (for `@all`, this position) instead of at the present.
    pub fn after(mut self, place: impl Into<Place>) -> Self {
        self.after = Some(place.into());
        self
    }

    /// Starts with the first event.
    pub fn from_start(mut self) -> Self {
        let all = self.stream.is_all();
        self.after = Some(if all { Position::ZERO.into() } else { super::Version::ZERO.into() });
        self
    }

    /// Only events that pass this filter and any filter set before.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = self.filter.and_all(filter);
        self
    }

    /// Makes the compiler explain what to do: a watch yields events once it is awaited.
    #[doc(hidden)]
    #[expect(clippy::should_implement_trait, reason = "never called")]
    pub fn next(&mut self) -> Pending<Option<Result<StoredEvent, StoreError>>>
    where
        for<'a> Self: NotAwaited<'a>,
    {
        pending()
    }

    async fn start(self) -> Result<Watch, StoreError> {
        let Self { store, stream, filter, after } = self;
        filter.validate()?;
        let engine = Arc::clone(store.engine());
        // Subscribe before the head is read, so that no commit is missed in between.
        let subscription = engine.notifier().subscribe(&stream, &filter);
        let place = if let Some(place) = after {
            place_in(&stream, place)?
        } else {
            engine.read(Read { events: 0, ..Read::new(stream.clone()) }).await?.head
        };
        let read = Read { after: place, filter, ..Read::new(stream) };
        Ok(Watch { engine, subscription, read, covered: None, events: VecDeque::new(), state: State::Look })
    }
}

/// Never implemented, so that the compiler explains what to do.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a watch begins when it is awaited",
    label = "`.await` the watch first: `let mut watch = stream.watch().await?`"
)]
pub trait NotAwaited<'a> {}

impl IntoFuture for WatchBuilder {
    type Output = Result<Watch, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// A running watch: events in order, without gaps or duplicates, forever. Also a [`futures_core::Stream`].
///
/// Once it has caught up, it is fed from the newest events in memory and costs no queries. A watcher that falls behind
/// reads pages again, and never holds more than four. Dropping it ends the watch.
#[must_use = "a watch yields events when it is polled"]
pub struct Watch {
    engine: Arc<dyn Engine>,
    subscription: Subscription,
    /// What is left to read; its `after` is the last place examined.
    read: Read,
    /// The position up to which the log is known to hold nothing more for this watch.
    covered: Option<Position>,
    events: VecDeque<StoredEvent>,
    state: State,
}

enum State {
    /// Look at the ring, or start reading where the ring does not reach.
    Look,
    /// Reading pages; the position is the head from before they were requested.
    Reading(Position, Pages),
    /// Everything was seen; waiting to be woken.
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// The error was returned; the watch is over.
    Ended,
}

impl Watch {
    /// Returns the next event, when there is one; [`None`] after an error was returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`] when the store is closed; another [`StoreError`] if it cannot be read. The watch is then
    /// over, and can be started again after the last event's place.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<StoredEvent, StoreError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// Returns the next events that are at hand without waiting for more, at least one; [`None`] after an error was
    /// returned.
    ///
    /// # Errors
    ///
    /// As for [`Self::next`].
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<StoredEvent>, StoreError>> {
        let first = match self.next().await? {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        let mut batch = Vec::with_capacity(1 + self.events.len());
        batch.push(first);
        batch.extend(self.events.drain(..));
        Some(Ok(batch))
    }

    /// Returns the next stretch of the log, even if nothing in it passed the filter; for the projection runner.
    pub(crate) async fn next_stretch(&mut self) -> Option<Result<Stretch, StoreError>> {
        poll_fn(|context| self.poll_stretch(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<StoredEvent, StoreError>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.poll_stretch(context)) {
                Some(Ok(stretch)) => self.events = stretch.events.into(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_stretch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Stretch, StoreError>>> {
        loop {
            let next = match &mut self.state {
                State::Look if self.subscription.is_closed() => Err(StoreError::Closed),
                State::Look => match self.look() {
                    Some(stretch) => Ok(stretch),
                    None => continue,
                },
                State::Reading(head, pages) => match ready!(pages.poll_page(context)) {
                    Some(Ok(page)) => {
                        // Request at once, so that the next pages are in flight while this one is processed.
                        pages.ask(context);
                        let through = pages.is_done().then_some(*head);
                        Ok(self.take(page, through))
                    }
                    Some(Err(error)) => Err(error),
                    None => {
                        self.state = State::Look;
                        continue;
                    }
                },
                State::Waiting(woken) => {
                    ready!(woken.as_mut().poll(context));
                    self.state = State::Look;
                    continue;
                }
                State::Ended => return Poll::Ready(None),
            };
            if next.is_err() {
                self.state = State::Ended;
            }
            return Poll::Ready(Some(next));
        }
    }

    /// Takes what the ring holds, or switches to reading pages or to waiting.
    fn look(&mut self) -> Option<Stretch> {
        let Read { stream, after, filter, .. } = &self.read;
        let of_all = stream.is_all();
        let wanted = |event: &StoredEvent| {
            (of_all || (event.stream == *stream && event.version.get() > *after)) && filter.matches(&event.header())
        };
        let ring = self.covered.and_then(|covered| self.subscription.newest_after(covered, wanted));
        let Some(ring) = ring else {
            let head = self.engine.notifier().head();
            self.state = State::Reading(head, Pages::new(Arc::clone(&self.engine), self.read.clone(), None));
            return None;
        };
        // A page may have seen a commit before the notifier announced it, so the ring can also be behind.
        if self.covered >= Some(ring.upto) {
            self.state = State::Waiting(Box::pin(Subscription::woken(self.subscription.wake())));
            return None;
        }
        self.covered = Some(ring.upto);
        if of_all {
            self.read.after = self.read.after.max(ring.upto.get());
        } else if let Some(last) = ring.events.last() {
            self.read.after = last.version.get();
        }
        Some(Stretch { events: ring.events, upto: self.read.after, mark: ring.mark, caught_up: true })
    }

    /// Takes a page; `through` is the head from before the first page, if this is the last.
    fn take(&mut self, page: Page, through: Option<Position>) -> Stretch {
        self.read.after = self.read.after.max(page.scanned);
        let caught_up = through.is_some() && page.head <= self.read.after;
        if let Some(head) = through {
            let seen = if self.read.stream.is_all() { Position::new(self.read.after) } else { Position::ZERO };
            // If the log has grown since the first page, keep reading: there may be no wake-up for what was added.
            self.covered = caught_up.then(|| head.max(seen));
            self.state = State::Look;
        }
        Stretch { events: page.events, upto: self.read.after, mark: page.mark, caught_up }
    }
}

/// A stretch of the log, as a watch returns it.
#[derive(Debug)]
pub(crate) struct Stretch {
    /// The events that passed the filter.
    pub(crate) events: Vec<StoredEvent>,
    /// The place up to which everything was examined.
    pub(crate) upto: u64,
    /// For `@all`: the last event at or below `upto`, whether it passed the filter or not.
    pub(crate) mark: Option<Mark>,
    /// Whether the log held nothing more when this stretch was examined.
    pub(crate) caught_up: bool,
}

impl futures_core::Stream for Watch {
    type Item = Result<StoredEvent, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("read", &self.read).field("covered", &self.covered).finish_non_exhaustive()
    }
}
