//! E4, G7: when snapshots are saved, by whom, and when no longer.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use es_framework::{Conflict, ExecuteError, ExpectedVersion, Repository, SnapshotError, StoreError};

use crate::bank::{Account, Deposit, DepositEach, Withdraw};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::support::{id, stream, v, within};

/// A minimal executor: one future, one thread, no timers, no runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// On executors other than tokio's, a command with a snapshot due panicked after its event was written. Without a
/// runtime the snapshot is saved before the command returns.
pub async fn e4_commands_and_snapshots_need_no_runtime(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (done, wait) = tokio::sync::oneshot::channel();
    let thread = thread::spawn(move || {
        let accounts = Repository::<Account>::new(&store);
        let other = accounts.clone();
        // Two threads with one executor each, on one aggregate.
        let deposits = |accounts: Repository<Account>| {
            for _ in 0..20 {
                block_on(accounts.execute("alice", Deposit(1)).into_future()).expect("it deposits");
            }
        };
        let second = thread::spawn(move || deposits(other));
        deposits(accounts.clone());
        second.join().expect("no panic");
        block_on(async {
            let metrics = accounts.metrics();
            assert!(metrics.snapshots_saved >= 5 && metrics.snapshots_failed == 0, "{metrics:?}");
            accounts.snapshots_settled().await;
            let receipt = accounts.execute("alice", Withdraw(40)).key("k").await.expect("all is there");
            assert_eq!((receipt.version, receipt.state.cents), (v(41), 0));
            assert!(accounts.execute("alice", Withdraw(40)).key("k").await.expect("it is known").was_known);
            let error = accounts.execute("alice", Withdraw(1)).await.expect_err("nothing is left");
            assert!(matches!(error, ExecuteError::Rejected(_)), "{error:?}");
            let cold = Repository::<Account>::new(&store);
            assert_eq!(cold.load("alice").await.expect("it loads").version, v(41));
            assert_eq!(cold.metrics().snapshots_used, 1);
            assert_eq!(cold.load_as_of("alice", v(7)).await.expect("it loads").state.cents, 7);
            // A load also saves a snapshot that is due.
            let events: Vec<_> =
                (0..9).map(|_| es_framework::Event::encode(&deposited()).expect("it encodes")).collect();
            stream(&store, "account-bob").write(events, ExpectedVersion::Any).await.expect("it writes");
            cold.load("bob").await.expect("it loads");
            assert_eq!(cold.metrics().snapshots_saved, 1);
        });
        done.send(()).expect("it is waited for");
    });
    let ended = within("commands without a runtime", wait).await;
    thread.join().expect("no panic without a runtime");
    ended.expect("it came to its end");
}

fn deposited() -> crate::bank::AccountEvent {
    crate::bank::AccountEvent::Deposited { cents: 1 }
}

/// A read-only store with snapshots encoded, failed and warned at each load, forever. It is tried once.
pub async fn e4_a_store_that_can_save_no_snapshot_is_asked_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let read_only = Meddling::with(&store).before_snapshot(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err(SnapshotError::Store(StoreError::ReadOnly)) }
    });
    let accounts = Repository::<Account>::new(read_only.into_store());
    for n in 0..20 {
        accounts.execute(format!("a-{}", n % 3), DepositEach(1, 6)).await.expect("the command succeeds");
        accounts.snapshots_settled().await;
        accounts.clone().load(format!("a-{}", n % 3)).await.expect("it loads");
        accounts.snapshots_settled().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!((accounts.metrics().snapshots_failed, accounts.metrics().snapshots_saved), (1, 0));
}

/// A store that fails for a temporary reason is tried less and less often, and at the normal rate again once a save
/// succeeds.
pub async fn e4_a_store_that_fails_to_save_is_asked_less_and_less_often(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let failing = Meddling::with(&store).before_snapshot(move |snapshot| {
        let is_early = counted.fetch_add(1, Ordering::SeqCst) < 6;
        async move {
            if is_early {
                Err(SnapshotError::Store(StoreError::DiskFull { source: "full".into() }))
            } else {
                Ok(snapshot)
            }
        }
    });
    let accounts = Repository::<Account>::new(failing.into_store());
    accounts.execute("alice", DepositEach(1, 6)).await.expect("the command succeeds");
    let mut loads = 0;
    while accounts.metrics().snapshots_saved == 0 {
        accounts.snapshots_settled().await;
        accounts.load("alice").await.expect("it loads");
        accounts.snapshots_settled().await;
        loads += 1;
        assert!(loads < 200, "it is never asked again");
    }
    assert_eq!((accounts.metrics().snapshots_failed, asked.load(Ordering::SeqCst)), (6, 7));
    assert!(loads > 20, "after {loads} loads already");
}

/// `with_cache(0).clone().with_tries(3)` had the default cache again: settings are one value, and every handle has it.
pub async fn g5_a_clone_has_the_same_settings(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::builder(&store).cache(0).tries(1).build();
    for handle in [&accounts, &accounts.clone(), &accounts.clone().clone()] {
        handle.execute("alice", Deposit(1)).await.expect("it deposits");
    }
    assert_eq!((accounts.metrics().cache_hits, accounts.metrics().cache_misses), (0, 3));

    let log = store.clone();
    let faster = move |append| {
        let account = stream(&log, "account-alice");
        async move {
            account.write(es_framework::Event::encode(&deposited()).expect("it encodes"), ExpectedVersion::Any).await?;
            Ok(append)
        }
    };
    let meddled = Meddling::with(&store).before_append(faster).into_store();
    for tries in [1, 2, 5] {
        let accounts = Repository::<Account>::builder(&meddled).cache(0).tries(tries).build();
        let error = accounts.clone().execute("alice", Deposit(1)).await.expect_err("others are faster");
        assert!(matches!(error, ExecuteError::Conflict { tries: found, .. } if found == tries), "{error:?}");
    }
    let accounts = Repository::<Account>::builder(&store).tries(0).build();
    accounts.execute("alice", Deposit(1)).await.expect("once at least");
}

/// A command that insists on a version reported `tries: 1` whatever had happened.
pub async fn a2_a_refused_expectation_says_how_often_it_was_tried(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    let error = accounts.execute("alice", Deposit(1)).expecting(v(7)).await.expect_err("it is not there");
    assert!(matches!(error, ExecuteError::Conflict { tries: 1, .. }), "{error:?}");

    let log = store.clone();
    let faster = move |append| {
        let account = stream(&log, "account-alice");
        async move {
            account.write(es_framework::Event::encode(&deposited()).expect("it encodes"), ExpectedVersion::Any).await?;
            Ok(append)
        }
    };
    let late = Repository::<Account>::new(Meddling::with(&store).before_append(faster).into_store());
    let error = late.execute("alice", Deposit(1)).expecting(v(1)).await.expect_err("another one was faster");
    let ExecuteError::Conflict { tries: 2, conflict } = error else { panic!("{error:?}") };
    assert_eq!(conflict, Conflict::stream(id("account-alice"), ExpectedVersion::Exact(v(1)), v(2)));
}

/// With only one try, a cached state that is behind causes a conflict once, and not forever.
pub async fn g5_a_state_that_was_behind_is_brought_up_to_date(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, other) = (Repository::<Account>::builder(&store).tries(1).build(), Repository::<Account>::new(&store));
    one.execute("alice", Deposit(1)).await.expect("it deposits");
    other.execute("alice", Deposit(10)).await.expect("it deposits");
    let error = one.execute("alice", Deposit(100)).await.expect_err("it is behind");
    assert!(matches!(error, ExecuteError::Conflict { tries: 1, .. }), "{error:?}");
    assert_eq!(one.execute("alice", Deposit(100)).await.expect("it is up to date").state.cents, 111);
    other.execute("alice", Deposit(1_000)).await.expect("it deposits");
    let receipt = one.execute("alice", Deposit(1)).expecting(v(4)).await.expect("what is expected is looked up first");
    assert_eq!(receipt.state.cents, 1_112);
}
