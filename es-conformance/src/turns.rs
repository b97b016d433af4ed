//! G5: commands that are polled once and kept, next to others on the same aggregate.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use es_framework::{Repository, Stream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use crate::bank::{Account, Deposit};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::support::{events_of, stream, v, within};

/// Polls a future up to `times` times, letting others run in between; returns whether it finished.
async fn poll_some<F: Future + Send + ?Sized>(mut future: Pin<&mut F>, times: usize) -> bool
where
    F::Output: Send,
{
    for _ in 0..times {
        if poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await {
            return true;
        }
        yield_now().await;
    }
    false
}

async fn cents(account: &Stream) -> u64 {
    events_of(account).await.len() as u64
}

/// A command was polled once in a `select!` and then kept while another one ran on the same aggregate, which waited
/// forever. Wherever the kept one is suspended, the other one finishes, and so does the kept one when it is polled
/// again.
pub async fn g5_a_kept_command_holds_up_nobody(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    for (is_warm, polls) in [false, true].into_iter().flat_map(|is_warm| (1..8).map(move |polls| (is_warm, polls))) {
        let id = format!("{is_warm}-{polls}");
        let mut expected = 2;
        if is_warm {
            accounts.execute(id.clone(), Deposit(1)).await.expect("it deposits");
            expected += 1;
        }
        let mut kept = pin!(accounts.execute(id.clone(), Deposit(1)).into_future());
        let is_done = poll_some(kept.as_mut(), polls).await;
        within("another command", accounts.execute(id.clone(), Deposit(1))).await.expect("it deposits");
        if !is_done {
            within("the kept command", kept).await.expect("it deposits");
        }
        let loaded = accounts.load(id).await.expect("it loads");
        assert_eq!((loaded.state.cents, loaded.version), (expected, v(expected)));
    }
}

/// Many commands are kept, some of them are dropped later, and those of other tasks continue throughout.
pub async fn g5_any_number_of_kept_commands_hold_up_nobody(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let mut kept: Vec<_> = (0..100).map(|_| Box::pin(accounts.execute("alice", Deposit(1)).into_future())).collect();
    let mut done = vec![false; kept.len()];
    for (one, done) in kept.iter_mut().zip(&mut done) {
        *done = poll_some(one.as_mut(), 1).await;
    }
    let mut others = JoinSet::new();
    for _ in 0..20 {
        let accounts = accounts.clone();
        others.spawn(async move { accounts.execute("alice", Deposit(1)).await.map(|receipt| receipt.version) });
    }
    while let Some(other) = within("the commands of other tasks", others.join_next()).await {
        other.expect("no panic").expect("it deposits");
    }
    let mut after = 0;
    for (n, (one, done)) in kept.into_iter().zip(done).enumerate() {
        if n % 2 == 0 && !done {
            within("a kept command", one).await.expect("it deposits");
            after += 1;
        }
    }
    let loaded = accounts.load("alice").await.expect("it loads");
    assert!(loaded.version >= v(20 + after));
    assert_eq!(loaded.state.cents, cents(&stream(&store, "account-alice")).await);
}

/// What a kept command started is finished by any command that waits for it, and is not decided again: the others still
/// take turns.
pub async fn g5_others_finish_what_a_kept_command_began(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (gate, reached) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gates, count) = (Arc::clone(&gate), Arc::clone(&reached));
    let meddled = Meddling::with(&store).before_append(move |append| {
        count.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gates);
        async move {
            gate.acquire().await.expect("it is never closed").forget();
            Ok(append)
        }
    });
    let accounts = Repository::<Account>::new(meddled.into_store());
    let mut kept = pin!(accounts.execute("alice", Deposit(1)).into_future());
    within("its append", async {
        while reached.load(Ordering::SeqCst) == 0 {
            assert!(!poll_some(kept.as_mut(), 1).await, "it waits at the gate");
        }
    })
    .await;
    let mut others = JoinSet::new();
    for _ in 0..3 {
        let accounts = accounts.clone();
        others.spawn(async move { accounts.execute("alice", Deposit(10)).await });
    }
    assert!(!poll_some(pin!(others.join_next()), 50).await, "they wait for what was begun");
    gate.add_permits(4);
    let mut versions = Vec::new();
    while let Some(other) = within("the other commands", others.join_next()).await {
        versions.push(other.expect("no panic").expect("it deposits").version.get());
    }
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4]);
    let receipt = within("the kept command", kept).await.expect("it deposits");
    assert_eq!((receipt.version, receipt.state.cents, receipt.events), (v(1), 1, 1), "its own outcome was kept for it");
    assert_eq!(accounts.metrics().conflicts, 0);
}

/// Commands on one aggregate in one task, all of them polled, and one of them dropped midway.
pub async fn g5_commands_of_one_task_take_turns(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let mut all: Vec<_> =
        (0..10).map(|_| Some(Box::pin(accounts.execute("alice", Deposit(1)).into_future()))).collect();
    let mut rounds = 0;
    let every = poll_fn(|context| {
        rounds += 1;
        if rounds == 2 {
            all[3] = None;
        }
        for slot in &mut all {
            if slot.as_mut().is_some_and(|one| one.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if all.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    });
    within("ten commands in one task", every).await;
    let loaded = accounts.load("alice").await.expect("it loads");
    assert!((9..=10).contains(&loaded.version.get()), "{}", loaded.version);
    assert_eq!(loaded.state.cents, loaded.version.get());
    assert_eq!(accounts.metrics().conflicts, 0);
}
