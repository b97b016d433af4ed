//! The room of a queue: what is in it, and what waits in front of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::log::WhenFull;

/// Something that was accepted and waits for the writer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Queued<T> {
    /// The item.
    pub item: T,
    /// What it counts against the bounds of the queue and of a group.
    pub bytes: usize,
    /// When it began to wait.
    pub since: Instant,
    /// Its part of the queue's room.
    pub permit: Permit,
}

/// A part of a queue's room; dropping it gives it back and lets in those that wait for it.
#[derive(Default)]
pub struct Permit {
    taken: Option<(Arc<dyn Leave>, usize)>,
}

/// See [`Permit`].
trait Leave: Send + Sync {
    fn leave(self: Arc<Self>, units: usize);
}

impl Permit {
    /// Takes the places of writes of one queue, to give them back at once: giving back takes the lock that callers take.
    pub(super) fn of_all<T>(writes: &mut [Queued<T>]) -> Self {
        let mut permits = Self::default();
        for write in writes {
            permits.merge(std::mem::take(&mut write.permit));
        }
        permits
    }

    /// Merges the places of one queue, so that they are given back at once.
    fn merge(&mut self, mut other: Self) {
        match (&mut self.taken, other.taken.take()) {
            (Some((_, units)), Some((_, more))) => *units += more,
            (_, None) => {}
            (taken @ None, more) => *taken = more,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((room, units)) = self.taken.take() {
            room.leave(units);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.taken.as_ref().map_or(0, |(_, units)| *units)).finish()
    }
}

/// One thing for the writer to do.
pub(super) enum Job<W, A> {
    /// To be committed together with others.
    Write(Queued<W>),
    /// To run alone, between two groups.
    Alone(Queued<A>),
    /// To end after everything that was accepted.
    Stop,
}

impl<W, A> Job<W, A> {
    fn permit(&mut self) -> Option<&mut Permit> {
        match self {
            Self::Write(queued) => Some(&mut queued.permit),
            Self::Alone(queued) => Some(&mut queued.permit),
            Self::Stop => None,
        }
    }
}

/// Why something was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The queue was closed.
    Closed,
    /// The queue is full, and the caller chose not to wait.
    Full,
}

/// How much a queue holds, and the line in front of it.
///
/// If the queue is full, the line holds the job itself rather than a waker: when there is room, whoever gave it back
/// moves the next job into the queue. So no room is ever reserved for a caller that might not be polled for a long
/// time, and no caller has to be polled to make progress.
pub(super) struct Room<W, A> {
    /// One unit per byte. A small job takes as many units as if it used its share of the bytes, so that this bounds the
    /// number too.
    /// too.
    share: usize,
    all: usize,
    sender: Sender<Job<W, A>>,
    /// Wakes a writer that is a task; one that blocks its thread is woken by the channel.
    arrived: Notify,
    /// Set under the lock.
    closed: AtomicBool,
    state: Mutex<State<W, A>>,
}

struct State<W, A> {
    /// The free units.
    left: usize,
    /// The jobs that wait, numbered and in order, each with the units it needs.
    line: VecDeque<(u64, usize, Job<W, A>)>,
    next: u64,
}

impl<W: Send + 'static, A: Send + 'static> Room<W, A> {
    pub(super) fn new(places: usize, bytes: usize) -> (Arc<Self>, Receiver<Job<W, A>>) {
        let (sender, jobs) = mpsc::channel();
        let places = places.max(1);
        let share = bytes.div_ceil(places).max(1);
        let all = share.saturating_mul(places);
        let state = State { left: all, line: VecDeque::new(), next: 0 };
        let closed = AtomicBool::new(false);
        let room = Self { share, all, sender, arrived: Notify::new(), closed, state: Mutex::new(state) };
        (Arc::new(room), jobs)
    }

    /// Puts a job into the queue, or at the end of the line; returns its number there.
    pub(super) fn enter(
        self: &Arc<Self>,
        job: Job<W, A>,
        bytes: usize,
        when_full: WhenFull,
    ) -> Result<Option<u64>, Refused> {
        // A job larger than the queue has it to itself.
        let units = bytes.clamp(self.share, self.all);
        let mut state = self.lock();
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        if state.line.is_empty() && units <= state.left {
            state.left -= units;
            drop(state);
            self.put(units, job);
            return Ok(None);
        }
        if when_full == WhenFull::Fail {
            return Err(Refused::Full);
        }
        let number = state.next;
        state.next += 1;
        state.line.push_back((number, units, job));
        Ok(Some(number))
    }

    /// Puts a job into the queue past its bounds.
    pub(super) fn enter_past(&self, job: Job<W, A>) -> Result<(), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        self.sender.send(job).map_err(|_| Refused::Closed)?;
        self.arrived.notify_one();
        Ok(())
    }

    /// Removes a job from the line, if it is still there.
    pub(super) fn give_up(self: &Arc<Self>, number: u64) {
        let mut state = self.lock();
        let place = state.line.binary_search_by_key(&number, |(number, _, _)| *number).ok();
        let given_up = place.and_then(|place| state.line.remove(place));
        drop(state);
        // The jobs behind it may need less.
        if given_up.is_some() {
            Arc::clone(self).leave(0);
        }
        // Dropped after the lock is released: it may hold the last handle to this very queue.
    }

    /// Refuses new jobs and those that wait in the line, and ends the writer after what was accepted.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        self.closed.store(true, Ordering::Release);
        let refused = std::mem::take(&mut state.line);
        drop(state);
        // Nobody receives any more if the writer has ended.
        drop(self.sender.send(Job::Stop));
        self.arrived.notify_one();
        drop(refused);
    }

    pub(super) fn in_line(&self) -> (usize, usize) {
        let state = self.lock();
        let writes = state.line.iter().filter_map(|(_, _, job)| match job {
            Job::Write(write) => Some(write.bytes),
            Job::Alone(_) | Job::Stop => None,
        });
        writes.fold((0, 0), |(writes, bytes), more| (writes + 1, bytes.saturating_add(more)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn put(self: &Arc<Self>, units: usize, mut job: Job<W, A>) {
        if let Some(permit) = job.permit() {
            let room: Arc<dyn Leave> = Arc::<Self>::clone(self);
            permit.taken = Some((room, units));
        }
        // If the writer has ended, the caller learns it from the dropped answer.
        drop(self.sender.send(job));
        self.arrived.notify_one();
    }

    /// Waits until something arrived since the last wait.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State<W, A>> {
        // Nothing panics halfway through a change, so a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Send + 'static, A: Send + 'static> Leave for Room<W, A> {
    fn leave(self: Arc<Self>, units: usize) {
        let mut state = self.lock();
        state.left += units;
        let mut admitted = Vec::new();
        while let Some((_, units, _)) = state.line.front()
            && *units <= state.left
            && let Some((_, units, job)) = state.line.pop_front()
        {
            state.left -= units;
            admitted.push((units, job));
        }
        drop(state);
        for (units, job) in admitted {
            self.put(units, job);
        }
    }
}

impl<W, A> fmt::Debug for Room<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Room")
            .field("all", &self.all)
            .field("left", &state.left)
            .field("waiting", &state.line.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
