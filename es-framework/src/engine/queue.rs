//! The sending end of a writer's queue: bounded in number and bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::log::WhenFull;

use super::inbox::Inbox;
use super::room::{Job, Permit, Queued, Refused, Room};

/// The sending end of a writer's queue: bounded in number and in bytes.
///
/// `W` is a write, which is committed together with others; `A` is something that runs alone, between two groups of
/// writes. Both are the engine's own types.
///
/// What does not fit waits in a line in front of the queue, in order of arrival, and moves into the queue without its
/// caller being polled. So a caller that polls a write once and then does something else holds up nobody. Dropping the
/// queue closes it.
///
/// ```
/// use es_framework::WhenFull;
/// use es_framework::engine::{Next, Queue};
///
/// let (queue, mut inbox) = Queue::<&str, ()>::new(1, 1_000);
/// let first = queue.write("first", 10, WhenFull::Wait)?;
/// let second = queue.write("second", 10, WhenFull::Wait)?;
/// let third = queue.write("third", 10, WhenFull::Wait)?;
/// assert!(queue.write("fourth", 10, WhenFull::Fail).is_err(), "there is room for one");
/// drop(second);
///
/// let Some(Next::Write(write)) = inbox.next() else { panic!() };
/// assert_eq!(write.item, "first");
/// drop(write);
/// let Some(Next::Write(write)) = inbox.next() else { panic!() };
/// assert_eq!(write.item, "third");
/// # drop((first, third));
/// # Ok::<(), es_framework::engine::Refused>(())
/// ```
pub struct Queue<W: Send + 'static, A: Send + 'static> {
    room: Arc<Room<W, A>>,
}

impl<W: Send + 'static, A: Send + 'static> Queue<W, A> {
    /// Creates a queue of this many places and bytes, at least one of each, and its receiving end.
    ///
    /// A write larger than the queue is accepted when the queue is empty.
    pub fn new(places: usize, bytes: usize) -> (Self, Inbox<W, A>) {
        let (room, jobs) = Room::new(places, bytes);
        let inbox = Inbox::new(Arc::clone(&room), jobs);
        (Self { room }, inbox)
    }

    /// Queues a write, or puts it in the line in front of the queue.
    ///
    /// Dropping the ticket takes the write out of the line. Once in the queue, it belongs to the writer and runs
    /// regardless.
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`]; [`Refused::Full`] if it would have to wait and must not.
    pub fn write(&self, write: W, bytes: usize, when_full: WhenFull) -> Result<Ticket<'_, W, A>, Refused> {
        let job = Job::Write(Queued { item: write, bytes, since: Instant::now(), permit: Permit::default() });
        let number = self.room.enter(job, bytes, when_full)?;
        Ok(Ticket { room: &self.room, number })
    }

    /// Queues something to run alone; it takes the smallest possible place.
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`].
    pub fn alone(&self, alone: A) -> Result<Ticket<'_, W, A>, Refused> {
        let number = self.room.enter(Self::job(alone), 0, WhenFull::Wait)?;
        Ok(Ticket { room: &self.room, number })
    }

    /// Queues something to run alone that takes no place and never waits for one: for reads of an engine that has a
    /// single connection for everything.
    ///
    /// # Errors
    ///
    /// [`Refused::Closed`].
    pub fn alone_past_the_bounds(&self, alone: A) -> Result<(), Refused> {
        self.room.enter_past(Self::job(alone))
    }

    /// Refuses new jobs and those that wait in the line; the writer ends after what was accepted.
    pub fn close(&self) {
        self.room.close();
    }

    /// Whether the queue was closed, or its receiving end was dropped.
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    fn job(alone: A) -> Job<W, A> {
        Job::Alone(Queued { item: alone, bytes: 0, since: Instant::now(), permit: Permit::default() })
    }
}

impl<W: Send + 'static, A: Send + 'static> Drop for Queue<W, A> {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// The caller's handle to something queued; dropping it takes it out of the line in front of the queue.
#[must_use = "a ticket that is dropped takes the write out of the line"]
pub struct Ticket<'q, W: Send + 'static, A: Send + 'static> {
    room: &'q Arc<Room<W, A>>,
    /// Its number in the line; [`None`] if it entered the queue at once.
    number: Option<u64>,
}

impl<W: Send + 'static, A: Send + 'static> Drop for Ticket<'_, W, A> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.room.give_up(number);
        }
    }
}

impl<W: Send + 'static, A: Send + 'static> fmt::Debug for Queue<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("room", &self.room).finish()
    }
}

impl<W: Send + 'static, A: Send + 'static> fmt::Debug for Ticket<'_, W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::mpsc::TryRecvError;

    use super::super::inbox::Next;
    use super::*;

    type Jobs = Queue<usize, ()>;

    fn try_write(queue: &Jobs, bytes: usize) -> bool {
        match queue.write(bytes, bytes, WhenFull::Fail) {
            Ok(ticket) => ticket.number.is_none(),
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                false
            }
        }
    }

    #[test]
    fn the_queue_is_bounded_in_number_and_in_bytes() {
        for (places, bytes) in [(1, 1), (3, 10), (4, 1 << 20), (4_096, 64 << 20), (1 << 14, 1), (1 << 14, 1 << 30)] {
            let (queue, mut inbox) = Jobs::new(places, bytes);
            assert!((0..places).all(|_| try_write(&queue, 0)), "{places} small ones fit into ({places}, {bytes})");
            assert!(!try_write(&queue, 0), "and no more");
            for _ in 0..places {
                assert!(inbox.take().is_ok());
            }
            assert!(try_write(&queue, usize::MAX), "what is larger than the queue has it to itself");
            assert!(!try_write(&queue, 0));
        }
        let (queue, _inbox) = Jobs::new(4, 4_000);
        assert!([3_000, 900].iter().all(|bytes| try_write(&queue, *bytes)));
        assert!(!try_write(&queue, 0), "900 count as a share");
        // Zero places count as one, and so do zero bytes.
        let (queue, _inbox) = Jobs::new(0, 0);
        assert!(try_write(&queue, 5) && !try_write(&queue, 0));
    }

    /// Callers that are polled once and then kept: what waits in front of the queue enters when there is room, in
    /// order, and never more than the bounds allow.
    #[test]
    fn whoever_waits_gets_in_without_being_polled() {
        let (queue, mut inbox) = Jobs::new(4, 4_000);
        let tickets: Vec<_> = (0..40).map(|n| queue.write(n, 1_500, WhenFull::Wait).unwrap()).collect();
        for n in 0..40 {
            let Ok(Job::Write(first)) = inbox.take() else { panic!("{n} is in the queue") };
            assert_eq!(first.item, n);
            if n < 39 {
                let Ok(Job::Write(second)) = inbox.take() else { panic!("two fit") };
                assert_eq!(second.item, n + 1);
                assert!(matches!(inbox.take(), Err(TryRecvError::Empty)), "three do not");
                inbox.put_back(Job::Write(second));
            }
        }
        drop(tickets);
        assert!(try_write(&queue, 4_000), "all room was given back");
    }

    #[test]
    fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let (queue, mut inbox) = Jobs::new(4, 4_000);
        let first = queue.write(0, 1_000, WhenFull::Wait).unwrap();
        let large = queue.write(1, 4_000, WhenFull::Wait).unwrap();
        let small = queue.write(2, 1_000, WhenFull::Wait).unwrap();
        assert!(!try_write(&queue, 0), "nobody passes those who wait");
        drop(large);
        assert!(try_write(&queue, 0), "the small one is in, and there is room");
        // Given up when already in the queue: they run.
        drop((first, small));
        for item in [0, 2, 0] {
            assert!(matches!(inbox.next(), Some(Next::Write(write)) if write.item == item));
        }
        assert!(try_write(&queue, 4_000));
    }

    #[test]
    fn closing_ends_the_writer_after_what_was_accepted_and_refuses_who_waits() {
        let (queue, mut inbox) = Queue::<Arc<()>, ()>::new(1, 1);
        let [accepted, waiting] = [(); 2].map(|()| Arc::new(()));
        let told: Vec<Weak<()>> = [&accepted, &waiting].map(Arc::downgrade).into();
        let tickets = [accepted, waiting].map(|write| queue.write(write, 1, WhenFull::Wait).unwrap());
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(told.iter().map(Weak::strong_count).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(queue.write(Arc::default(), 1, WhenFull::Wait).unwrap_err(), Refused::Closed);
        assert_eq!(queue.alone(()).unwrap_err(), Refused::Closed);
        assert_eq!(queue.alone_past_the_bounds(()).unwrap_err(), Refused::Closed);
        drop(tickets);
        assert!(matches!(inbox.next(), Some(Next::Write(_))));
        assert!(inbox.next().is_none() && inbox.next().is_none());
    }

    /// A writer that ends unexpectedly: thousands of waiting callers are notified, none of them through the end of
    /// another.
    #[test]
    fn an_inbox_that_is_dropped_refuses_everybody() {
        let (queue, inbox) = Queue::<Arc<()>, ()>::new(2, 2);
        let count = Arc::new(());
        let tickets: Vec<_> =
            (0..100_000).map(|_| queue.write(Arc::clone(&count), 1, WhenFull::Wait).unwrap()).collect();
        drop(inbox);
        assert_eq!(Arc::strong_count(&count), 1);
        assert_eq!(queue.write(count, 1, WhenFull::Wait).unwrap_err(), Refused::Closed);
        drop(tickets);
    }
}
