//! A request whose answer is held back until its transaction has ended.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::log::{AppendError, CellError, SnapshotError, StoreError};

use super::room::Refused;

/// The error of a write: either the caller's or the store's.
pub trait WriteError: From<StoreError> + Send + 'static {
    /// Returns the store's error, if it is one.
    ///
    /// # Errors
    ///
    /// The error itself, if it is the caller's.
    fn into_store(self) -> Result<StoreError, Self>;

    /// The error for a caller that chose not to wait for a place.
    fn overloaded() -> Self {
        StoreError::Busy { waited: Duration::ZERO }.into()
    }
}

impl WriteError for AppendError {
    fn into_store(self) -> Result<StoreError, Self> {
        if let Self::Store(error) = self { Ok(error) } else { Err(self) }
    }

    fn overloaded() -> Self {
        Self::Overloaded
    }
}

impl WriteError for CellError {
    fn into_store(self) -> Result<StoreError, Self> {
        if let Self::Store(error) = self { Ok(error) } else { Err(self) }
    }
}

impl WriteError for SnapshotError {
    fn into_store(self) -> Result<StoreError, Self> {
        if let Self::Store(error) = self { Ok(error) } else { Err(self) }
    }
}

impl Refused {
    /// The error that the caller gets.
    pub fn into_error<E: WriteError>(self) -> E {
        match self {
            Self::Closed => StoreError::Closed.into(),
            Self::Full => E::overloaded(),
        }
    }
}

/// A request `R` on its way to the writer. Its answer is held back until the transaction it was written in has ended.
///
/// The request may be a closure over the engine's transaction, or data.
pub struct Deferred<R, T, E> {
    request: R,
    result: Option<Result<T, E>>,
    /// Sends the request back too: dropping what a caller passed in costs the writer a twentieth of its time, and the
    /// caller less.
    reply: oneshot::Sender<(Result<T, E>, R)>,
}

/// What the caller of a [`Deferred`] request waits for.
pub struct Answer<R, T, E> {
    reply: oneshot::Receiver<(Result<T, E>, R)>,
}

impl<R, T, E: WriteError> Deferred<R, T, E> {
    /// Creates a request and what its caller waits for.
    pub fn new(request: R) -> (Self, Answer<R, T, E>) {
        let (reply, answer) = oneshot::channel();
        (Self { request, result: None, reply }, Answer { reply: answer })
    }

    /// The request.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// Runs the request inside the transaction and keeps the result. It may run a second time, after the first
    /// transaction was rolled back.
    ///
    /// # Errors
    ///
    /// The store's error: the transaction cannot be committed. An error of the caller's is a result like any other.
    pub fn run(&mut self, run: impl FnOnce(&mut R) -> Result<T, E>) -> Result<(), StoreError> {
        self.result = None;
        self.result = Some(match run(&mut self.request) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(match error.into_store() {
                Ok(error) => return Err(error),
                Err(error) => error,
            }),
        });
        Ok(())
    }

    /// Sends the caller the result, or the error that ended the transaction.
    pub fn answer(self, ended: Result<(), StoreError>) {
        let answer = match ended {
            Ok(()) => self.result.unwrap_or_else(|| {
                Err(StoreError::Internal { source: "it ended a transaction without running a write of it".into() }
                    .into())
            }),
            Err(error) => Err(error.into()),
        };
        // A caller that is gone does not need the answer.
        drop(self.reply.send((answer, self.request)));
    }
}

impl<R, T, E: WriteError> Answer<R, T, E> {
    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// The error of the request; [`StoreError::Closed`] if the writer ended without running it.
    ///
    /// # Cancel safety
    ///
    /// The request continues when this future is dropped.
    pub async fn wait(self) -> Result<T, E> {
        match self.reply.await {
            Ok((answer, _request)) => answer,
            Err(_) => Err(StoreError::Closed.into()),
        }
    }
}

impl<R, T, E> fmt::Debug for Deferred<R, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("ran", &self.result.is_some()).finish_non_exhaustive()
    }
}

impl<R, T, E> fmt::Debug for Answer<R, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}
