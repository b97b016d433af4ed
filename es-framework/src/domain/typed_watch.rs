//! Watching typed events.

use std::fmt;
use std::future::{IntoFuture, Pending, pending, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::aggregate::{Aggregate, Apply};
use super::event::{Event, Recorded};
use super::repository::{LoadError, Repository};
use super::typed_read::Decoding;
use crate::log::{Filter, InvalidName, NotAwaited, Place, Store, Stream, Watch, WatchBuilder};

impl Stream {
    /// Watches the events of one type, decoded: from the present by default, then forever. Others are skipped without
    /// being decoded.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// let account = store.open_stream("account-alice")?;
    /// let mut watch = account.watch_as::<AccountEvent>().await?;
    /// account.write_events(&[AccountEvent::Deposited { cents: 500 }], ExpectedVersion::Any).await?;
    /// let event = watch.next().await.expect("a watch goes on forever")?;
    /// assert!(matches!(event.event(), AccountEvent::Deposited { cents: 500 }));
    /// # Ok(()) }
    /// ```
    pub fn watch_as<E: Event>(&self) -> TypedWatchBuilder<E> {
        TypedWatchBuilder::new(Ok(self.watch()))
    }
}

impl Store {
    /// Watches the events of one type in all streams, decoded: from the present by default, then forever.
    pub fn watch_as<E: Event>(&self) -> TypedWatchBuilder<E> {
        self.all().watch_as()
    }
}

impl<A: Aggregate + Apply> Repository<A> {
    /// Watches the events of an aggregate. An id that does not make a valid stream id is reported when the watch is
    /// awaited.
    pub fn watch(&self, id: impl Into<A::Id>) -> TypedWatchBuilder<A::Event> {
        TypedWatchBuilder::new(self.stream_of(&id.into()).map(|stream| stream.watch()))
    }
}

/// Builds a watch of typed events, as [`WatchBuilder`] does for stored ones; awaiting it starts the watch.
#[must_use = "a watch begins when it is awaited: `.watch_as::<E>().await?`"]
pub struct TypedWatchBuilder<E> {
    /// Or the error of the aggregate's id, reported when the watch is awaited.
    watcher: Result<WatchBuilder, InvalidName>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> TypedWatchBuilder<E> {
    fn new(watcher: Result<WatchBuilder, InvalidName>) -> Self {
        let watcher = watcher.map(|watcher| watcher.filter(Filter::new().events::<E>()));
        Self { watcher, event: PhantomData }
    }

    fn with(self, change: impl FnOnce(WatchBuilder) -> WatchBuilder) -> Self {
        Self { watcher: self.watcher.map(change), event: PhantomData }
    }

    /// Starts with the history after this version (for `@all`, this position) instead of the present.
    pub fn after(self, place: impl Into<Place>) -> Self {
        self.with(|watcher| watcher.after(place))
    }

    /// Starts with the first event.
    pub fn from_start(self) -> Self {
        self.with(WatchBuilder::from_start)
    }

    /// Only events that pass this filter and any filter given before.
    pub fn filter(self, filter: Filter) -> Self {
        self.with(|watcher| watcher.filter(filter))
    }

    /// Tells the user what to do: a watch yields events only after it was awaited.
    #[doc(hidden)]
    #[expect(clippy::should_implement_trait, reason = "never called")]
    pub fn next(&mut self) -> Pending<Option<Result<Recorded<E>, LoadError>>>
    where
        for<'a> WatchBuilder: NotAwaited<'a>,
    {
        pending()
    }
}

impl<E: Event> IntoFuture for TypedWatchBuilder<E> {
    type Output = Result<TypedWatch<E>, LoadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { Ok(TypedWatch(Decoding::of(self.watcher?.await?))) })
    }
}

impl<E> Clone for TypedWatchBuilder<E> {
    fn clone(&self) -> Self {
        Self { watcher: self.watcher.clone(), event: PhantomData }
    }
}

impl<E> fmt::Debug for TypedWatchBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedWatchBuilder").field("watcher", &self.watcher).finish_non_exhaustive()
    }
}

/// A running watch of typed events, as [`Watch`] is for stored ones. Also a [`futures_core::Stream`].
#[must_use = "a watch yields events when it is polled"]
pub struct TypedWatch<E>(Decoding<Watch, E>);

impl<E: Event> TypedWatch<E> {
    /// The next event, when there is one; [`None`] after an error was returned.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the store is closed or cannot be read, or the event cannot be decoded. The watch is over then;
    /// a new one can start after the place of the last event.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Recorded<E>, LoadError>> {
        poll_fn(|context| self.0.poll_event(context)).await
    }

    /// The next events available without waiting for more, at least one; [`None`] after an error was returned.
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
            Ok(watch) => watch.next_batch().await?,
            Err(over) => return over.map(Err),
        };
        Some(self.0.decode(batch))
    }
}

impl<E: Event> futures_core::Stream for TypedWatch<E> {
    type Item = Result<Recorded<E>, LoadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_event(context)
    }
}

impl<E> fmt::Debug for TypedWatch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
