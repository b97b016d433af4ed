//! Code that runs inside the transactions of appends.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{AppendError, BoxError, StoreError};
use super::event::StoredEvent;
use super::name::ProjectionName;
use super::position::Position;
use super::read::{Page, Read};
use crate::panics;

/// Code that runs inside the transaction of every append, such as an inline projection.
///
/// An engine calls it through [`CommitHooks`] and [`Hooked`], which keep the protocol: after each [`Self::apply`] that
/// succeeds either [`Self::revert`] follows, or, at the latest with the end of the transaction, [`Self::ended`].
pub trait CommitHook: Debug + Send + Sync + 'static {
    /// Its name; only one hook of a name is registered at a time.
    fn name(&self) -> &ProjectionName;

    /// Called with the events of one append, right before they are committed.
    ///
    /// # Errors
    ///
    /// [`HookError::Refused`]: the append fails with [`AppendError::Refused`], and nothing of it is written.
    /// [`HookError::Store`]: the whole transaction is rolled back.
    fn apply(&self, committing: &mut Committing<'_>) -> Result<(), HookError>;

    /// Takes back the last successful [`Self::apply`] of the running transaction: another hook refused the append. What
    /// was written by means of [`Committing::transaction`] is rolled back by the engine.
    fn revert(&self);

    /// Called when the transaction has ended, if anything was applied in it.
    fn ended(&self, committed: bool);
}

/// Why a [`CommitHook`] does not let an append through.
#[derive(Debug)]
pub enum HookError {
    /// It refuses the events.
    Refused(BoxError),
    /// The log could not be read.
    Store(StoreError),
}

impl From<StoreError> for HookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Events that are about to be committed.
pub struct Committing<'a> {
    /// The engine's transaction; an engine documents what it is, and `()` means that there is nothing to write to.
    pub transaction: &'a dyn Any,
    /// The position of the last event in the log before these.
    pub before: Position,
    /// The events of one append, in order; none for an append without events.
    pub events: &'a [StoredEvent],
    read: &'a mut dyn FnMut(&Read) -> Result<Page, StoreError>,
}

impl<'a> Committing<'a> {
    /// Creates the description of an append; `read` reads the log as the transaction sees it.
    pub fn new(
        transaction: &'a dyn Any,
        before: Position,
        events: &'a [StoredEvent],
        read: &'a mut dyn FnMut(&Read) -> Result<Page, StoreError>,
    ) -> Self {
        Self { transaction, before, events, read }
    }

    /// Reads a page of the log, as the transaction sees it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log cannot be read or is damaged.
    pub fn read(&mut self, read: &Read) -> Result<Page, StoreError> {
        (self.read)(read)
    }
}

impl Debug for Committing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events.len();
        f.debug_struct("Committing").field("before", &self.before).field("events", &events).finish_non_exhaustive()
    }
}

/// The hooks of an open store.
#[derive(Debug, Default)]
pub struct CommitHooks {
    any: AtomicBool,
    hooks: Mutex<Vec<Arc<dyn CommitHook>>>,
}

impl CommitHooks {
    /// Whether no hook is registered; costs one load.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Registers a hook: it is called for every append that is judged from now on. Returns false if there is one of
    /// this name already.
    pub fn register(&self, hook: Arc<dyn CommitHook>) -> bool {
        let mut hooks = self.lock();
        if hooks.iter().any(|registered| registered.name() == hook.name()) {
            return false;
        }
        hooks.push(hook);
        self.any.store(true, Ordering::Release);
        true
    }

    /// Removes the hook of this name. It is still told of the end of a transaction in which it was called.
    pub fn unregister(&self, name: &ProjectionName) {
        let mut hooks = self.lock();
        hooks.retain(|registered| registered.name() != name);
        self.any.store(!hooks.is_empty(), Ordering::Release);
    }

    fn current(&self) -> Vec<Arc<dyn CommitHook>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn CommitHook>>> {
        // Nothing panics halfway through a change, so a poisoned list is consistent.
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hooks that were called in one transaction. Dropping it tells them that the transaction was rolled back.
#[derive(Debug, Default)]
pub struct Hooked {
    called: Vec<Arc<dyn CommitHook>>,
}

impl Hooked {
    /// Whether no hook was called.
    pub fn is_empty(&self) -> bool {
        self.called.is_empty()
    }

    /// Calls the hooks for one append. If one of them refuses, those before it take the append back.
    ///
    /// # Errors
    ///
    /// [`AppendError::Refused`]: the engine rolls back what was written since right before the append, and nothing else.
    /// [`AppendError::Store`]: the whole transaction is rolled back.
    pub fn apply(&mut self, hooks: &CommitHooks, committing: &mut Committing<'_>) -> Result<(), AppendError> {
        let hooks = hooks.current();
        for (n, hook) in hooks.iter().enumerate() {
            let applied = panics::catch(|| hook.apply(committing));
            let error = match applied.unwrap_or_else(|message| Err(HookError::Refused(message.into()))) {
                Ok(()) => {
                    if !self.called.iter().any(|called| Arc::ptr_eq(called, hook)) {
                        self.called.push(Arc::clone(hook));
                    }
                    continue;
                }
                Err(error) => error,
            };
            for applied in hooks.iter().take(n).rev() {
                applied.revert();
            }
            return Err(match error {
                HookError::Refused(source) => AppendError::Refused { projection: hook.name().clone(), source },
                HookError::Store(error) => error.into(),
            });
        }
        Ok(())
    }

    /// Tells the hooks that the transaction was committed.
    pub fn committed(mut self) {
        self.end(true);
    }

    fn end(&mut self, committed: bool) {
        for hook in self.called.drain(..) {
            hook.ended(committed);
        }
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        self.end(false);
    }
}
