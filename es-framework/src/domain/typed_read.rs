//! Reading typed events.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::aggregate::{Aggregate, Apply};
use super::event::{DecodeError, Event, Recorded};
use super::repository::{LoadError, Repository};
use crate::log::{AsOf, Filter, InvalidName, Place, Reader, Reading, StoreError, StoredEvent, Stream};

impl Filter {
    /// Lets events of this type through, under all their names.
    pub fn events<E: Event>(self) -> Self {
        self.types(E::names())
    }
}

impl Stream {
    /// Reads the events of one type, decoded. Others are skipped without being decoded.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// let account = store.open_stream("account-alice")?;
    /// account.write_events(&[AccountEvent::Deposited { cents: 500 }], ExpectedVersion::Any).await?;
    /// let events = account.read_as::<AccountEvent>().limit(10).await?;
    /// assert!(matches!(events[0].event(), AccountEvent::Deposited { cents: 500 }));
    /// # Ok(()) }
    /// ```
    pub fn read_as<E: Event>(&self) -> TypedReader<E> {
        TypedReader::new(Ok(self.read()))
    }
}

impl<A: Aggregate + Apply> Repository<A> {
    /// Reads the events of an aggregate. An id that does not make a valid stream id is reported when the read runs.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account;
    /// # impl Apply for Account { fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {} }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let accounts = Repository::<Account>::new(MemoryStore::new());
    /// let newest = accounts.events("alice").backward().limit(3).await?;
    /// for event in &newest {
    ///     println!("{}: {:?}", event.version(), event.event());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn events(&self, id: impl Into<A::Id>) -> TypedReader<A::Event> {
        TypedReader::new(self.stream_of(&id.into()).map(|stream| stream.read()))
    }

    /// The stream of an aggregate.
    pub(super) fn stream_of(&self, id: &A::Id) -> Result<Stream, InvalidName> {
        Ok(self.store().stream(<A as Aggregate>::stream_id(id)?))
    }
}

impl Reader {
    /// Reads the events of one type, decoded. Others are skipped without being decoded.
    pub fn typed<E: Event>(self) -> TypedReader<E> {
        TypedReader::new(Ok(self))
    }

    /// Runs the read and collects its events of one type, decoded; the same as `self.typed().collect()`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the store cannot be read or an event cannot be decoded.
    pub async fn collect_as<E: Event>(self) -> Result<Vec<Recorded<E>>, LoadError> {
        self.typed().collect().await
    }
}

/// Builds a read of typed events, as [`Reader`] does for stored ones; [`Self::stream`] or [`Self::collect`] runs it,
/// and awaiting it collects.
#[must_use = "a read does nothing until it is run: `.await` it, or run it with `stream` or `collect`"]
pub struct TypedReader<E> {
    /// Or the error of the aggregate's id, reported when the read runs.
    reader: Result<Reader, InvalidName>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> TypedReader<E> {
    fn new(reader: Result<Reader, InvalidName>) -> Self {
        let reader = reader.map(|reader| reader.filter(Filter::new().events::<E>()));
        Self { reader, event: PhantomData }
    }

    fn with(self, change: impl FnOnce(Reader) -> Reader) -> Self {
        Self { reader: self.reader.map(change), event: PhantomData }
    }

    /// Only events after this version (for `@all`, this position).
    pub fn after(self, place: impl Into<Place>) -> Self {
        self.with(|reader| reader.after(place))
    }

    /// Only events before this version (for `@all`, this position).
    pub fn before(self, place: impl Into<Place>) -> Self {
        self.with(|reader| reader.before(place))
    }

    /// Reads from the newest event to the oldest.
    pub fn backward(self) -> Self {
        self.with(Reader::backward)
    }

    /// The maximum number of events of the type.
    pub fn limit(self, events: usize) -> Self {
        self.with(|reader| reader.limit(events))
    }

    /// Only events that pass this filter and any filter given before.
    pub fn filter(self, filter: Filter) -> Self {
        self.with(|reader| reader.filter(filter))
    }

    /// Only events that existed at a moment in the past.
    pub fn as_of(self, moment: impl Into<AsOf>) -> Self {
        self.with(|reader| reader.as_of(moment))
    }

    /// Limits each page to a number of events and payload bytes, as [`Reader::page`] does.
    pub fn page(self, events: usize, bytes: usize) -> Self {
        self.with(|reader| reader.page(events, bytes))
    }

    /// Runs the read, page by page. It ends at the head as of its first page.
    pub fn stream(self) -> TypedReading<E> {
        TypedReading(match self.reader {
            Ok(reader) => Decoding::of(reader.stream()),
            Err(error) => Decoding::failed(error),
        })
    }

    /// Runs the read and collects its events. Bound it with [`Self::limit`]: all events are held in memory at once.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the aggregate's id is not valid, the store cannot be read or an event cannot be decoded.
    pub async fn collect(self) -> Result<Vec<Recorded<E>>, LoadError> {
        let mut reading = self.stream();
        let mut events = Vec::new();
        while let Some(batch) = reading.next_batch().await {
            events.extend(batch?);
        }
        Ok(events)
    }
}

impl<E: Event> IntoFuture for TypedReader<E> {
    type Output = Result<Vec<Recorded<E>>, LoadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.collect())
    }
}

impl<E> Clone for TypedReader<E> {
    fn clone(&self) -> Self {
        Self { reader: self.reader.clone(), event: PhantomData }
    }
}

impl<E> fmt::Debug for TypedReader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReader").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// A running read of typed events, as [`Reading`] is for stored ones. Also a [`futures_core::Stream`].
///
/// After an error the read is over.
#[must_use = "a read yields events when it is polled"]
pub struct TypedReading<E>(Decoding<Reading, E>);

impl<E: Event> TypedReading<E> {
    /// The next event; [`None`] at the end.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the aggregate's id is not valid, the store cannot be read or an event cannot be decoded; the
    /// read is over then.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Recorded<E>, LoadError>> {
        poll_fn(|context| self.0.poll_event(context)).await
    }

    /// The next events available without waiting for more, at least one; [`None`] at the end.
    ///
    /// # Errors
    ///
    /// As for [`Self::next`]; the events before one that cannot be decoded come first.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<Recorded<E>>, LoadError>> {
        let batch = match self.0.source() {
            Ok(reading) => reading.next_batch().await?,
            Err(over) => return over.map(Err),
        };
        Some(self.0.decode(batch))
    }
}

impl<E: Event> futures_core::Stream for TypedReading<E> {
    type Item = Result<Recorded<E>, LoadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_event(context)
    }
}

impl<E> fmt::Debug for TypedReading<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decodes what a read or a watch yields.
pub(super) struct Decoding<S, E> {
    source: Source<S>,
    event: PhantomData<fn() -> E>,
}

#[derive(Debug)]
enum Source<S> {
    Open(S),
    /// Only this error is still to be returned.
    Failed(LoadError),
    Over,
}

impl<S, E: Event> Decoding<S, E> {
    pub(super) fn of(source: S) -> Self {
        Self { source: Source::Open(source), event: PhantomData }
    }

    fn failed(error: InvalidName) -> Self {
        Self { source: Source::Failed(error.into()), event: PhantomData }
    }

    /// The source of events, or what to return instead: an error once, then the end.
    pub(super) fn source(&mut self) -> Result<&mut S, Option<LoadError>> {
        if matches!(self.source, Source::Failed(_)) {
            let Source::Failed(error) = std::mem::replace(&mut self.source, Source::Over) else { return Err(None) };
            return Err(Some(error));
        }
        match &mut self.source {
            Source::Open(source) => Ok(source),
            Source::Failed(_) | Source::Over => Err(None),
        }
    }

    /// Decodes a batch. The events before one that cannot be decoded are returned first, and the error next.
    pub(super) fn decode(
        &mut self,
        batch: Result<Vec<StoredEvent>, StoreError>,
    ) -> Result<Vec<Recorded<E>>, LoadError> {
        let batch = batch.inspect_err(|_| self.source = Source::Over)?;
        let mut events = Vec::with_capacity(batch.len());
        for stored in batch {
            match Recorded::decode(stored) {
                Ok(event) => events.push(event),
                Err(error) if events.is_empty() => return Err(self.end(error)),
                Err(error) => {
                    self.source = Source::Failed(error.into());
                    break;
                }
            }
        }
        Ok(events)
    }

    fn end(&mut self, error: DecodeError) -> LoadError {
        self.source = Source::Over;
        error.into()
    }
}

impl<S, E> Decoding<S, E>
where
    S: futures_core::Stream<Item = Result<StoredEvent, StoreError>> + Unpin,
    E: Event,
{
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Recorded<E>, LoadError>>> {
        let stored = match self.source() {
            Ok(source) => ready!(Pin::new(source).poll_next(context)),
            Err(over) => return Poll::Ready(over.map(Err)),
        };
        Poll::Ready(stored.map(|stored| match stored {
            Ok(stored) => Recorded::decode(stored).map_err(|error| self.end(error)),
            Err(error) => {
                self.source = Source::Over;
                Err(error.into())
            }
        }))
    }
}

impl<S: fmt::Debug, E> fmt::Debug for Decoding<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}
