//! Reading a stream of events in pages.

use std::future::{Future, IntoFuture, Pending, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use super::error::StoreError;
use super::event::StoredEvent;
use super::filter::Filter;
use super::name::StreamId;
use super::pages::Pages;
use super::position::{Place, Position, Version};
use super::read::{Direction, PAGE_BYTES, PAGE_EVENTS, Page, Read};
use super::store::Store;
use super::stream::place_in;
use super::time::Timestamp;

/// A moment in the past: everything up to and including it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// After the event with this version of the stream.
    Version(Version),
    /// After the event at this position of the log.
    Position(Position),
    /// After the last event written at this time or earlier.
    Time(Timestamp),
}

impl From<Version> for AsOf {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl From<Position> for AsOf {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Timestamp> for AsOf {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

/// A builder for a read. [`Self::stream`] or [`Self::collect`] runs it; awaiting it collects.
///
/// ```
/// use es_framework::{CandidateEvent, ExpectedVersion, MemoryStore, Store, Version};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store: Store = MemoryStore::new().into();
/// # let account = store.open_stream("account-alice")?;
/// # for n in 1..=5 { account.write(CandidateEvent::new("n", vec![n])?, ExpectedVersion::Any).await?; }
/// let mut last_two = account.read().backward().limit(2).stream();
/// while let Some(event) = last_two.next().await {
///     println!("{}", event?.version);
/// }
/// let middle = account.read().after(Version::new(1)).before(Version::new(4)).collect().await?;
/// assert_eq!(middle.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a read does nothing until it is run: `.await` it, or run it with `stream` or `collect`"]
pub struct Reader {
    store: Store,
    read: Read,
    limit: Option<usize>,
    /// A bound of the wrong kind, reported when the read is run.
    wrong: Option<Place>,
}

impl Reader {
    pub(super) fn new(store: Store, stream: StreamId) -> Self {
        Self { store, read: Read::new(stream), limit: None, wrong: None }
    }

    /// Only events after this version (for `@all`, this position).
    pub fn after(mut self, place: impl Into<Place>) -> Self {
        if let Some(after) = self.place(place.into()) {
            self.read.after = self.read.after.max(after);
        }
        self
    }

    /// Only events before this version (for `@all`, this position).
    pub fn before(mut self, place: impl Into<Place>) -> Self {
        if let Some(before) = self.place(place.into()) {
            self.read.before = Some(self.read.before.map_or(before, |other| other.min(before)));
        }
        self
    }

    /// From the newest to the oldest.
    pub fn backward(mut self) -> Self {
        self.read.direction = Direction::Backward;
        self
    }

    /// Sets the maximum number of events.
    pub fn limit(mut self, events: usize) -> Self {
        self.limit = Some(events);
        self
    }

    /// Only events that pass this filter and any filter set before.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.read.filter = self.read.filter.and_all(filter);
        self
    }

    /// Only what was there at a moment in the past.
    pub fn as_of(mut self, moment: impl Into<AsOf>) -> Self {
        match moment.into() {
            AsOf::Version(version) => self.before(version.next()),
            AsOf::Position(position) if self.read.stream.is_all() => self.before(position.next()),
            AsOf::Position(position) => {
                self.read.filter = self.read.filter.before(position.next());
                self
            }
            AsOf::Time(time) => {
                self.read.filter = self.read.filter.until(time);
                self
            }
        }
    }

    /// Sets the maximum number of events and payload bytes of a page, instead of [`PAGE_EVENTS`] and [`PAGE_BYTES`]. A
    /// page holds at least one event.
    pub fn page(mut self, events: usize, bytes: usize) -> Self {
        self.read.events = events.clamp(1, PAGE_EVENTS.max(events.min(65_536)));
        self.read.bytes = bytes.clamp(1, 64 * PAGE_BYTES);
        self
    }

    /// Runs the read, in pages. It ends at the head seen by its first page.
    pub fn stream(self) -> Reading {
        let wrong = self.invalid();
        let Self { store, read, limit, .. } = self;
        let limit = if wrong.is_some() { Some(0) } else { limit };
        let page = read.events;
        Reading {
            pages: Pages::new(Arc::clone(store.engine()), read, limit),
            page,
            events: Vec::new().into_iter(),
            wrong,
        }
    }

    /// Runs the read and collects its events. Bound it with [`Self::limit`]: all events are held in memory at once.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or an event is damaged.
    pub async fn collect(self) -> Result<Vec<StoredEvent>, StoreError> {
        let mut reading = self.stream();
        let mut events = Vec::new();
        while let Some(event) = reading.next().await {
            events.push(event?);
        }
        Ok(events)
    }

    /// Counts the events instead of returning them, up to the limit if one was set. Payloads are not read, so damage to
    /// them goes unnoticed.
    ///
    /// The events are counted page by page, up to the head seen by the first page. A filter by a
    /// [`Query`](super::Query) costs what the matching events cost; any other examines the log.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or the read is invalid.
    pub async fn count(self) -> Result<u64, StoreError> {
        let limit = self.limit.map_or(u64::MAX, |limit| limit as u64);
        if let Some(invalid) = self.invalid() {
            return Err(invalid);
        }
        let read = Read { count: true, ..self.read };
        let mut pages = Pages::new(Arc::clone(self.store.engine()), read, None);
        let mut count = 0_u64;
        while count < limit
            && let Some(page) = poll_fn(|context| pages.poll_page(context)).await
        {
            let page = page?;
            count = count.saturating_add(page.counted).saturating_add(page.events.len() as u64);
        }
        Ok(count.min(limit))
    }

    /// What is wrong with the read, if it cannot be run.
    fn invalid(&self) -> Option<StoreError> {
        if let Some(place) = self.wrong {
            return Some(StoreError::WrongPlace { stream: self.read.stream.clone(), place });
        }
        self.read.filter.validate().err().map(StoreError::from)
    }

    /// Makes the compiler explain what to do: a read yields events once it runs.
    #[doc(hidden)]
    #[expect(clippy::should_implement_trait, reason = "never called")]
    pub fn next(&mut self) -> Pending<Option<Result<StoredEvent, StoreError>>>
    where
        for<'a> Self: NotRun<'a>,
    {
        pending()
    }

    fn place(&mut self, place: Place) -> Option<u64> {
        let number = place_in(&self.read.stream, place).ok();
        if number.is_none() {
            self.wrong = Some(place);
        }
        number
    }
}

/// Never implemented, so that the compiler explains what to do.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a read yields events once it runs",
    label = "run it first: `.stream().next()`, or `.await` it for all of them",
    note = "`stream` runs a read, and `collect` or `.await` collects its events"
)]
pub trait NotRun<'a> {}

impl IntoFuture for Reader {
    type Output = Result<Vec<StoredEvent>, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.collect())
    }
}

/// A running read: events in order, fetched in pages. Also a [`futures_core::Stream`].
///
/// No connection, transaction or lock is held between two pages, so a read may be paused for any length of time. The
/// next pages, up to three, are fetched while one is consumed. After an error the read is over.
#[must_use = "a read yields events when it is polled"]
pub struct Reading {
    pages: Pages,
    /// The number of events on the last page.
    page: usize,
    /// The events of that page that are still at hand.
    events: vec::IntoIter<StoredEvent>,
    /// The error of an invalid read, until it is returned.
    wrong: Option<StoreError>,
}

impl Reading {
    /// Requires that no event is missing, because they are folded into a state. Only for a forward read of one stream
    /// without a filter.
    pub(crate) fn whole(mut self) -> Self {
        self.pages.whole();
        self
    }

    /// The rest of a read whose first page was fetched in another way and consumed.
    pub(crate) fn following(store: &Store, read: Read, page: &Page) -> Self {
        let pages = Pages::following(Arc::clone(store.engine()), read, page);
        Self { pages, page: 0, events: vec::IntoIter::default(), wrong: None }
    }

    /// The head of the log when the first page was read; [`None`] before it has arrived, and for a read of a stream.
    ///
    /// A read of `@all` shows everything up to this position, also what other processes wrote. Once it has ended, its
    /// caller can append [unless](super::Append::unless) something that matches was written after it.
    ///
    /// ```
    /// use es_framework::{Append, Criterion, Filter, MemoryStore, Query, Tag};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::new();
    /// let query = Query::from(Criterion::tags([Tag::of("course", "db-101")?]));
    /// let mut reading = store.all().read().filter(Filter::new().query(&query)).stream();
    /// while let Some(event) = reading.next().await {
    ///     println!("{}", event?.name());
    /// }
    /// let append = Append::default().unless(query, reading.head().unwrap_or_default());
    /// store.append(append).await?;
    /// # Ok(()) }
    /// ```
    pub fn head(&self) -> Option<Position> {
        self.pages.head_of_all()
    }

    /// Returns the next event; [`None`] at the end.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read or an event is damaged; the read is then over.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<StoredEvent, StoreError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// Returns the next events that are at hand without waiting for more, at least one; [`None`] at the end.
    ///
    /// # Errors
    ///
    /// As for [`Self::next`].
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<StoredEvent>, StoreError>> {
        poll_fn(|context| {
            let at_hand = ready!(self.poll_at_hand(context));
            let batch = at_hand.map(|at_hand| at_hand.map(|()| std::mem::take(&mut self.events).collect()));
            self.pages.ask(context);
            Poll::Ready(batch)
        })
        .await
    }

    /// Requests the next pages, unless that was done already, without waiting for them.
    pub(crate) async fn fetch_ahead(&mut self) {
        poll_fn(|context| {
            self.pages.ask(context);
            Poll::Ready(())
        })
        .await;
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<StoredEvent, StoreError>>> {
        if let Some(Err(error)) = ready!(self.poll_at_hand(context)) {
            return Poll::Ready(Some(Err(error)));
        }
        // At most half a page ahead, so that an abandoned read has cost little.
        if self.events.len() <= self.page / 2 {
            self.pages.ask(context);
        }
        Poll::Ready(self.events.next().map(Ok))
    }

    /// Waits until there are events at hand; [`None`] at the end.
    fn poll_at_hand(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(), StoreError>>> {
        if let Some(error) = self.wrong.take() {
            return Poll::Ready(Some(Err(error)));
        }
        while self.events.len() == 0 {
            match ready!(self.pages.poll_page(context)) {
                Some(Ok(page)) => (self.page, self.events) = (page.events.len(), page.events.into_iter()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(())))
    }
}

impl futures_core::Stream for Reading {
    type Item = Result<StoredEvent, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("at_hand", &self.events.len()).finish_non_exhaustive()
    }
}
