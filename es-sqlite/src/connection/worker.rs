//! Runs a connection on its own thread; the only file that knows how that is done.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use es_framework::StoreError;
use tokio::sync::oneshot;
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::busy;
use crate::connection::errors;

/// A connection on its own thread, which runs one job after the other.
///
/// Dropping it lets the accepted jobs finish and then ends the thread.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    connection: tokio_rusqlite::Connection,
    timeout: Duration,
}

impl Worker {
    /// Opens a connection off the caller's thread, and returns it along with whatever else `open` found. Its jobs may
    /// wait for other processes for `timeout`.
    pub(crate) async fn start<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        timeout: Duration,
        open: impl FnOnce() -> Result<(Connection, T), E> + Send + 'static,
    ) -> Result<(Self, T), E> {
        let open = move || {
            busy::allow(timeout);
            open()
        };
        // If the caller is gone, the connection is closed right there.
        let (connection, found) = aside("es-sqlite-open", open).await??;
        Ok((Self::of(connection, timeout), found))
    }

    /// Moves a connection to its own thread.
    pub(crate) fn of(connection: Connection, timeout: Duration) -> Self {
        connection.set_prepared_statement_cache_capacity(64);
        Self { connection: connection.into(), timeout }
    }

    /// Runs a job. A panic inside it is returned as [`StoreError::Internal`] and leaves no transaction open.
    ///
    /// # Cancel safety
    ///
    /// If dropped before its first poll, the job never runs; after that it runs to completion.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let timeout = self.timeout;
        let answer = self.connection.call_raw(move |connection| {
            busy::allow(timeout);
            unpanicked(connection, job)
        });
        match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(errors::internal(panic)),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Gives the thread to a long-running job, without waiting for its end.
    pub(crate) fn occupy(&self, job: impl FnOnce(&mut Connection) + Send + 'static) {
        let mut call = pin!(self.connection.call_raw(job));
        // The first poll sends the call, which then continues even if it is dropped.
        drop(call.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    }

    /// Closes the connection after the jobs that were accepted. Closing twice does nothing.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        let close = self.connection.clone().close();
        // On its own thread, because the connection's thread panics if nobody receives its result.
        aside("es-sqlite-close", move || block_on(close)).await?.map_err(|error| match error {
            tokio_rusqlite::Error::Close((_, error)) | tokio_rusqlite::Error::Error(error) => errors::store(error),
            _ => StoreError::Closed,
        })
    }
}

/// Runs a job on its own thread, to completion.
pub(crate) async fn aside<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(reply.send(job())))
        .map_err(|source| StoreError::Io { source: source.into() })?;
    answer.await.map_err(|_| errors::internal(format!("the thread {name} panicked")))
}

/// Blocks this thread. Not a task of a runtime: a store may be closed without one, or while it shuts down.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Thread(thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Thread(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// Runs a job so that a panic neither ends the thread nor leaves a transaction open; returns the panic's message.
pub(crate) fn unpanicked<T>(connection: &mut Connection, job: impl FnOnce(&mut Connection) -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(|| job(&mut *connection))).map_err(|panic| {
        roll_back(connection);
        let said = said(panic.as_ref());
        // It may be a value of a user's type that panics again when dropped, which would end the thread.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(another);
        }
        said
    })
}

/// Ends a transaction that failed, if SQLite has not done so itself.
pub(crate) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction could not be rolled back");
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a job panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic of the connection's thread would be reported by the hook, and aborts where panics do.
    #[test]
    fn a_close_that_is_dropped_closes_and_panics_nowhere() {
        static PANICS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
        std::panic::set_hook(Box::new(|panic| PANICS.lock().unwrap().push(panic.to_string())));
        for _ in 0..20 {
            let worker = Worker::of(Connection::open_in_memory().unwrap(), Duration::ZERO);
            let (hold, held) = std::sync::mpsc::channel::<()>();
            worker.occupy(move |_| held.recv().unwrap());
            let mut close = Box::pin(worker.close());
            assert!(close.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(close);
            hold.send(()).unwrap();
            block_on(worker.close()).unwrap();
            assert!(matches!(block_on(worker.run(|_| Ok(()))), Err(StoreError::Closed)));
        }
        drop(std::panic::take_hook());
        assert_eq!(*PANICS.lock().unwrap(), Vec::<String>::new());
    }
}
