//! Commands of a process, whatever aggregate they go to.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::error::ProcessError;
use super::rejection::OnRejection;
use crate::domain::{
    Aggregate, Apply, Command, ExecuteError, HandledBy, LoadError, Provenance, Repository, command_fingerprint,
};
use crate::log::{AppendError, CommandKey, Fingerprint, Store, StreamId};

/// What a command needs to be executed by a process: a stored name, and a form that its fingerprint is computed from.
///
/// Implemented for every command with [`#[derive(Command)]`](derive@crate::Command) and serde's `Serialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be executed by a process",
    label = "not a command that can be executed under a key",
    note = "put `#[derive(Serialize, Command)]` and `#[es(name = \"…\")]` on the command, and let it own its data"
)]
pub trait Sendable: Command + Serialize + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<C: Command + Serialize + Send + Sync + 'static> Sendable for C {}

/// A command whose type is not known.
pub(super) trait Issue: Send + Sync {
    fn name(&self) -> &'static str;

    /// The stream of its aggregate, and the fingerprint under which its key is remembered.
    fn identity(&self) -> Result<(StreamId, Fingerprint), ProcessError>;

    fn send<'r>(
        self: Box<Self>,
        repositories: &'r Repositories,
        key: CommandKey,
        provenance: Provenance,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, ProcessError>> + Send + 'r>>;
}

/// The outcome of a command.
#[derive(Debug)]
pub(super) enum Sent {
    /// It was executed, now or before, or its rejection is ignored.
    Done,
    /// It was rejected, which the process handles, for this reason.
    Rejected(String),
}

type Decide<E> = Box<dyn FnOnce(&E) -> OnRejection + Send + Sync>;

/// A command of a known type.
pub(super) struct Issued<A: Aggregate, C: HandledBy<A>> {
    id: A::Id,
    command: C,
    pub(super) on_rejection: Option<Decide<C::Error>>,
}

impl<A: Aggregate, C: HandledBy<A>> Issued<A, C> {
    pub(super) fn new(id: A::Id, command: C) -> Self {
        Self { id, command, on_rejection: None }
    }
}

impl<A: Aggregate + Apply, C: HandledBy<A> + Sendable> Issue for Issued<A, C> {
    fn name(&self) -> &'static str {
        self.command.name()
    }

    fn identity(&self) -> Result<(StreamId, Fingerprint), ProcessError> {
        let stream = A::stream_id(&self.id)?;
        let fingerprint = command_fingerprint(&stream, &self.command)?;
        Ok((stream, fingerprint))
    }

    fn send<'r>(
        self: Box<Self>,
        repositories: &'r Repositories,
        key: CommandKey,
        provenance: Provenance,
    ) -> Pin<Box<dyn Future<Output = Result<Sent, ProcessError>> + Send + 'r>> {
        Box::pin(async move {
            let Self { id, command, on_rejection } = *self;
            let (name, stream) = (command.name(), A::stream_id(&id)?);
            let repository = repositories.of::<A>();
            let outcome = repository.execute(id, command).key(key.as_str()).provenance(provenance).await;
            match outcome {
                Ok(_) => Ok(Sent::Done),
                Err(ExecuteError::Rejected(rejection)) => {
                    let decision = on_rejection.map(|decide| decide(&rejection));
                    match decision.unwrap_or_else(|| OnRejection::Handle(rejection.to_string())) {
                        OnRejection::Handle(reason) => Ok(Sent::Rejected(reason)),
                        OnRejection::Ignore => Ok(Sent::Done),
                        OnRejection::Retry => {
                            let (command, source) = (name.to_owned(), Box::new(rejection));
                            Err(ProcessError::Rejected { stream, command, source })
                        }
                    }
                }
                Err(ExecuteError::Load(LoadError::Store(error)) | ExecuteError::Append(AppendError::Store(error))) => {
                    Err(error.into())
                }
                Err(error) => {
                    let (command, source) = (name.to_owned(), Box::new(error));
                    Err(ProcessError::Execute { stream, command, source })
                }
            }
        })
    }
}

/// The repositories that commands are executed by, one for each type of aggregate.
pub(super) struct Repositories {
    store: Store,
    by_aggregate: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Repositories {
    pub(super) fn new(store: Store) -> Self {
        Self { store, by_aggregate: Mutex::default() }
    }

    pub(super) fn insert<A: Aggregate>(&self, repository: Repository<A>) {
        let mut known = self.by_aggregate.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(TypeId::of::<A>(), Arc::new(repository));
    }

    /// The repository of this type; a new one if there is none.
    fn of<A: Aggregate + Apply>(&self) -> Repository<A> {
        let known = self.by_aggregate.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&TypeId::of::<A>()).and_then(|any| any.downcast_ref::<Repository<A>>().cloned());
        drop(known);
        found.unwrap_or_else(|| {
            let repository = Repository::new(&self.store);
            self.insert(repository.clone());
            repository
        })
    }
}

impl fmt::Debug for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repositories").finish_non_exhaustive()
    }
}
