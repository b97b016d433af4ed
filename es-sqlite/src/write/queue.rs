//! The writer's queue.

use es_framework::engine::{self, Deferred, Inbox, Permit, WriteError};
use es_framework::{StoreError, WhenFull};
use tokio::sync::oneshot;
use tokio_rusqlite::rusqlite::Connection;

use crate::write::append::Transaction;
use crate::write::writer::{Alone, Write, Writer};

/// The sending end: bounded in number and bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    queue: engine::Queue<Box<dyn Write>, Box<Alone>>,
}

impl Queue {
    pub(crate) fn new(places: usize, bytes: usize) -> (Self, Inbox<Box<dyn Write>, Box<Alone>>) {
        let (queue, inbox) = engine::Queue::new(places, bytes);
        (Self { queue }, inbox)
    }

    /// Queues a write and waits for its result.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it is queued, the write never runs; after that it runs to completion.
    pub(crate) async fn write<T, E, F>(&self, bytes: usize, when_full: WhenFull, run: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError,
        F: FnMut(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (write, answer) = Deferred::new(run);
        let _ticket = self.queue.write(Box::new(write), bytes, when_full).map_err(engine::Refused::into_error::<E>)?;
        answer.wait().await
    }

    /// Queues a job that runs between two groups, and waits for its result.
    pub(crate) async fn alone<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let (job, answer) = alone(run);
        let _ticket = self.queue.alone(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Queues a read and waits for its result. It takes no place in the queue: a reader has several pages in flight.
    pub(crate) async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let (job, answer) = alone(run);
        self.queue.alone_past_the_bounds(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Rejects new entries, and ends the writer once the accepted ones are done.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl<T, E, F> Write for Deferred<F, T, E>
where
    T: Send,
    E: WriteError,
    F: FnMut(&mut Transaction<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Transaction<'_>) -> Result<(), StoreError> {
        Self::run(self, |run| run(tx))
    }

    fn answer(self: Box<Self>, ended: Result<(), StoreError>) {
        Self::answer(*self, ended);
    }
}

fn alone<T, F>(run: F) -> (Box<Alone>, oneshot::Receiver<T>)
where
    T: Send + 'static,
    F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = move |connection: &mut Connection, writer: &mut Writer, permit: Permit| {
        let answer = run(connection, writer);
        // Before the reply: the caller that receives it may queue again at once, and should not have to wait.
        drop(permit);
        // The caller may be gone and not need the result.
        drop(reply.send(answer));
    };
    (Box::new(job), answer)
}
