//! The receiving end of a writer's queue, and how long it waits for more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::room::{Job, Permit, Queued, Room};

/// Maximum number of writes in one group, and of their bytes, so that other processes get their turn.
const GROUP_WRITES: usize = 4_096;
const GROUP_BYTES: usize = 8 << 20;
/// How long the writer polls for a job before it sleeps: a sleeping thread costs a lone caller 20 to 50 µs.
const SPIN: Duration = Duration::from_micros(20);
/// Maximum time that the writer waits for callers it has just answered.
const GATHER: Duration = Duration::from_micros(200);

/// What the writer does next.
#[derive(Debug)]
pub enum Next<W, A> {
    /// A write: the first of a group, see [`Inbox::commit_together`].
    Write(Queued<W>),
    /// Something to run alone.
    Alone(Queued<A>),
}

/// The receiving end of a writer's queue.
///
/// A writer with a thread of its own uses [`Self::next`] and [`Self::commit_together`], which block it. A writer that
/// is a task, because its database is reached through one, uses [`Self::ready`], [`Self::gather`] and
/// [`Self::release`].
///
/// Callers that were just answered come back with their next write a moment later. If the writer did not wait for them,
/// it would serve two halves of the callers alternately, with twice the flushes. So it waits until every caller that
/// can come has come, but for at most an eighth of the time the last group took, and at most 200 µs. For example, after
/// a group that took 800 µs it waits for up to 100 µs. A lone caller is never waited for.
///
/// Dropping the inbox closes the queue.
pub struct Inbox<W: Send + 'static, A: Send + 'static> {
    room: Arc<Room<W, A>>,
    jobs: Receiver<Job<W, A>>,
    /// Taken out of the queue, in order.
    waiting: VecDeque<Job<W, A>>,
    stopped: bool,
    /// How many writes may join the group: those of the callers answered last, and those that were waiting by then.
    expected: usize,
    /// Whether the group may still grow, and its bytes.
    is_open: bool,
    bytes: usize,
    /// When the group was started, and how long the previous one took until it was answered.
    begun: Instant,
    took: Duration,
    /// Until when to wait for more.
    until: Option<Instant>,
}

impl<W: Send + 'static, A: Send + 'static> Inbox<W, A> {
    pub(super) fn new(room: Arc<Room<W, A>>, jobs: Receiver<Job<W, A>>) -> Self {
        Self {
            room,
            jobs,
            waiting: VecDeque::new(),
            stopped: false,
            expected: 0,
            is_open: false,
            bytes: 0,
            begun: Instant::now(),
            took: Duration::ZERO,
            until: None,
        }
    }

    /// Waits for the next thing to do; [`None`] once the queue is closed and nothing is left.
    #[expect(clippy::should_implement_trait, reason = "it blocks, and nobody wants the adapters of an iterator")]
    pub fn next(&mut self) -> Option<Next<W, A>> {
        let mut until = None;
        while !self.stopped {
            match self.take() {
                Ok(job) => return self.said(job),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + SPIN) {
                        let job = self.jobs.recv().ok()?;
                        return self.said(job);
                    }
                    std::hint::spin_loop();
                }
            }
        }
        None
    }

    /// Waits for the next thing to do, like [`Self::next`], without blocking the thread.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken out of the queue if the future is dropped.
    pub async fn ready(&mut self) -> Option<Next<W, A>> {
        while !self.stopped {
            match self.take() {
                Ok(job) => return self.said(job),
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => self.room.arrived().await,
            }
        }
        None
    }

    /// Collects the group that starts with this write: those that wait, and those of callers that were just released
    /// and come back in time.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future drops the writes.
    pub async fn gather(&mut self, first: Queued<W>) -> Vec<Queued<W>> {
        self.open(first.bytes);
        let mut group = vec![first];
        while self.is_open && group.len() < GROUP_WRITES && self.bytes < GROUP_BYTES {
            match self.take() {
                Ok(Job::Write(write)) => {
                    self.bytes += write.bytes;
                    group.push(write);
                }
                Ok(other) => {
                    self.put_back(other);
                    break;
                }
                Err(TryRecvError::Empty) if self.is_worth_waiting(group.len()) => tokio::task::yield_now().await,
                Err(_) => break,
            }
        }
        self.shut();
        group
    }

    /// Gives back the places of writes whose callers are about to be answered, all at once.
    pub fn release(&mut self, mut group: Vec<Queued<W>>) -> Vec<W> {
        self.answering(group.len());
        drop(Permit::of_all(&mut group));
        group.into_iter().map(|write| write.item).collect()
    }

    fn said(&mut self, job: Job<W, A>) -> Option<Next<W, A>> {
        match job {
            Job::Write(write) => Some(Next::Write(write)),
            Job::Alone(alone) => Some(Next::Alone(alone)),
            Job::Stop => {
                self.stopped = true;
                None
            }
        }
    }

    /// Starts a group with a write of this many bytes.
    pub(super) fn open(&mut self, bytes: usize) {
        self.is_open = true;
        self.bytes = bytes;
        self.begun = Instant::now();
        self.until = None;
    }

    /// Closes the group to further writes.
    pub(super) fn shut(&mut self) {
        self.is_open = false;
    }

    /// The next write for the group, which already has `group` writes.
    pub(super) fn more(&mut self, group: usize) -> Option<Queued<W>> {
        while self.is_open && group < GROUP_WRITES && self.bytes < GROUP_BYTES {
            match self.take() {
                Ok(Job::Write(write)) => {
                    self.bytes += write.bytes;
                    return Some(write);
                }
                Ok(other) => {
                    self.put_back(other);
                    break;
                }
                Err(TryRecvError::Empty) if self.is_worth_waiting(group) => thread::yield_now(),
                Err(_) => break,
            }
        }
        self.shut();
        None
    }

    /// How long the last group took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// The number of writes that wait, and their bytes. A write that arrived after the last group was noted is not
    /// among them, unless it waits in the line.
    pub(super) fn queued(&self) -> (usize, usize) {
        let arrived = self.waiting.iter().filter_map(|job| match job {
            Job::Write(write) => Some(write.bytes),
            Job::Alone(_) | Job::Stop => None,
        });
        let (writes, bytes) = self.room.in_line();
        arrived.fold((writes, bytes), |(writes, bytes), more| (writes + 1, bytes.saturating_add(more)))
    }

    /// Whether callers that were just answered may still come, and there is time left for them.
    fn is_worth_waiting(&mut self, group: usize) -> bool {
        let now = Instant::now();
        let patience = (self.took / 8).min(GATHER);
        group < self.expected && now < *self.until.get_or_insert(now + patience)
    }

    /// Notes that this many callers are about to be answered.
    pub(super) fn answering(&mut self, callers: usize) {
        // Those that have arrived by now are not among them, so together these are all that can come.
        self.waiting.extend(self.jobs.try_iter());
        self.expected = callers + self.waiting.iter().filter(|job| matches!(job, Job::Write(_))).count();
        self.took = self.begun.elapsed();
    }

    pub(super) fn take(&mut self) -> Result<Job<W, A>, TryRecvError> {
        self.waiting.pop_front().map_or_else(|| self.jobs.try_recv(), Ok)
    }

    pub(super) fn put_back(&mut self, job: Job<W, A>) {
        self.waiting.push_front(job);
    }
}

impl<W: Send + 'static, A: Send + 'static> Drop for Inbox<W, A> {
    fn drop(&mut self) {
        // Before the accepted jobs are dropped: otherwise each of them would let in another one from the line.
        self.room.close();
    }
}

impl<W: Send + 'static, A: Send + 'static> fmt::Debug for Inbox<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("room", &self.room).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::WhenFull;

    /// Writes are told apart by their bytes.
    fn queue() -> (super::super::queue::Queue<(), ()>, Inbox<(), ()>) {
        super::super::queue::Queue::new(100, 1 << 20)
    }

    #[test]
    fn writes_join_in_order_until_something_is_to_be_done_alone() {
        let (queue, mut inbox) = queue();
        let write = |bytes| queue.write((), bytes, WhenFull::Wait).unwrap();
        let tickets = (write(1), write(2), queue.alone(()).unwrap(), write(3));
        // Taken out while the previous group is answered; the order stays.
        inbox.answering(0);
        assert_eq!(inbox.expected, 3, "writes only");
        assert!(matches!(inbox.next(), Some(Next::Write(write)) if write.bytes == 1));
        inbox.open(1);
        assert_eq!(inbox.more(1).unwrap().bytes, 2);
        assert!(inbox.more(2).is_none() && inbox.more(2).is_none(), "the group is shut");
        assert!(matches!(inbox.next(), Some(Next::Alone(_))));
        assert!(matches!(inbox.next(), Some(Next::Write(write)) if write.bytes == 3));
        drop(tickets);
    }

    #[tokio::test]
    async fn a_task_takes_what_waits_and_sleeps_until_something_arrives() {
        let (queue, mut inbox) = queue();
        let write = |bytes| queue.write((), bytes, WhenFull::Wait).unwrap();
        let tickets = (write(1), write(2), queue.alone(()).unwrap(), write(3));
        let Some(Next::Write(first)) = inbox.ready().await else { panic!("a write") };
        let group = inbox.gather(first).await;
        assert_eq!(group.iter().map(|write| write.bytes).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(inbox.release(group).len(), 2);
        assert_eq!(inbox.expected, 3, "two that were answered, one that waits");
        assert!(matches!(inbox.ready().await, Some(Next::Alone(_))));
        assert!(matches!(inbox.ready().await, Some(Next::Write(write)) if write.bytes == 3));
        drop(tickets);
        let sleeping = tokio::spawn(async move {
            let woken = inbox.ready().await.is_some();
            (woken, inbox.ready().await.is_none())
        });
        tokio::task::yield_now().await;
        drop(queue.write((), 4, WhenFull::Wait).unwrap());
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(sleeping.await.unwrap(), (true, true));
    }

    #[test]
    fn a_group_ends_at_its_bounds() {
        let (queue, mut inbox) = queue();
        drop(queue.write((), 1, WhenFull::Wait).unwrap());
        inbox.open(GROUP_BYTES);
        assert!(inbox.more(1).is_none(), "in bytes");
        inbox.open(0);
        assert!(inbox.more(GROUP_WRITES).is_none(), "in number");
        inbox.open(0);
        assert_eq!(inbox.more(1).unwrap().bytes, 1);
    }

    #[test]
    fn only_those_who_can_come_are_waited_for() {
        let (_queue, mut inbox) = queue();
        inbox.took = Duration::from_secs(1);
        inbox.expected = 1;
        inbox.open(0);
        assert!(inbox.more(1).is_none() && inbox.until.is_none(), "a lone caller is not waited for");
        inbox.expected = 2;
        inbox.open(0);
        let begun = Instant::now();
        assert!(inbox.more(1).is_none() && begun.elapsed() >= GATHER, "another one is, but not for ever");
    }
}
