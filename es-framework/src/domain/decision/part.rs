//! One state that a decision reads: recalled from memory, loaded, brought up to date, and advanced by what is written.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::super::aggregate::{Aggregate, Apply, OfQuery, OfStream, State};
use super::super::cache::Base;
use super::super::event::{DecodeError, Event};
use super::super::fold::{COPYING, FoldPanic, apply, caught, own};
use super::super::repository::LoadError;
use super::super::view::View;
use super::current::{Current, Source};
use super::memory;
use crate::log::{InvalidName, Position, Store, StoredEvent, Timestamp, Version};

/// A boxed future, for traits that are used as objects.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where states of one type are kept and how they are read; one for aggregates, one for views.
pub trait Keeper<S: State>: Send + Sync {
    /// The newest state in memory, and whether it is known to be behind the log.
    fn recall(&self, source: &Source) -> Option<(Base<S>, bool)>;

    /// Keeps a state, unless a newer one is in memory.
    fn remember(&self, source: &Source, base: &Base<S>);

    /// Reads the state as it is now.
    fn load<'a>(&'a self, source: &'a Source) -> Boxed<'a, Result<Base<S>, LoadError>>;

    /// Folds the events written since, up to a position that the log has reached, or to its end.
    fn extend<'a>(
        &'a self,
        source: &'a Source,
        base: &'a mut Base<S>,
        until: Option<Position>,
    ) -> Boxed<'a, Result<(), LoadError>>;

    /// Saves the state, if it is due.
    fn settle(self: Arc<Self>, source: &Source, base: &Base<S>) -> Option<Boxed<'static, ()>>;
}

/// The kinds of states: how a name becomes a source, and who keeps the state.
pub trait Keep<S: State> {
    /// Where the events of the state are.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the name does not make a stream's id, or a tag.
    fn source(name: &S::Name) -> Result<Source, InvalidName>;

    /// Who keeps states of this type.
    fn keeper(store: &Store) -> Arc<dyn Keeper<S>>;
}

impl<A> Keep<A> for OfStream
where
    A: Aggregate + Apply + State<Name = <A as Aggregate>::Id>,
{
    fn source(id: &A::Name) -> Result<Source, InvalidName> {
        A::stream_id(id).map(Source::Stream)
    }

    fn keeper(store: &Store) -> Arc<dyn Keeper<A>> {
        memory::repository::<A>(store)
    }
}

impl<V: View + Apply> Keep<V> for OfQuery {
    fn source(name: &V::Name) -> Result<Source, InvalidName> {
        name.query().cloned().map(Source::Query)
    }

    fn keeper(store: &Store) -> Arc<dyn Keeper<V>> {
        memory::views::<V>(store)
    }
}

/// One state that a decision reads.
pub struct Part<S: State> {
    current: Current<S>,
    /// [`None`] in a scenario, which has no store.
    keeper: Option<Arc<dyn Keeper<S>>>,
    is_loaded: bool,
    /// Whether a conflict has shown that it is behind the log.
    is_stale: bool,
    /// Whether it was read since the decision began, or is newer than what was read.
    is_fresh: bool,
    /// The events about to be written that concern it, decoded, with their index among all that are written.
    pending: Vec<(S::Event, usize)>,
}

impl<S> Part<S>
where
    S: State + Apply,
    S::Kind: Keep<S>,
{
    pub(super) fn new(name: S::Name, store: Option<&Store>) -> Result<Self, InvalidName> {
        let source = S::Kind::source(&name)?;
        let keeper = store.map(S::Kind::keeper);
        let current = Current { name, source, base: Base::empty() };
        Ok(Self { current, keeper, is_loaded: false, is_stale: false, is_fresh: false, pending: Vec::new() })
    }

    pub(super) fn current(&self) -> &Current<S> {
        &self.current
    }

    /// Reads the state as it is now, continuing from what is in memory.
    pub(super) async fn read(mut self) -> Result<Current<S>, LoadError> {
        self.recall();
        self.refresh().await?;
        self.remember();
        Ok(self.current)
    }
}

impl<S: State> fmt::Debug for Part<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("source", &self.current.source).finish_non_exhaustive()
    }
}

/// An event about to be written that cannot be.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be decoded.
    Decode(DecodeError),
    /// Decoding or applying it panics.
    Panicked(FoldPanic),
}

/// [`Part`] of any type.
pub trait AnyPart: Send {
    /// Where its events are.
    fn source(&self) -> &Source;
    /// Takes the state in memory if it is newer.
    fn recall(&mut self);
    /// Keeps the state in memory.
    fn remember(&self);
    /// Whether it has to be read before it can be used.
    fn needs_reading(&self) -> bool;
    /// Whether it was current at some time after the decision began.
    fn is_fresh(&self) -> bool;
    /// A conflict has shown that it is behind the log.
    fn mark_stale(&mut self);
    /// Reads it, or the events after it.
    fn refresh(&mut self) -> Boxed<'_, Result<(), LoadError>>;
    /// Reads the events after it, up to a position that the log has reached.
    fn extend(&mut self, until: Position) -> Boxed<'_, Result<(), LoadError>>;
    /// The position of the newest event it is folded from.
    fn changed_at(&self) -> Position;
    /// The position up to which it is known to be folded.
    fn current_at(&self) -> Position;
    /// The version of an aggregate.
    fn version(&self) -> Version;
    /// The time of the newest event it is folded from.
    fn time(&self) -> Timestamp;
    /// Decodes the events that concern it and applies them to a copy, to check that this works.
    fn prepare(&mut self, events: &[StoredEvent]) -> Result<(), Refused>;
    /// Applies the prepared events, which were written and are these now, and the log was at `head` then.
    fn commit(&mut self, events: &[StoredEvent], head: Position) -> Result<(), FoldPanic>;
    /// Folds the events that concern it, in a scenario.
    fn fold(&mut self, events: &[StoredEvent], head: Position) -> Result<(), LoadError>;
    /// Saves the state, if it is due.
    fn settle(&self) -> Option<Boxed<'static, ()>>;
}

impl Source {
    /// Whether an event belongs to the state.
    pub(super) fn selects(&self, event: &StoredEvent) -> bool {
        match self {
            Self::Stream(stream) => event.stream == *stream,
            Self::Query(query) => query.selects(event.name(), &event.tags),
        }
    }
}

impl<S: State + Apply> AnyPart for Part<S> {
    fn source(&self) -> &Source {
        &self.current.source
    }

    fn recall(&mut self) {
        let Some((base, is_stale)) = self.keeper.as_ref().and_then(|keeper| keeper.recall(&self.current.source)) else {
            return;
        };
        let known = &self.current.base;
        let is_newer = (base.position, base.current_at) > (known.position, known.current_at);
        if !self.is_loaded || is_newer {
            // A conflict was about an event after the state; a state with another event may have seen it.
            self.is_stale = is_stale || self.is_stale && base.position <= known.position;
            self.is_loaded = true;
            self.current.base = base;
        }
    }

    fn remember(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.remember(&self.current.source, &self.current.base);
        }
    }

    fn needs_reading(&self) -> bool {
        !self.is_loaded || self.is_stale
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn mark_stale(&mut self) {
        self.is_stale = true;
    }

    fn refresh(&mut self) -> Boxed<'_, Result<(), LoadError>> {
        Box::pin(async {
            let Some(keeper) = &self.keeper else { return Ok(()) };
            let Current { source, base, .. } = &mut self.current;
            if self.is_loaded {
                keeper.extend(source, base, None).await?;
            } else {
                *base = keeper.load(source).await?;
            }
            (self.is_loaded, self.is_stale, self.is_fresh) = (true, false, true);
            Ok(())
        })
    }

    fn extend(&mut self, until: Position) -> Boxed<'_, Result<(), LoadError>> {
        Box::pin(async move {
            let Some(keeper) = &self.keeper else { return Ok(()) };
            let Current { source, base, .. } = &mut self.current;
            keeper.extend(source, base, Some(until)).await
        })
    }

    fn changed_at(&self) -> Position {
        self.current.base.position
    }

    fn current_at(&self) -> Position {
        self.current.base.current_at
    }

    fn version(&self) -> Version {
        self.current.base.version
    }

    fn time(&self) -> Timestamp {
        self.current.base.time
    }

    fn prepare(&mut self, events: &[StoredEvent]) -> Result<(), Refused> {
        self.pending.clear();
        let Current { source, base, .. } = &self.current;
        for (index, stored) in events.iter().enumerate().filter(|(_, stored)| source.selects(stored)) {
            let event = caught(|| S::Event::decode(stored))
                .map_err(|message| Refused::Panicked(FoldPanic::new("decoding", stored, message)))?
                .map_err(Refused::Decode)?;
            self.pending.push((event, index));
        }
        let at = |index: usize| events.get(index).expect("the index is that of one of the events");
        let Some((_, first)) = self.pending.first() else { return Ok(()) };
        let first = at(*first);
        let copying = |message| FoldPanic::new(COPYING, first, message);
        let mut copy = caught(|| S::clone(&base.state)).map_err(copying).map_err(Refused::Panicked)?;
        let applied = self.pending.iter().try_for_each(|(event, index)| apply(&mut copy, event, at(*index)));
        applied.and(caught(|| drop(copy)).map_err(copying)).map_err(Refused::Panicked)
    }

    fn commit(&mut self, events: &[StoredEvent], head: Position) -> Result<(), FoldPanic> {
        let base = &mut self.current.base;
        let written = std::mem::take(&mut self.pending).into_iter();
        let mut written = written.filter_map(|(event, index)| Some((event, events.get(index)?))).peekable();
        if let Some((_, first)) = written.peek() {
            let state = own(&mut base.state, first)?;
            for (event, stored) in written {
                apply(state, event, stored)?;
                (base.version, base.position, base.time) = (stored.version, stored.position, stored.time);
            }
        }
        base.current_at = head;
        (self.is_stale, self.is_fresh) = (false, true);
        Ok(())
    }

    fn fold(&mut self, events: &[StoredEvent], head: Position) -> Result<(), LoadError> {
        let Current { source, base, .. } = &mut self.current;
        for stored in events.iter().filter(|stored| source.selects(stored)) {
            base.fold_events(std::slice::from_ref(stored))?;
        }
        base.current_at = head;
        Ok(())
    }

    fn settle(&self) -> Option<Boxed<'static, ()>> {
        Arc::clone(self.keeper.as_ref()?).settle(&self.current.source, &self.current.base)
    }
}
