//! Taking turns, without a lock held inside somebody's future.
//!
//! Futures that work on the same state take turns. A lock would do if every future that holds it, or is next in its
//! queue, were polled to completion. But a future may be polled once and then kept (a branch of a `select!` in a loop),
//! and then no other one would ever get the lock. So a turn has two parts, and neither needs its own future to be
//! polled again:
//!
//! 1. *Deciding* is a function without any await. A future that is polled while no job is running calls its own.
//! 2. A *job* is the result of a decision: a future that is stored here. Every future that waits for a turn polls the
//!    running job, no matter whose it is. The job's outcome is kept here for its owner.
//!
//! For example, A decides and starts a job; B and C arrive and wait. When the job can make progress, all three are
//! woken, and the first one polled finishes it. If that is B, it decides next, and A finds its outcome when it is
//! polled. If A is never polled again, only its outcome is lost.
//!
//! Every turn wakes all waiting futures, because nobody knows which of them will be polled. So waiting costs one poll
//! for each turn of another future.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};

/// Work that runs in a turn: it takes the state, and returns it with its outcome.
pub(super) type Job<S, R> = Pin<Box<dyn Future<Output = (S, R)> + Send>>;

/// The result of a decision.
pub(super) enum Next<D, S, R> {
    /// The turn is over.
    Done(D),
    /// The turn is over when this job has finished.
    Run(Job<S, R>),
}

/// How a turn ended.
#[derive(Debug)]
pub(super) enum Turn<D, R> {
    /// With the decision.
    Done(D),
    /// With the outcome of the job.
    Ran(R),
}

/// State that futures work on in turns.
pub(super) struct Turns<S, R> {
    work: Mutex<Work<S, R>>,
    waiting: Mutex<Waiting>,
    /// Whether the running job has been woken and should be polled.
    is_ready: AtomicBool,
}

struct Work<S, R> {
    state: S,
    running: Option<Running<S, R>>,
    /// The outcomes of finished jobs whose futures have not been polled since.
    finished: Vec<(Ticket, Finished<R>)>,
    next: Ticket,
}

/// Identifies the owner of a job.
type Ticket = u64;

/// The outcome of a job, or the panic that ended it.
type Finished<R> = Result<R, Box<dyn Any + Send>>;

struct Running<S, R> {
    owner: Ticket,
    job: Job<S, R>,
}

impl<S: Default, R> Default for Turns<S, R> {
    fn default() -> Self {
        let work = Work { state: S::default(), running: None, finished: Vec::new(), next: 0 };
        Self { work: Mutex::new(work), waiting: Mutex::default(), is_ready: AtomicBool::new(false) }
    }
}

impl<S, R> Turns<S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    /// Waits for a turn, decides, and waits for the job if there is one. The decision must not block, and it must not
    /// wait for another turn of the same kind.
    ///
    /// A panic in `decide` goes to its caller, and so does one in the job, no matter who polled it. The state is then
    /// what the decision left of it.
    ///
    /// # Cancel safety
    ///
    /// Either a dropped future has not decided yet, or its job is dropped with it, and the state is what the decision
    /// left of it. A future that is kept without being polled does not keep others from their turns.
    pub(super) fn take<F, D>(self: &Arc<Self>, decide: F) -> Take<'_, F, S, R>
    where
        F: FnOnce(&mut S) -> Next<D, S, R>,
    {
        Take { turns: self, decide: Some(decide), ticket: None, seat: None }
    }

    /// Looks at the state, or changes it, unless a job has it or another future is deciding.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&mut S) -> T) -> Option<T> {
        let mut work = self.try_work()?;
        let seen = work.running.is_none().then(|| look(&mut work.state));
        drop(work);
        // A future that found the work taken meanwhile waits to be woken.
        self.wake_all();
        seen
    }

    fn try_work(&self) -> Option<MutexGuard<'_, Work<S, R>>> {
        match self.work.try_lock() {
            Ok(work) => Some(work),
            // A decision that panicked left the state as it was, or as it leaves it for a job.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Polls the running job if it was woken; returns whether it has finished.
    fn poll_job(self: &Arc<Self>, work: &mut Work<S, R>) -> bool {
        let Some(running) = &mut work.running else { return false };
        if !self.is_ready.swap(false, Ordering::SeqCst) {
            return false;
        }
        let waker = Waker::from(Arc::clone(self));
        let polled = catch_unwind(AssertUnwindSafe(|| running.job.as_mut().poll(&mut Context::from_waker(&waker))));
        let finished = match polled {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready((state, outcome))) => {
                work.state = state;
                Ok(outcome)
            }
            Err(panic) => Err(panic),
        };
        work.finished.push((running.owner, finished));
        work.running = None;
        true
    }

    fn wake_all(&self) {
        let wakers = lock(&self.waiting).drain();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S, R> Wake for Turns<S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Called when the running job can make progress.
    fn wake_by_ref(self: &Arc<Self>) {
        self.is_ready.store(true, Ordering::SeqCst);
        self.wake_all();
    }
}

/// The wakers of the waiting futures.
#[derive(Default)]
struct Waiting {
    /// How many times all were woken.
    round: u64,
    seats: Vec<Option<Waker>>,
    /// Seats that were vacated.
    free: Vec<usize>,
}

/// Where a waker is stored, unless all were woken since.
#[derive(Clone, Copy)]
struct Seat {
    round: u64,
    index: usize,
}

impl Waiting {
    fn register(&mut self, seat: &mut Option<Seat>, waker: &Waker) {
        let seated = seat.filter(|seat| seat.round == self.round).and_then(|seat| self.seats.get_mut(seat.index));
        if let Some(Some(old)) = seated {
            old.clone_from(waker);
            return;
        }
        let index = self.free.pop().unwrap_or(self.seats.len());
        match self.seats.get_mut(index) {
            Some(empty) => *empty = Some(waker.clone()),
            None => self.seats.push(Some(waker.clone())),
        }
        *seat = Some(Seat { round: self.round, index });
    }

    fn leave(&mut self, seat: Seat) {
        if seat.round == self.round
            && let Some(waker) = self.seats.get_mut(seat.index)
        {
            *waker = None;
            self.free.push(seat.index);
        }
    }

    fn drain(&mut self) -> Vec<Option<Waker>> {
        if self.seats.is_empty() {
            return Vec::new();
        }
        self.round += 1;
        self.free.clear();
        std::mem::take(&mut self.seats)
    }
}

/// A future that waits for its turn.
#[must_use = "a turn is taken when it is awaited"]
pub(super) struct Take<'t, F, S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    turns: &'t Arc<Turns<S, R>>,
    /// [`None`] once it has been called.
    decide: Option<F>,
    /// Of the job, once there is one.
    ticket: Option<Ticket>,
    seat: Option<Seat>,
}

/// Nothing in it is pinned.
impl<F, S, R> Unpin for Take<'_, F, S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
}

impl<F, D, S, R> Future for Take<'_, F, S, R>
where
    F: FnOnce(&mut S) -> Next<D, S, R>,
    S: Default + Send + 'static,
    R: Send + 'static,
{
    type Output = Turn<D, R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn<D, R>> {
        let this = self.get_mut();
        let turns = this.turns;
        // Whatever happens, even if a decision panics, others are woken if they may proceed. It outlives the lock
        // below.
        let mut others = Others { turns, must_wake: false };
        let work = turns.try_work().or_else(|| {
            // The current holder wakes all registered futures if anything changes for them.
            lock(&turns.waiting).register(&mut this.seat, cx.waker());
            turns.try_work()
        });
        let Some(mut work) = work else { return Poll::Pending };
        let turn = this.advance(&mut work, &mut others.must_wake);
        if turn.is_none() {
            let mut waiting = lock(&turns.waiting);
            let woken = if std::mem::take(&mut others.must_wake) { waiting.drain() } else { Vec::new() };
            waiting.register(&mut this.seat, cx.waker());
            drop(waiting);
            drop(work);
            woken.into_iter().flatten().for_each(Waker::wake);
            // The job may have been woken before this future was registered, or another one that found the work taken.
            others.must_wake = turns.is_ready.load(Ordering::SeqCst);
        } else {
            others.must_wake = true;
            drop(work);
        }
        turn.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<F, D, S, R> Take<'_, F, S, R>
where
    F: FnOnce(&mut S) -> Next<D, S, R>,
    S: Default + Send + 'static,
    R: Send + 'static,
{
    /// Proceeds as far as it can without waiting.
    fn advance(&mut self, work: &mut Work<S, R>, changed: &mut bool) -> Option<Turn<D, R>> {
        loop {
            *changed |= self.turns.poll_job(work);
            if let Some(ticket) = self.ticket {
                let at = work.finished.iter().position(|(owner, _)| *owner == ticket)?;
                let (_, finished) = work.finished.swap_remove(at);
                self.ticket = None;
                return Some(Turn::Ran(finished.unwrap_or_else(|panic| {
                    *changed = true;
                    resume_unwind(panic)
                })));
            }
            if work.running.is_some() {
                return None;
            }
            let decide = self.decide.take()?;
            let before = std::mem::replace(changed, true);
            match decide(&mut work.state) {
                Next::Done(decision) => return Some(Turn::Done(decision)),
                Next::Run(job) => {
                    // No other future can proceed.
                    *changed = before;
                    let owner = work.next;
                    work.next += 1;
                    work.running = Some(Running { owner, job });
                    self.ticket = Some(owner);
                    self.turns.is_ready.store(true, Ordering::SeqCst);
                }
            }
        }
    }
}

impl<F, S, R> Drop for Take<'_, F, S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            lock(&self.turns.waiting).leave(seat);
        }
        let Some(ticket) = self.ticket else { return };
        let mut work = lock(&self.turns.work);
        work.finished.retain(|(owner, _)| *owner != ticket);
        let mine = work.running.take_if(|running| running.owner == ticket);
        drop(work);
        if mine.is_some() {
            // Outside the lock: dropping the job may run any code.
            drop(mine);
            self.turns.wake_all();
        }
    }
}

/// Wakes the waiting futures when it is dropped, after the lock of the work was released.
struct Others<'t, S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    turns: &'t Arc<Turns<S, R>>,
    must_wake: bool,
}

impl<S, R> Drop for Others<'_, S, R>
where
    S: Default + Send + 'static,
    R: Send + 'static,
{
    fn drop(&mut self) {
        if self.must_wake {
            self.turns.wake_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
