//! What the writer takes out of the queue, and how long it waits for more.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::write::queue::{Job, Write};

/// The writes of one group at most, and their bytes, so that other processes get their turn.
const GROUP_WRITES: usize = 4_096;
const GROUP_BYTES: usize = 8 << 20;
/// How long the writer looks for a job before it goes to sleep: a sleeping thread costs a lone caller 20 to 50 µs.
const SPIN: Duration = Duration::from_micros(20);
/// How long the writer waits at most for those it has just answered.
const GATHER: Duration = Duration::from_micros(200);

/// The writer's end of the queue.
///
/// Callers who were just answered come back with their next write a moment later. Without waiting for them the writer
/// would serve them in two halves by turns, with twice the flushes; so it waits, an eighth of what the last group took,
/// until as many have come as can come. A caller who stays alone is never waited for.
pub(crate) struct Inbox<'j> {
    jobs: &'j Receiver<Job>,
    /// Taken out of the queue, in order.
    waiting: VecDeque<Job>,
    /// How many may come into the group: those who were answered last, and those who waited already then.
    expected: usize,
    /// Whether the group may grow, and its bytes.
    is_open: bool,
    bytes: usize,
    /// When the group was begun, and how long the one before took until it was answered.
    begun: Instant,
    took: Duration,
    /// Until when it is waited for more.
    until: Option<Instant>,
}

impl<'j> Inbox<'j> {
    pub(crate) fn new(jobs: &'j Receiver<Job>) -> Self {
        Self {
            jobs,
            waiting: VecDeque::new(),
            expected: 0,
            is_open: false,
            bytes: 0,
            begun: Instant::now(),
            took: Duration::ZERO,
            until: None,
        }
    }

    /// The next job; [`None`] when nobody is left who could ask for anything.
    pub(crate) fn next(&mut self) -> Option<Job> {
        let mut until = None;
        loop {
            match self.take() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + SPIN) {
                        return self.jobs.recv().ok();
                    }
                    std::hint::spin_loop();
                }
            }
        }
    }

    /// Begins a group with a write of so many bytes.
    pub(crate) fn open(&mut self, bytes: usize) {
        self.is_open = true;
        self.bytes = bytes;
        self.begun = Instant::now();
        self.until = None;
    }

    /// Lets nothing more into the group.
    pub(crate) fn shut(&mut self) {
        self.is_open = false;
    }

    /// The next write for the group, which has `group` of them.
    pub(crate) fn more(&mut self, group: usize) -> Option<Box<dyn Write>> {
        while self.is_open && group < GROUP_WRITES && self.bytes < GROUP_BYTES {
            match self.take() {
                Ok(Job::Write(write)) => {
                    self.bytes += write.bytes();
                    return Some(write);
                }
                Ok(other) => {
                    self.waiting.push_front(other);
                    break;
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    let now = Instant::now();
                    let patience = (self.took / 8).min(GATHER);
                    if group >= self.expected || now >= *self.until.get_or_insert(now + patience) {
                        break;
                    }
                    thread::yield_now();
                }
            }
        }
        self.shut();
        None
    }

    /// Notes that so many callers are about to be answered.
    pub(crate) fn answering(&mut self, callers: usize) {
        // Who has come by now is not among them, so these are all who can come.
        self.waiting.extend(self.jobs.try_iter());
        self.expected = callers + self.waiting.iter().filter(|job| matches!(job, Job::Write(_))).count();
        self.took = self.begun.elapsed();
    }

    fn take(&mut self) -> Result<Job, TryRecvError> {
        self.waiting.pop_front().map_or_else(|| self.jobs.try_recv(), Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use es_framework::StoreError;
    use tokio::sync::OwnedSemaphorePermit;

    use super::*;
    use crate::write::append::Transaction;

    /// A write that is told from others by its bytes.
    struct OfBytes(usize);

    impl Write for OfBytes {
        fn run(&mut self, _: &mut Transaction<'_>) -> Result<(), StoreError> {
            Ok(())
        }
        fn answer(self: Box<Self>, _: Result<(), StoreError>) {}
        fn leave(&mut self) -> Option<OwnedSemaphorePermit> {
            None
        }
        fn bytes(&self) -> usize {
            self.0
        }
        fn queued(&self) -> Instant {
            Instant::now()
        }
    }

    fn write(bytes: usize) -> Job {
        Job::Write(Box::new(OfBytes(bytes)))
    }

    fn alone() -> Job {
        Job::Alone { queued: Instant::now(), run: Box::new(|_, _| ()) }
    }

    #[test]
    fn writes_join_in_order_until_something_is_to_be_done_alone() {
        let (sender, jobs) = mpsc::channel();
        let mut inbox = Inbox::new(&jobs);
        for job in [write(1), write(2), alone(), write(3)] {
            sender.send(job).unwrap();
        }
        // Taken out while the group before is answered; the order stays.
        inbox.answering(0);
        assert_eq!(inbox.expected, 3, "writes only");
        assert!(matches!(inbox.next(), Some(Job::Write(write)) if write.bytes() == 1));
        inbox.open(1);
        assert_eq!(inbox.more(1).unwrap().bytes(), 2);
        assert!(inbox.more(2).is_none() && inbox.more(2).is_none(), "the group is shut");
        assert!(matches!(inbox.next(), Some(Job::Alone { .. })));
        assert!(matches!(inbox.next(), Some(Job::Write(write)) if write.bytes() == 3));
    }

    #[test]
    fn a_group_ends_at_its_bounds() {
        let (sender, jobs) = mpsc::channel();
        let mut inbox = Inbox::new(&jobs);
        sender.send(write(1)).unwrap();
        inbox.open(GROUP_BYTES);
        assert!(inbox.more(1).is_none(), "in bytes");
        inbox.open(0);
        assert!(inbox.more(GROUP_WRITES).is_none(), "in number");
        inbox.open(0);
        assert_eq!(inbox.more(1).unwrap().bytes(), 1);
    }

    #[test]
    fn only_those_who_can_come_are_waited_for() {
        let (_sender, jobs) = mpsc::channel();
        let mut inbox = Inbox::new(&jobs);
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
