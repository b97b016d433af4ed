//! What the decisions of a process remember about a store: states, and who is deciding on what.
//!
//! The states of aggregates are those that their repository caches, so that decisions and commands on one aggregate warm
//! each other: see [`Registered`]. Views have a cache of their own. Neither is trusted: see [`super::run`].

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::super::aggregate::{Aggregate, Apply, State};
use super::super::cache::Base;
use super::super::repository::{Inner, LoadError, Repository};
use super::super::turns::{Next, Turn};
use super::current::Source;
use super::lanes::Lanes;
use super::part::{Boxed, Keeper};
use crate::engine::BoundedMap;
use crate::log::{Filter, Position, Query, Store};

/// The minimum number of states that are kept of each view.
const VIEWS: usize = 1_024;

/// Kept with the store.
#[derive(Default)]
pub(super) struct Memory {
    /// One [`Registered`] or [`Views`] for each type of state.
    keepers: Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
    pub(super) lanes: Lanes,
}

impl Memory {
    fn keepers(&self) -> MutexGuard<'_, HashMap<TypeId, Box<dyn Any + Send + Sync>>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `look` with the value kept for a type of state, created if there is none.
    fn with<S: State, K: Default + Send + Sync + 'static, T>(&self, look: impl FnOnce(&mut K) -> T) -> T {
        let mut keepers = self.keepers();
        let kept = keepers.entry(TypeId::of::<S>()).or_insert_with(|| Box::new(K::default()));
        look(kept.downcast_mut().expect("each type of state has one kind of keeper"))
    }
}

/// The repository whose cache serves decisions: the newest one that was built with a cache and is still alive, else one
/// of the decisions' own.
struct Registered<A: Aggregate> {
    built: Weak<Inner<A>>,
    own: Option<Arc<Inner<A>>>,
}

impl<A: Aggregate> Default for Registered<A> {
    fn default() -> Self {
        Self { built: Weak::new(), own: None }
    }
}

/// Lets a new repository serve the decisions on its store.
pub(in crate::domain) fn remember_repository<A: Aggregate>(repository: &Arc<Inner<A>>) {
    if repository.settings.caches() {
        let memory = repository.store.extension::<Memory>();
        memory.with::<A, Registered<A>, _>(|registered| registered.built = Arc::downgrade(repository));
    }
}

/// The repository that serves decisions on aggregates of this type.
pub(super) fn repository<A: Aggregate + Apply>(store: &Store) -> Arc<Inner<A>> {
    store.extension::<Memory>().with::<A, Registered<A>, _>(|registered| {
        registered.built.upgrade().unwrap_or_else(|| {
            let own = || Repository::<A>::builder(store.without_extensions()).inner();
            Arc::clone(registered.own.get_or_insert_with(own))
        })
    })
}

/// The keeper of views of this type.
pub(super) fn views<V: State + Apply>(store: &Store) -> Arc<Views<V>> {
    store.extension::<Memory>().with::<V, Option<Arc<Views<V>>>, _>(|views| {
        let new = || Arc::new(Views { store: store.without_extensions(), kept: Mutex::new(BoundedMap::new(VIEWS)) });
        Arc::clone(views.get_or_insert_with(new))
    })
}

impl<A: Aggregate + Apply> Keeper<A> for Inner<A> {
    fn recall(&self, source: &Source) -> Option<(Base<A>, bool)> {
        let Source::Stream(stream) = source else { return None };
        let slot = self.slot(stream);
        slot.turns.peek(|memory| memory.base.clone().map(|base| (base, memory.is_stale))).flatten()
    }

    fn remember(&self, source: &Source, base: &Base<A>) {
        let Source::Stream(stream) = source else { return };
        let slot = self.slot(stream);
        // If a command has the state, it has read it or is writing: it keeps what it finds.
        slot.turns.peek(|memory| {
            let known = memory.base.as_ref().map(|known| (known.version, known.current_at));
            if known.is_none_or(|known| known < (base.version, base.current_at)) {
                memory.is_stale &= known.is_some_and(|(version, _)| version >= base.version);
                memory.base = Some(base.clone());
            }
        });
    }

    fn load<'a>(&'a self, source: &'a Source) -> Boxed<'a, Result<Base<A>, LoadError>> {
        Box::pin(async move {
            let Source::Stream(stream) = source else { return Ok(Base::empty()) };
            // A command that is running has the state; what it leaves need not be read again.
            let slot = self.slot(stream);
            let turn = slot.turns.take(|memory| Next::Done(memory.base.clone())).await;
            match turn {
                Turn::Done(Some(mut base)) => self.refresh(stream, &mut base).await.map(|()| base),
                Turn::Done(None) | Turn::Ran(_) => Self::load(self, stream, None).await,
            }
        })
    }

    fn extend<'a>(
        &'a self,
        source: &'a Source,
        base: &'a mut Base<A>,
        until: Option<Position>,
    ) -> Boxed<'a, Result<(), LoadError>> {
        Box::pin(async move {
            match (source, until) {
                (Source::Stream(stream), None) => self.refresh(stream, base).await,
                (Source::Stream(stream), Some(until)) => self.refresh_until(stream, base, until).await,
                (Source::Query(_), _) => Ok(()),
            }
        })
    }

    fn settle(self: Arc<Self>, source: &Source, base: &Base<A>) -> Option<Boxed<'static, ()>> {
        let Source::Stream(stream) = source else { return None };
        if !self.is_due(stream, base) {
            return None;
        }
        let (stream, base) = (stream.clone(), base.clone());
        Some(Box::pin(async move { self.save_due(&stream, base).await }))
    }
}

/// Reads views of one type, and keeps the states of those that were used last.
pub(super) struct Views<V> {
    store: Store,
    kept: Mutex<BoundedMap<Query, Base<V>>>,
}

impl<V> Views<V> {
    fn kept(&self) -> MutexGuard<'_, BoundedMap<Query, Base<V>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: State + Apply> Keeper<V> for Views<V> {
    fn recall(&self, source: &Source) -> Option<(Base<V>, bool)> {
        let Source::Query(query) = source else { return None };
        self.kept().get(query).map(|base| (base.clone(), false))
    }

    fn remember(&self, source: &Source, base: &Base<V>) {
        let Source::Query(query) = source else { return };
        let mut kept = self.kept();
        match kept.get(query) {
            Some(known) if known.current_at >= base.current_at => {}
            Some(known) => *known = base.clone(),
            None => kept.insert(query.clone(), base.clone()),
        }
    }

    fn load<'a>(&'a self, source: &'a Source) -> Boxed<'a, Result<Base<V>, LoadError>> {
        Box::pin(async move {
            let mut base = Base::empty();
            self.extend(source, &mut base, None).await?;
            Ok(base)
        })
    }

    fn extend<'a>(
        &'a self,
        source: &'a Source,
        base: &'a mut Base<V>,
        until: Option<Position>,
    ) -> Boxed<'a, Result<(), LoadError>> {
        Box::pin(async move {
            let Source::Query(query) = source else { return Ok(()) };
            let filter = Filter::new().query(query.clone());
            let reader = self.store.all().read().filter(filter).after(base.current_at);
            let reader = match until {
                Some(until) => reader.before(until.next()),
                None => reader,
            };
            let mut events = reader.stream();
            while let Some(batch) = events.next_batch().await {
                base.fold_events(&batch?)?;
            }
            // The read ended at the head that its first page saw, or at `until`.
            let reached = until.or_else(|| events.head()).unwrap_or_default();
            base.current_at = base.current_at.max(reached);
            Ok(())
        })
    }

    fn settle(self: Arc<Self>, _: &Source, _: &Base<V>) -> Option<Boxed<'static, ()>> {
        None
    }
}
