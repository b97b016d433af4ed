use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use tokio::sync::oneshot;

use super::*;

type Counter = Turns<u32, u32>;

/// Adds to the state once the gate is open, and returns what it was before.
fn add(gate: oneshot::Receiver<()>) -> impl FnOnce(&mut u32) -> Next<&'static str, u32, u32> {
    |state| {
        let before = std::mem::take(state);
        Next::Run(Box::pin(async move {
            let _: Result<(), oneshot::error::RecvError> = gate.await;
            (before + 1, before)
        }))
    }
}

/// A gate that is open.
fn open_gate() -> oneshot::Receiver<()> {
    let (_, gate) = oneshot::channel();
    gate
}

/// Returns the state.
fn look(state: &mut u32) -> Next<u32, u32, u32> {
    Next::Done(*state)
}

fn done(turn: &Turn<u32, u32>) -> u32 {
    match turn {
        Turn::Done(state) => *state,
        Turn::Ran(_) => panic!("it only looks"),
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls a future with a waker that counts.
fn poll<F: Future>(future: Pin<&mut F>, count: &Arc<Count>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
}

/// A command was polled once in a `select!` and kept, and every other command on its aggregate waited forever.
#[tokio::test]
async fn a_future_that_is_kept_holds_up_nobody() {
    for kept in 1..10 {
        let turns = Arc::<Counter>::default();
        let (open, gate) = oneshot::channel();
        let mut all = vec![Box::pin(turns.take(add(gate)))];
        let mut gates = vec![open];
        for _ in 1..kept {
            let (open, gate) = oneshot::channel();
            gates.push(open);
            all.push(Box::pin(turns.take(add(gate))));
        }
        let silent = Arc::<Count>::default();
        for one in &mut all {
            assert!(poll(one.as_mut(), &silent).is_pending());
        }
        let other = Arc::clone(&turns);
        let other = tokio::spawn(async move { done(&other.take(look).await) });
        tokio::task::yield_now().await;
        gates.remove(0).send(()).unwrap();
        assert_eq!(other.await.unwrap(), 1, "only the first had decided");
        // The outcome of the first waits for it.
        assert!(matches!(poll(all[0].as_mut(), &silent), Poll::Ready(Turn::Ran(0))));
        drop(gates);
        for (one, before) in all.into_iter().skip(1).zip(1..) {
            assert!(matches!(one.await, Turn::Ran(number) if number == before));
        }
    }
}

#[tokio::test]
async fn a_future_that_is_dropped_takes_its_job_with_it() {
    let turns = Arc::<Counter>::default();
    assert!(matches!(turns.take(add(open_gate())).await, Turn::Ran(0)));
    let (mut open, gate) = oneshot::channel();
    let mut dropped = Box::pin(turns.take(add(gate)));
    let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
    assert!(poll(dropped.as_mut(), &first).is_pending());
    let mut waits = pin!(turns.take(look));
    assert!(poll(waits.as_mut(), &second).is_pending());
    drop(dropped);
    open.closed().await;
    assert_eq!(second.0.load(Ordering::SeqCst), 1, "the waiting future is woken");
    assert!(matches!(poll(waits.as_mut(), &second), Poll::Ready(Turn::Done(0))), "the state went with it");
    assert!(lock(&turns.work).finished.is_empty());
}

#[tokio::test]
async fn a_panic_goes_to_its_own_caller() {
    let turns = Arc::<Counter>::default();
    assert!(matches!(turns.take(add(open_gate())).await, Turn::Ran(0)));
    let panicking = Arc::clone(&turns);
    let decided = tokio::spawn(async move { panicking.take(|_| -> Next<(), _, _> { panic!("decides") }).await });
    assert!(decided.await.unwrap_err().is_panic());
    assert_eq!(done(&turns.take(look).await), 1, "the state is as it was");

    let (open, gate) = oneshot::channel::<()>();
    let job = |state: &mut u32| -> Next<(), u32, u32> {
        *state = 0;
        Next::Run(Box::pin(async {
            drop(gate.await);
            panic!("runs");
        }))
    };
    let mut running = Box::pin(turns.take(job));
    assert!(poll(running.as_mut(), &Arc::default()).is_pending());
    drop(open);
    assert_eq!(done(&turns.take(look).await), 0, "another one polled the job, and the state it had is gone");
    let caught = catch_unwind(AssertUnwindSafe(|| poll(running.as_mut(), &Arc::default())));
    assert_eq!(*caught.err().unwrap().downcast_ref::<&str>().unwrap(), "runs");
    drop(running);
    assert_eq!(done(&turns.take(look).await), 0);
}

/// Each turn of another future causes one wake-up, and a dropped future leaves none behind.
#[tokio::test]
async fn waiting_costs_one_look_for_each_turn() {
    let turns = Arc::<Counter>::default();
    let (open, gate) = oneshot::channel();
    let mut runs = Box::pin(turns.take(add(gate)));
    let counts: Vec<Arc<Count>> = (0..10).map(|_| Arc::default()).collect();
    let mut waiting: Vec<_> = counts.iter().map(|_| Box::pin(turns.take(add(open_gate())))).collect();
    let owner = Arc::<Count>::default();
    assert!(poll(runs.as_mut(), &owner).is_pending());
    for (one, count) in waiting.iter_mut().zip(&counts) {
        assert!(poll(one.as_mut(), count).is_pending());
        assert!(poll(one.as_mut(), count).is_pending());
    }
    for _ in 0..1_000 {
        let mut gone = Box::pin(turns.take(look));
        assert!(poll(gone.as_mut(), &owner).is_pending());
    }
    assert!(lock(&turns.waiting).seats.len() <= 12);
    drop(open);
    let woken = || counts.iter().map(|count| count.0.load(Ordering::SeqCst)).collect::<Vec<_>>();
    assert_eq!(woken(), [1; 10]);
    assert!(poll(runs.as_mut(), &owner).is_ready());
    assert_eq!(woken(), [1; 10], "they have been woken");
}

/// Many threads at once: every job runs once, and no wake-up is lost.
#[test]
fn many_threads_take_turns() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let total = runtime.block_on(async {
        let turns = Arc::<Counter>::default();
        let mut tasks = Vec::new();
        for n in 0..16 {
            let turns = Arc::clone(&turns);
            tasks.push(tokio::spawn(async move {
                for round in 0..200 {
                    let work = turns.take(|state| {
                        let before = std::mem::take(state);
                        Next::<(), _, _>::Run(Box::pin(async move {
                            for _ in 0..(n + round) % 3 {
                                tokio::task::yield_now().await;
                            }
                            (before + 1, before)
                        }))
                    });
                    let mut work = Box::pin(work);
                    // Polled once, kept for a while, and then awaited.
                    let is_done = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
                    if round % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                    if !is_done {
                        work.await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        done(&turns.take(look).await)
    });
    assert_eq!(total, 16 * 200);
}
