//! H: which parts of a projection need a runtime, and what happens to one whose runtime shuts down.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use es_framework::{
    Bincode, ConsumerState, ErrorKind, Event, ExpectedVersion, Position, Projection, Projector, Recorded, RunError,
    SnapshotPolicy, Snapshots, StateModel, StateTx, Store, WaitError,
};

use crate::bank::{AccountEvent, Transfer};
use crate::fixture::Fixture;
use crate::support::{PATIENCE, p, stream, within};

#[derive(Debug, Default, Clone)]
struct Count {
    prepared: Arc<AtomicU64>,
}

impl Projector for Count {
    type Event = AccountEvent;
    type Model = StateModel<u64>;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "count";

    fn prepare(&self, _: &mut StateTx<'_, u64>) -> Result<(), Self::Error> {
        self.prepared.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn project(&self, _: &Recorded<AccountEvent>, count: &mut StateTx<'_, u64>) -> Result<(), Self::Error> {
        **count += 1;
        Ok(())
    }
}

async fn deposit(store: &Store, events: usize) -> Position {
    let deposited = AccountEvent::Deposited { cents: 1 }.encode().expect("it encodes");
    stream(store, "account-a").write(vec![deposited; events], ExpectedVersion::Any).await.expect("it writes").position
}

/// Runs a future on a thread without a tokio runtime, as another executor does, and waits for it.
async fn elsewhere<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    struct Thread(thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (reply, done) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let waker = Waker::from(Arc::new(Thread(thread::current())));
        let mut future = pin!(future);
        let done = loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(done) => break done,
                Poll::Pending => thread::park(),
            }
        };
        drop(reply.send(done));
    });
    within("it ends on a thread of its own", done).await.expect("it does not panic")
}

/// A projection runs in a task, so `start` needs a runtime: it returns an error before anything is touched, where it
/// used to panic.
pub async fn h2_a_start_without_a_runtime_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let count = Count::default();
    let (projector, model) = (count.clone(), StateModel::new(&store));
    let error = elsewhere(async move { Projection::new(&store, projector, model).start().await }).await;
    let error = error.expect_err("there is no runtime");
    assert!(matches!(error, RunError::NoRuntime), "{error:?}");
    assert_eq!((error.kind(), count.prepared.load(Ordering::SeqCst)), (ErrorKind::Caller, 0));
}

/// Catching up needs no runtime, even if a snapshot is due in between: that used to panic.
pub async fn h2_catching_up_needs_no_runtime(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let last = deposit(&store, 2_500).await;
    let policy = SnapshotPolicy::Every(NonZeroU64::MIN);
    let model = StateModel::saved_by(&store, Snapshots::new::<Bincode>(policy, 1));
    let projection = Projection::new(&store, Count::default(), model.clone());
    assert_eq!(elsewhere(projection.catch_up()).await.expect("it catches up"), last);
    assert_eq!(model.read(|count| *count), 2_500);
    assert!(store.all().load_snapshot("count").await.expect("it loads").is_some_and(|saved| saved.at == last.get()));
}

/// A decision needs no runtime, even if the state of an aggregate is due to be saved, or others are in line.
pub async fn i6_a_decision_runs_on_any_executor(fixture: &impl Fixture) {
    let store = fixture.open().await;
    crate::bank::deposit(&store, "a", 100).await;
    let mut others = tokio::task::JoinSet::new();
    for n in 1..=4 {
        let store = store.clone();
        others.spawn(async move {
            let decide = |n| store.decide(Transfer { from: "a", to: "b", cents: n }).tries(50);
            let here = decide(n).await;
            let there = store.clone();
            let there =
                elsewhere(async move { there.decide(Transfer { from: "a", to: "b", cents: n }).tries(50).await });
            here.and(there.await)
        });
    }
    while let Some(decided) = within("the decisions", others.join_next()).await {
        decided.expect("no panic").expect("there is enough");
    }
    assert_eq!(crate::bank::cents_of(&store, "b").await, 2 * (1 + 2 + 3 + 4));
    // An account is saved every five events, by a repository or a decision.
    let saved = within("a snapshot", async {
        loop {
            if let Some(saved) = stream(&store, "account-b").load_snapshot("aggregate").await.expect("it reads") {
                return saved;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!((5..=8).contains(&saved.await.at));
}

/// Waiting for a position works on any executor: it used to panic without a timer.
pub async fn h5_waiting_needs_no_runtime_and_no_timer(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let model = StateModel::new(&store);
    let running = Projection::new(&store, Count::default(), model).start().await.expect("it starts");
    let first = deposit(&store, 1).await;
    let waiting = running.clone();
    elsewhere(async move { waiting.wait_for(first, PATIENCE).await }).await.expect("it gets there");

    let (begun, waiting, patience) = (Instant::now(), running.clone(), Duration::from_millis(30));
    let late =
        elsewhere(async move { waiting.wait_for(p(1_000), patience).await }).await.expect_err("no such position");
    assert!(matches!(late, WaitError::TimedOut { reached, .. } if reached == first), "{late:?}");
    assert!(begun.elapsed() >= patience, "not before its time");

    // No clock can show "forever". Several waits run on one handle, some of them short.
    let second = p(first.get() + 1);
    let waits = [Duration::MAX, PATIENCE, Duration::ZERO, Duration::from_millis(1)].map(|timeout| {
        let waiting = running.clone();
        tokio::spawn(elsewhere(async move { waiting.wait_for(second, timeout).await.is_ok() }))
    });
    let [for_ever, long, no_time, short] = waits;
    for over in [no_time, short] {
        assert!(!over.await.expect("no panic"), "nothing was written yet");
    }
    deposit(&store, 1).await;
    for reached in [for_ever, long] {
        assert!(reached.await.expect("no panic"), "it is reached");
    }

    // A runtime without a timer is a runtime, too.
    let waiting = running.clone();
    let bare = thread::spawn(move || {
        let bare = tokio::runtime::Builder::new_current_thread().build().expect("the system gives one");
        bare.block_on(waiting.wait_for(p(1_000), Duration::from_millis(5)))
    });
    let late = tokio::task::spawn_blocking(|| bare.join()).await.expect("no panic").expect("no panic");
    assert!(matches!(late, Err(WaitError::TimedOut { .. })), "{late:?}");
    running.stop().await.expect("it stops");
}

/// The runtime of a projection was shut down, and its handle reported forever that it was live.
pub async fn h3_a_projection_whose_runtime_ended_has_failed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, 10).await;
    for runs_before in [false, true] {
        let projection = Projection::new(&store, Count::default(), StateModel::new(&store)).named("count-elsewhere");
        let started = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the system gives one");
            let running = runtime.block_on(projection.start()).expect("it starts");
            if runs_before {
                runtime.block_on(running.wait_for(p(10), PATIENCE)).expect("it gets there");
            }
            let waits = running.clone();
            let waits = thread::spawn(move || {
                let other = tokio::runtime::Builder::new_current_thread().build().expect("the system gives one");
                other.block_on(waits.wait_for(p(1_000), PATIENCE))
            });
            drop(runtime);
            (running, waits.join().expect("no panic"))
        });
        let (running, waited) = tokio::task::spawn_blocking(|| started.join()).await.expect("no panic").expect("none");
        let gone = |error: &RunError| matches!(error, RunError::TaskEnded);
        assert!(matches!(&waited, Err(WaitError::Failed { source, .. }) if gone(source)), "{waited:?}");
        let status = running.status();
        assert_eq!(status.state, ConsumerState::Failed);
        assert!(status.error.is_some_and(|error| gone(&error)));
        for asked in [within("its end", running.finished()).await, within("its end", running.stop()).await] {
            assert!(asked.is_err_and(|error| gone(&error)));
        }
        // It can be started again, in a runtime that keeps running.
        let model = StateModel::new(&store);
        let running = Projection::new(&store, Count::default(), model.clone()).named("count-elsewhere");
        let running = running.start().await.expect("it starts");
        running.wait_for(p(10), PATIENCE).await.expect("it gets there");
        assert_eq!(model.read(|count| *count), 10, "nothing took effect twice");
        running.stop().await.expect("it stops");
    }
}

/// Stopping twice, waiting for the end afterwards, and dropping the last handle.
pub async fn h6_however_often_it_is_stopped_the_same_is_returned(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let last = deposit(&store, 3).await;
    let model = StateModel::new(&store);
    let running = Projection::new(&store, Count::default(), model.clone()).start().await.expect("it starts");
    running.wait_for(last, PATIENCE).await.expect("it gets there");
    let clone = running.clone();
    let (one, other) = tokio::join!(running.stop(), clone.stop());
    assert_eq!((one.expect("it stops"), other.expect("it stops")), (last, last));
    assert_eq!(running.finished().await.expect("it stopped"), last);
    assert_eq!(running.stop().await.expect("it stopped"), last);
    assert_eq!(running.status().state, ConsumerState::Stopped);
    let never = running.wait_for(p(1_000), PATIENCE).await.expect_err("it was stopped");
    assert!(matches!(never, WaitError::Stopped { reached, .. } if reached == last), "{never:?}");
    running.wait_for(last, Duration::ZERO).await.expect("it has been there");

    // A stop that is dropped after its first poll continues.
    let running = Projection::new(&store, Count::default(), model.clone()).start().await.expect("it starts");
    crate::support::poll_once_and_drop(running.stop()).await;
    assert_eq!(within("it stops", running.finished()).await.expect("it stops well"), last);
}
