//! Several futures that run at the same time inside one task.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Futures that are polled together, each only after it was woken. Needs no runtime, and ends with its owner.
pub(super) struct InFlight<'f, T> {
    running: Vec<Running<'f, T>>,
    /// The task that polls them.
    owner: Arc<Mutex<Waker>>,
}

struct Running<'f, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'f>>,
    woken: Arc<Woken>,
}

struct Woken {
    flag: AtomicBool,
    owner: Arc<Mutex<Waker>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        owner.wake();
    }
}

impl<'f, T> InFlight<'f, T> {
    pub(super) fn new() -> Self {
        Self { running: Vec::new(), owner: Arc::new(Mutex::new(Waker::noop().clone())) }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Adds a future, which is polled for the first time by [`Self::next`].
    pub(super) fn push(&mut self, future: impl Future<Output = T> + Send + 'f) {
        let woken = Woken { flag: AtomicBool::new(true), owner: Arc::clone(&self.owner) };
        self.running.push(Running { future: Box::pin(future), woken: Arc::new(woken) });
    }

    /// The output of the next future that is ready; [`None`] if there are none. Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.running.is_empty() {
            return Poll::Ready(None);
        }
        self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone_from(context.waker());
        for index in 0..self.running.len() {
            let Some(Running { future, woken }) = self.running.get_mut(index) else { break };
            if !woken.flag.swap(false, Ordering::AcqRel) {
                continue;
            }
            let waker = Waker::from(Arc::clone(woken));
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                drop(self.running.swap_remove(index));
                return Poll::Ready(Some(output));
            }
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for InFlight<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn each_is_polled_when_it_is_woken_and_only_then() {
        let polls = Arc::new(AtomicUsize::new(0));
        let mut flying = InFlight::new();
        let mut senders = Vec::new();
        for n in 0..100 {
            let (send, receive) = oneshot::channel::<()>();
            let polls = Arc::clone(&polls);
            let mut receive = Box::pin(receive);
            flying.push(poll_fn(move |context| {
                polls.fetch_add(1, Ordering::SeqCst);
                receive.as_mut().poll(context).map(|_| n)
            }));
            senders.push(send);
        }
        assert!(poll_fn(|context| Poll::Ready(flying.poll_next(context))).await.is_pending());
        assert_eq!(polls.load(Ordering::SeqCst), 100);
        for n in [57, 3, 99, 0] {
            std::mem::replace(&mut senders[n], oneshot::channel().0).send(()).unwrap();
            assert_eq!(flying.next().await, Some(n));
        }
        assert_eq!(polls.load(Ordering::SeqCst), 104, "nobody else was polled");
        // From another thread, while the task sleeps.
        std::thread::spawn(move || drop(senders));
        for _ in 0..96 {
            assert!(flying.next().await.is_some());
        }
        assert_eq!(flying.next().await, None);
    }
}
