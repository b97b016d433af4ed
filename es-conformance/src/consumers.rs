//! H4, H5, H10, H12, H17: states, control, status, leases and sets of consumers, for every read model of an engine.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use es_framework::{
    CellKey, ConsumerState, ControlError, ErrorKind, Lease, ModelError, Policy, Position, Projection, RunError,
    Running, StartFrom, Store, WaitError, WishError,
};

use crate::fixture::Shared;
use crate::ledger::{ALWAYS, Entries, Faulty, Ledger, deposit, entries, folded};
use crate::support::{PATIENCE, p, within};

async fn until(running: &Running, state: ConsumerState) {
    within("it gets into a state", async {
        while running.status().state != state {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Only what the table of states allows may happen; each state is a value.
pub async fn h12_only_legal_transitions_happen<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it starts");
    deposit(&store, "account-a", [1]).await;
    running.reached(p(1), PATIENCE).await.expect("it gets there");
    until(&running, ConsumerState::Live).await;
    let error = running.resume().await.expect_err("it is not paused");
    let ControlError::Illegal(illegal) = &error else { panic!("{error:?}") };
    assert_eq!((illegal.from, illegal.to), (ConsumerState::Live, ConsumerState::Starting));
    assert!(error.to_string().contains("live"), "{error}");

    running.pause().await.expect("it pauses");
    running.pause().await.expect("it is paused");
    assert_eq!(running.status().state, ConsumerState::Paused);
    let last = deposit(&store, "account-a", [2]).await;
    let late = running.reached(last, Duration::from_millis(30)).await.expect_err("it is paused");
    assert!(matches!(late, WaitError::TimedOut { reached, .. } if reached == p(1)), "{late:?}");
    running.resume().await.expect("it goes on");
    running.reached(last, PATIENCE).await.expect("it gets there");
    running.pause().await.expect("it pauses");
    assert_eq!(running.stop().await.expect("a paused one can be stopped"), last);
    for state in [ConsumerState::Stopped, ConsumerState::Failed] {
        assert!(
            ConsumerState::ALL.iter().all(|to| *to == state || state.check_next(*to).is_err()),
            "{state} is the end"
        );
    }
    assert!(matches!(running.pause().await, Err(ControlError::Ended)));
    assert!(matches!(running.parked(None).await, Err(ControlError::Ended)));
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
}

/// A consumer that has never run starts with the first event, with the next, or after a position; one that has run goes on
/// where it was.
pub async fn h12_a_consumer_starts_from_the_beginning_the_present_or_a_position<L: Ledger>(fixture: &L) {
    let cases = [
        (StartFrom::Beginning, vec![1, 2, 3, 4]),
        (StartFrom::Present, vec![4]),
        (StartFrom::After(p(1)), vec![2, 3, 4]),
        (StartFrom::After(p(0)), vec![1, 2, 3, 4]),
    ];
    for (from, expected) in cases {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", [1, 2, 3]).await;
        let start = || entries(&store, &Entries::<L>::new(), &model, Policy::default()).start_from(from);
        let running = start().start().await.expect("it starts");
        // Stopped before it has handled anything, it does not start anew.
        running.stop().await.expect("it stops");
        let last = deposit(&store, "account-a", [4]).await;
        let running = start().start().await.expect("it starts");
        running.reached(last, PATIENCE).await.expect("it gets there");
        running.stop().await.expect("it stops");
        let cents = fixture.rows(&model.inner).await.into_iter().map(|row| row.cents).collect::<Vec<_>>();
        assert_eq!(cents, expected, "{from:?}");
    }
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a", [1]).await;
    let projection = entries(&store, &Entries::<L>::new(), &model, Policy::default());
    let error = projection.start_from(StartFrom::After(p(2))).start().await.expect_err("there is no such position");
    assert!(matches!(error, RunError::StartsBeyondHead { head, .. } if head == p(1)), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Caller);
}

/// The checkpoint can be moved and the read model emptied while the consumer runs or is paused.
pub async fn h12_a_running_consumer_can_be_reset_and_moved<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let last = deposit(&store, "account-a", [1, 13, 3]).await;
    let projector = Entries::<L>::new();
    projector.refuse(13, ALWAYS);
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it gets there");
    assert_eq!(running.status().parked, 2);
    projector.refuse(13, 0);
    running.reset().await.expect("it is reset");
    running.reached(last, PATIENCE).await.expect("it gets there again");
    assert_eq!((fixture.rows(&model.inner).await, running.status().parked), (folded(&store).await, 0));

    running.pause().await.expect("it pauses");
    running.set_position(p(2)).await.expect("it is moved");
    assert_eq!((running.status().state, running.position()), (ConsumerState::Paused, p(2)));
    let beyond = running.set_position(p(9)).await.expect_err("the log is not that long");
    assert!(matches!(beyond, ControlError::BeyondHead { head, .. } if head == p(3)), "{beyond:?}");
    running.resume().await.expect("it goes on");
    running.reached(last, PATIENCE).await.expect("it gets there");
    let cents = || async { fixture.rows(&model.inner).await.into_iter().map(|row| row.cents).collect::<Vec<_>>() };
    assert_eq!(cents().await, [1, 13, 3, 3], "what is met again takes effect again");
    // Forward: what is left out never takes effect.
    running.pause().await.expect("it pauses");
    let last = deposit(&store, "account-a", [4, 5]).await;
    running.set_position(p(4)).await.expect("it is moved");
    running.resume().await.expect("it goes on");
    running.reached(last, PATIENCE).await.expect("it gets there");
    assert_eq!(cents().await, [1, 13, 3, 3, 5]);
    running.stop().await.expect("it stops");

    // A reset survives a restart, although the consumer has got nowhere since.
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.pause().await.expect("it pauses");
    running.reset().await.expect("it is reset");
    assert_eq!(
        (running.stop().await.expect("it stops"), fixture.rows(&model.inner).await),
        (Position::ZERO, Vec::new())
    );
    let model = Faulty::new(fixture.after_death(&store, model.inner).await);
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
}

/// The status is in the store, also after the consumer has ended, and says what an operator wants to know.
pub async fn h5_the_status_is_in_the_store<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    assert!(store.consumer("entries").status().await.expect("it reads").is_none());
    let projector = Entries::<L>::new();
    let lease = Lease::default().owner("host-7");
    let running = entries(&store, &projector, &model, Policy::default()).lease(lease).start().await.expect("it starts");
    let last = deposit(&store, "account-a", [1, 2]).await;
    store.consumer("entries").reached(last, PATIENCE).await.expect("its status says so");
    projector.refuse(13, ALWAYS);
    let bad = deposit(&store, "account-a", [13]).await;
    within("it fails", running.finished()).await.expect_err("it refuses");
    let status = store.consumer("entries").status().await.expect("it reads").expect("it has run");
    assert_eq!((status.state, status.position, status.events), (ConsumerState::Failed, last, 2));
    assert_eq!((status.head, status.parked), (bad, 0));
    assert_eq!(status.lease, Some(("host-7".to_owned(), 1)));
    let failure = status.last_failure.clone().expect("it failed");
    assert_eq!((failure.position, failure.attempts), (Some(bad), 3));
    assert!(failure.error.contains("13 cents are refused"), "{failure:?}");
    let json = status.to_json();
    for part in ["\"state\":\"failed\"", "\"position\":2", "\"head\":3", "\"category\":\"user code\"", "\"term\":1"] {
        assert!(json.contains(part), "{part} in {json}");
    }
    let late = store.consumer("entries").reached(bad, Duration::from_millis(30)).await.expect_err("it failed");
    assert!(matches!(late, WaitError::TimedOut { reached, .. } if reached == last), "{late:?}");
    let bad_name = store.consumer("").status().await.expect_err("no such name");
    assert_eq!(bad_name.kind(), ErrorKind::Caller);
}

/// What another process wishes for is carried out once and acknowledged; what cannot be done is refused with a reason. A
/// consumer that is to pause stays paused over a restart.
pub async fn h12_wishes_from_elsewhere_are_carried_out_once<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let last = deposit(&store, "account-a", [1, 2]).await;
    let elsewhere = store.consumer("entries");
    // It is left before anybody runs.
    let paused = elsewhere.pause().await.expect("it is written");
    let late = paused.carried_out(Duration::from_millis(20)).await.expect_err("nobody runs");
    assert!(matches!(late, WishError::TimedOut), "{late:?}");
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it starts");
    paused.carried_out(PATIENCE).await.expect("it is paused");
    assert_eq!((running.status().state, running.position()), (ConsumerState::Paused, Position::ZERO));
    elsewhere.resume().await.expect("it is written").carried_out(PATIENCE).await.expect("it goes on");
    running.reached(last, PATIENCE).await.expect("it gets there");

    elsewhere.reset().await.expect("it is written").carried_out(PATIENCE).await.expect("it is reset");
    running.reached(last, PATIENCE).await.expect("it gets there again");
    let beyond = elsewhere.set_position(p(99)).await.expect("it is written").carried_out(PATIENCE).await;
    let Err(WishError::Refused { reason }) = beyond else { panic!("{beyond:?}") };
    assert!(reason.contains("the log ends at position 2"), "{reason}");
    running.stop().await.expect("it stops");

    // A wish that was carried out is not carried out again, although it is still there.
    let moved = elsewhere.set_position(p(1)).await.expect("it is written");
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it starts");
    moved.carried_out(PATIENCE).await.expect("it is moved");
    running.reached(last, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it starts");
    assert_eq!(running.position(), last);
    let key = CellKey::new("consumer/entries/want").expect("it is valid");
    assert!(store.cell(&key).await.expect("it reads").is_some());
    elsewhere.pause().await.expect("it is written").carried_out(PATIENCE).await.expect("it is paused");
    running.stop().await.expect("it stops");
    let cents = fixture.rows(&model.inner).await.into_iter().map(|row| row.cents).collect::<Vec<_>>();
    assert_eq!(cents, [1, 2, 2], "moved back once");
}

fn leased<L: Ledger>(store: &Store, model: &Faulty<L::Model>, lasts: Duration, owner: &str) -> Projection<Entries<L>> {
    let lease = Lease::default().lasts(lasts).owner(owner);
    entries(store, &Entries::<L>::new(), model, Policy::default()).lease(lease)
}

/// Of two runners of a name one runs and the other stands by. It takes over at once when the first stops.
pub async fn h10_a_stand_by_takes_over_when_the_owner_stops<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let long = Duration::from_secs(600);
    let mut owner = leased::<L>(&store, &model, long, "0").start().await.expect("it starts");
    until(&owner, ConsumerState::Live).await;
    for round in 1..=4_u64 {
        let next = leased::<L>(&store, &model, long, "next").start().await.expect("it stands by");
        assert_eq!(next.status().state, ConsumerState::StandingBy);
        assert!(matches!(next.reset().await, Err(ControlError::StandingBy)));
        let position = deposit(&store, "account-a", [round]).await;
        owner.reached(position, PATIENCE).await.expect("the owner goes on");
        assert_eq!((owner.status().lease.map(|(_, term)| term), next.position()), (Some(round), Position::ZERO));
        owner.stop().await.expect("it stops");
        let begun = Instant::now();
        next.reached(position, PATIENCE).await.expect("it takes over");
        assert!(begun.elapsed() < Duration::from_secs(10), "long before the lease runs out");
        owner = next;
    }
    owner.stop().await.expect("it stops");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);

    // One that is stopped at once has left its lease, too: it was not released once, and the next stood by for its time.
    for _ in 0..20 {
        let running = leased::<L>(&store, &model, long, "stopped at once").start().await.expect("it starts");
        assert_ne!(running.status().state, ConsumerState::StandingBy);
        running.stop().await.expect("it stops");
    }
}

/// A runner whose process is frozen longer than its lease lasts: a stand-by takes over within the stated time, and when the
/// frozen one wakes up in the middle of its transaction, it commits nothing.
pub async fn h10_a_frozen_owner_commits_nothing<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let lasts = Duration::from_millis(400);
    // On a runtime of its own with one thread, which is blocked: it neither renews its lease nor goes on.
    let frozen = Faulty::new(model.inner.clone());
    let (projection, gate) = (leased::<L>(&store, &frozen, lasts, "frozen"), Arc::new(std::sync::Barrier::new(2)));
    let (started, wakes) = tokio::sync::oneshot::channel();
    let process = {
        let gate = Arc::clone(&gate);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the system gives one");
            runtime.block_on(async {
                let running = projection.start().await.expect("it starts");
                drop(started.send(running.clone()));
                // The freeze: this is the only thread that its tasks run on.
                gate.wait();
                gate.wait();
                running.finished().await
            })
        })
    };
    let running = within("it starts", wakes).await.expect("no panic");
    gate.wait();
    let last = deposit(&store, "account-a", 1..=5).await;
    let begun = Instant::now();
    let next = leased::<L>(&store, &model, lasts, "next").start().await.expect("it stands by");
    next.reached(last, PATIENCE).await.expect("it takes over");
    assert!(begun.elapsed() < lasts + Duration::from_secs(2), "{:?}", begun.elapsed());
    let (term, before) = (next.status().lease.map(|(_, term)| term), running.position());
    assert_eq!((term, before), (Some(2), Position::ZERO));
    // It wakes up and has everything to do: it notices that it is no longer the owner.
    gate.wait();
    within("it stands by", async {
        while running.status().state != ConsumerState::StandingBy {
            assert!(!running.status().state.is_over(), "{:?}", running.status());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let last = deposit(&store, "account-a", 6..=7).await;
    next.reached(last, PATIENCE).await.expect("the new owner goes on");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await, "nothing took effect twice");
    running.stop().await.expect("it stops");
    next.stop().await.expect("it stops");
    drop(tokio::task::spawn_blocking(|| process.join()).await);
}

/// A transaction that was begun under an older term is refused where the checkpoint is, even if the lease could not tell.
pub async fn h10_the_term_is_judged_where_the_checkpoint_is<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let long = Duration::from_secs(600);
    deposit(&store, "account-a", [1]).await;
    let old = leased::<L>(&store, &model, long, "old").start().await.expect("it starts");
    old.reached(p(1), PATIENCE).await.expect("it gets there");
    // Somebody removes the lease, and another owner begins: the old one has not noticed.
    let key = CellKey::new("consumer/entries/lease").expect("it is valid");
    let cell = store.cell(&key).await.expect("it reads").expect("there is one");
    store.set_cell(&key, cell.revision, None).await.expect("it is removed");
    let new = leased::<L>(&store, &model, long, "new").start().await.expect("it starts");
    new.reached(p(1), PATIENCE).await.expect("it has the name");
    assert_eq!(new.status().lease.map(|(_, term)| term), Some(2), "above the term in the checkpoint");
    let last = deposit(&store, "account-a", [2, 3]).await;
    new.reached(last, PATIENCE).await.expect("it goes on");
    until(&old, ConsumerState::StandingBy).await;
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
    new.stop().await.expect("it stops");
    old.reached(last, PATIENCE).await.expect("it takes over again");
    old.stop().await.expect("it stops");
}

/// Two runners of one name without a lease: the checkpoint is compared in each transaction, and one is told.
pub async fn h10_without_a_lease_one_of_two_is_told<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let start = || entries(&store, &Entries::<L>::new(), &model, Policy::default()).start();
    let (one, other) = (start().await.expect("it starts"), start().await.expect("it starts"));
    let mut last = Position::ZERO;
    for cents in 1..=50 {
        last = deposit(&store, "account-a", [cents]).await;
    }
    let reached = (one.reached(last, PATIENCE).await, other.reached(last, PATIENCE).await);
    let behind = if reached.0.is_ok() { &other } else { &one };
    assert!(reached.0.is_ok() != reached.1.is_ok(), "{reached:?}");
    let error = within("it ends", behind.finished()).await.expect_err("it was taken over");
    assert!(matches!(&*error, RunError::Model(ModelError::TakenOver { .. })), "{error:?}");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
    drop((one.stop().await, other.stop().await));
}

/// Four runners in a row of stops and deaths, each for the same name: every event takes effect once.
pub async fn h10_owners_come_and_go<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let lasts = Duration::from_millis(100);
    let mut last = Position::ZERO;
    for round in 0..8 {
        let (projection, dies) = (leased::<L>(&store, &model, lasts, "one of many"), round % 2 == 0);
        let stands_by = leased::<L>(&store, &model, lasts, "stands by").start().await.expect("it starts");
        last = deposit(&store, "account-a", 0..=round).await;
        let process = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the system gives one");
            runtime.block_on(async {
                let running = projection.start().await.expect("it starts");
                drop(running.reached(last, Duration::from_millis(50)).await);
                if !dies {
                    running.stop().await.expect("it stops");
                }
            });
        };
        tokio::task::spawn_blocking(process).await.expect("no panic");
        if !dies {
            stands_by.reached(last, PATIENCE).await.expect("one of the two has the name");
        }
        stands_by.stop().await.expect("it stops");
    }
    let running = leased::<L>(&store, &model, lasts, "the last").start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
}

/// Consumers of a set fail alone. Stopping joins all of them within a deadline and says which did not make it.
pub async fn h17_a_set_is_stopped_within_a_deadline_that_names_the_late<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let (good, bad, stuck) = (
        Faulty::new(fixture.model(&store).await),
        Faulty::new(fixture.model(&store).await),
        Faulty::new(fixture.model(&store).await),
    );
    let refuses = Entries::<L>::new();
    refuses.refuse(13, ALWAYS);
    // The batch of this one never ends.
    let stuck = stuck.with([(2, crate::ledger::Fault::DiesBefore)]);
    let late = StartFrom::After(p(99));
    let set = store
        .consumers()
        .add(entries(&store, &refuses, &bad, Policy::default()).named("bad"))
        .add(entries(&store, &Entries::<L>::new(), &good, Policy::default()).named("good"))
        .add(entries(&store, &Entries::<L>::new(), &stuck, Policy::default()).named("stuck"))
        .add(entries(&store, &Entries::<L>::new(), &good, Policy::default()).named("never").start_from(late))
        .start()
        .await;
    let last = deposit(&store, "account-a", [1, 13, 2]).await;
    set.get("good").expect("it was started").reached(last, PATIENCE).await.expect("it gets there");
    within("it fails", set.get("bad").expect("it was started").finished()).await.expect_err("it refuses");
    within("it is stuck", stuck.died()).await;
    let names = |failed: &[(String, Arc<RunError>)]| failed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&set.failures()), ["bad", "never"]);
    assert!(set.get("never").is_none() && set.iter().count() == 3);
    let error = within("it ends", set.stop(Duration::from_millis(200))).await.expect_err("not all stop well");
    assert_eq!(
        (error.late.clone(), names(&error.failed)),
        (vec!["stuck".to_owned()], vec!["bad".into(), "never".into()])
    );
    assert!(error.to_string().contains("stuck") && error.to_string().contains("bad"), "{error}");
    assert_eq!(set.get("good").expect("it was started").status().state, ConsumerState::Stopped);
    // Models may be tables in the same file: then the rows of the bad one are here, too.
    let mut rows = fixture.rows(&good.inner).await;
    rows.sort();
    rows.dedup();
    assert_eq!(rows, folded(&store).await);

    let set = store.consumers().add(entries(&store, &Entries::<L>::new(), &good, Policy::default()).named("good"));
    let set = set.start().await;
    let running = set.get("good").expect("it was started").clone();
    set.stop(PATIENCE).await.expect("all stop well");
    // Dropping a set stops those whose handles nobody keeps.
    drop((set, running));
}

/// Another process sees the status, waits for a position, and pauses the consumer.
pub async fn h5_a_position_can_be_awaited_from_another_process<L: Ledger + Shared>(fixture: &L) {
    let store = fixture.open().await;
    let second = fixture.second(&store).await;
    let model = Faulty::new(fixture.model(&store).await);
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it starts");
    for cents in 1..=3 {
        let position = deposit(&second, "account-a", [cents]).await;
        second.consumer("entries").reached(position, PATIENCE).await.expect("it gets there");
        assert_eq!(fixture.rows(&model.inner).await, folded(&second).await);
    }
    second.consumer("entries").pause().await.expect("it is written").carried_out(PATIENCE).await.expect("it pauses");
    assert_eq!(running.status().state, ConsumerState::Paused);
    running.stop().await.expect("it stops");
    let status = second.consumer("entries").status().await.expect("it reads").expect("it has run");
    assert_eq!((status.state, status.position), (ConsumerState::Stopped, p(3)));
}
