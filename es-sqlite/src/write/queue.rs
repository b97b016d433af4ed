//! What waits for the writer.

use es_framework::engine::{self, Deferred, Inbox, Place, WriteError};
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

    /// Queues a write and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is queued it never runs, afterwards it runs to its end.
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

    /// Queues something to be done between two groups and waits for its answer.
    pub(crate) async fn alone<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let (job, answer) = alone(run);
        let _ticket = self.queue.alone(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Queues a read and waits for its answer. It takes no place: a reader has several pages on their way.
    pub(crate) async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let (job, answer) = alone(run);
        self.queue.alone_past_the_bounds(job).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Refuses what comes from now on, and ends the writer after what was accepted.
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
    let job = move |connection: &mut Connection, writer: &mut Writer, place: Place| {
        let answer = run(connection, writer);
        // Before the answer: who is answered may ask again at once, and not want to wait.
        drop(place);
        // A caller that went away does not need the answer.
        drop(reply.send(answer));
    };
    (Box::new(job), answer)
}
