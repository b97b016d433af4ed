//! What waits for the writer.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use es_framework::{AppendError, CellError, SnapshotError, StoreError, WhenFull};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio_rusqlite::rusqlite::Connection;

use crate::connection::errors;
use crate::write::append::Transaction;
use crate::write::writer::Writer;

/// One thing for the writer to do.
pub(crate) enum Job {
    /// To be committed together with others that wait.
    Write(Box<dyn Write>),
    /// To be done alone, between two groups.
    Alone {
        /// Since when it waits.
        queued: Instant,
        /// What is to be done.
        run: Box<Alone>,
    },
    /// To end the writer after everything that was accepted.
    Stop,
}

/// Something that is done alone.
type Alone = dyn FnOnce(&mut Connection, &mut Writer) + Send;

/// A write that shares its transaction with others.
pub(crate) trait Write: Send {
    /// Does it, perhaps for a second time after the first transaction was rolled back. An error means that the
    /// transaction cannot be committed.
    fn run(&mut self, tx: &mut Transaction<'_>) -> Result<(), StoreError>;

    /// Tells the caller what became of it, once the transaction has ended.
    fn answer(self: Box<Self>, ended: Result<(), StoreError>);

    /// Takes it out of the queue's bounds.
    fn leave(&mut self) -> Option<OwnedSemaphorePermit>;

    /// What it counts against the bounds of a group.
    fn bytes(&self) -> usize;

    /// Since when it waits.
    fn queued(&self) -> Instant;
}

/// An error that is either the caller's or the store's.
pub(crate) trait WriteError: From<StoreError> + Send + 'static {
    /// The store's error, if it is one.
    fn into_store(self) -> Result<StoreError, Self>;

    /// What a caller is told who does not want to wait for a place.
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

/// The sending end: bounded in number and bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: Sender<Job>,
    /// One permit a byte. What is small takes as many as if it had its share of the bytes, so that this bounds the number
    /// too.
    room: Arc<Semaphore>,
    share: usize,
    all: usize,
}

impl Queue {
    pub(crate) fn new(places: usize, bytes: usize) -> (Self, Receiver<Job>) {
        let (sender, receiver) = mpsc::channel();
        let share = bytes.div_ceil(places).max(1);
        let all = share * places;
        (Self { sender, room: Arc::new(Semaphore::new(all)), share, all }, receiver)
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
        let queued = Instant::now();
        let place = match when_full {
            WhenFull::Fail => self.try_place(bytes)?.ok_or_else(E::overloaded)?,
            _ => self.place(bytes).await?,
        };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { run, result: None, reply, bytes, queued, place: Some(place) };
        self.sender.send(Job::Write(Box::new(waiting))).map_err(|_| StoreError::Closed)?;
        match answer.await {
            Ok((answer, _run)) => answer,
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// Queues something to be done between two groups and waits for its answer.
    pub(crate) async fn alone<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let queued = Instant::now();
        let place = self.place(0).await?;
        let run = move |connection: &mut Connection, writer: &mut Writer| {
            let answer = run(connection, writer);
            drop(place);
            answer
        };
        self.between_groups(queued, run).await
    }

    /// Queues a read and waits for its answer. It takes no place: a page that was asked for ahead is polled only when its
    /// reader goes on, and until then would keep a place that it was given from everybody.
    pub(crate) async fn read<T, F>(&self, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        self.between_groups(Instant::now(), run).await
    }

    async fn between_groups<T, F>(&self, queued: Instant, run: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, &mut Writer) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // A caller that went away does not need the answer.
        let job = move |connection: &mut Connection, writer: &mut Writer| drop(reply.send(run(connection, writer)));
        self.sender.send(Job::Alone { queued, run: Box::new(job) }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Refuses what comes from now on, and ends the writer after what was accepted.
    pub(crate) fn close(&self) {
        self.room.close();
        // Nobody receives any more if the writer has ended.
        drop(self.sender.send(Job::Stop));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    async fn place(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(self.permits(bytes)).await.map_err(|_| StoreError::Closed)
    }

    fn try_place(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        match Arc::clone(&self.room).try_acquire_many_owned(self.permits(bytes)) {
            Ok(place) => Ok(Some(place)),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(StoreError::Closed),
        }
    }

    /// What is larger than the queue takes all of it.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.clamp(self.share, self.all)).unwrap_or(u32::MAX)
    }
}

struct Waiting<T, E, F> {
    run: F,
    /// What the run answered, kept back until the transaction has ended.
    result: Option<Result<T, E>>,
    /// Takes the run back too: to free what a caller gave costs the writer a twentieth of its time, and the caller less.
    reply: oneshot::Sender<(Result<T, E>, F)>,
    bytes: usize,
    queued: Instant,
    place: Option<OwnedSemaphorePermit>,
}

impl<T, E, F> Write for Waiting<T, E, F>
where
    T: Send,
    E: WriteError,
    F: FnMut(&mut Transaction<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Transaction<'_>) -> Result<(), StoreError> {
        self.result = None;
        self.result = Some(match (self.run)(tx) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(match error.into_store() {
                Ok(error) => return Err(error),
                Err(error) => error,
            }),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, ended: Result<(), StoreError>) {
        let answer = match ended {
            Ok(()) => self.result.unwrap_or_else(|| Err(errors::internal("a write was never run").into())),
            Err(error) => Err(error.into()),
        };
        // A caller that went away does not need the answer.
        drop(self.reply.send((answer, self.run)));
    }

    fn leave(&mut self) -> Option<OwnedSemaphorePermit> {
        self.place.take()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn queued(&self) -> Instant {
        self.queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_number_and_in_bytes() {
        for (places, bytes) in [(1, 1), (3, 10), (4, 1 << 20), (4_096, 64 << 20), (1 << 20, 1), (1 << 20, 1 << 30)] {
            let (queue, _jobs) = Queue::new(places, bytes);
            let mut taken: Vec<_> = (0..places).map(|_| queue.try_place(0).unwrap()).collect();
            assert!(taken.iter().all(Option::is_some), "{places} small ones fit into ({places}, {bytes})");
            assert!(queue.try_place(0).unwrap().is_none(), "and no more");
            taken.clear();
            let all = queue.try_place(usize::MAX).unwrap();
            assert!(all.is_some(), "what is larger than the queue has it to itself");
            assert!(queue.try_place(0).unwrap().is_none());
        }
        let (queue, _jobs) = Queue::new(4, 4_000);
        let taken = [3_000, 900].map(|bytes| queue.try_place(bytes).unwrap());
        assert!(taken.iter().all(Option::is_some) && queue.try_place(0).unwrap().is_none(), "900 count as a share");
    }
}
