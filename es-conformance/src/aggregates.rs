//! G: aggregates, commands and snapshots over an engine.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use es_framework::{
    AppendError, ErrorKind, Event, ExecuteError, ExpectedVersion, Fingerprint, LoadError, ProjectionName, Provenance,
    Repository, Snapshot, SnapshotError, StoreError, Timestamp, Version,
};

use crate::bank::{
    Account, AccountEvent, BankError, BringTo, Deposit, DepositEach, Look, Odd, OddEvent, Open, Seen, Withdraw,
};
use crate::fixture::{Durable, Fixture, Setup, Shared};
use crate::meddling::Meddling;
use crate::support::{ManualClock, id, p, poll_once_and_drop, stream, typed, v};

fn deposited(cents: u64) -> es_framework::CandidateEvent {
    AccountEvent::Deposited { cents }.encode().expect("a small event encodes")
}

/// A handler sees the aggregate's id and version and the time of the command.
pub async fn g4_a_handler_sees_id_version_and_time(fixture: &impl Fixture) {
    let clock = ManualClock::at(77);
    let store = fixture.open_with(Setup::default().clock(clock)).await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    let error = accounts.execute("alice", Look).await.expect_err("it is rejected");
    let seen = Seen { id: "alice".into(), version: v(1), now: Timestamp::from_micros(77) };
    assert_eq!(error.rejection(), Some(&seen));
}

/// `apply` sees the same envelope when an event was just written and when it is read back.
pub async fn g4_apply_sees_the_envelope(fixture: &impl Fixture) {
    let store = fixture.open().await;
    stream(&store, "other-1").write(typed("t", "x"), ExpectedVersion::Any).await.expect("it writes");
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", DepositEach(1, 3)).await.expect("it deposits");
    let receipt = accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    let places: Vec<_> = receipt.state.seen.iter().map(|(version, position, _)| (*version, *position)).collect();
    assert_eq!(places, [(1, 2), (2, 3), (3, 4), (4, 5)]);
    let cold = Repository::<Account>::new(&store).load("alice").await.expect("it loads");
    assert_eq!(cold.state, receipt.state, "what was applied at once equals what is folded from the log");
}

/// A receipt carries the new state, its version, position and time.
pub async fn g5_a_receipt_carries_state_version_position_and_time(fixture: &impl Fixture) {
    let clock = ManualClock::at(500);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Open("alice")).await.expect("it opens");
    clock.set(600);
    let receipt = accounts.execute("alice", Deposit(5)).await.expect("it deposits");
    assert_eq!((receipt.version, receipt.position, receipt.time.as_micros()), (v(2), p(2), 600));
    assert_eq!((receipt.state.cents, receipt.events, receipt.was_known), (5, 1, false));
    let stored = stream(&store, "account-alice").read().collect().await.expect("it reads");
    assert_eq!(stored[1].name(), "account.deposited");
}

/// A rejected command writes nothing and can be distinguished from every other failure.
pub async fn g5_a_rejection_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let error = accounts.execute("alice", Withdraw(1)).await.expect_err("there is nothing to withdraw");
    assert!(matches!(&error, ExecuteError::Rejected(BankError::TooLittle { cents: 0 })), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Caller);
    assert!(!accounts.exists("alice").await.expect("it reads"));
}

/// Two repositories with cached states: the one that is behind decides again and loses nothing.
pub async fn g5_a_conflict_is_decided_again(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, other) = (Repository::<Account>::new(&store), Repository::<Account>::new(&store));
    one.execute("alice", Deposit(1)).await.expect("it deposits");
    other.execute("alice", Deposit(10)).await.expect("it deposits");
    let receipt = one.execute("alice", Deposit(100)).await.expect("it decides again");
    assert_eq!((receipt.state.cents, receipt.version), (111, v(3)));
    assert_eq!(one.metrics().conflicts, 1);
}

/// A rejection based on a cached state is final only if that state is up to date.
pub async fn g5_a_rejection_from_memory_is_confirmed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, other) = (Repository::<Account>::new(&store), Repository::<Account>::new(&store));
    one.execute("alice", Deposit(1)).await.expect("it deposits");
    other.execute("alice", Deposit(10)).await.expect("it deposits");
    let receipt = one.execute("alice", Withdraw(11)).await.expect("there is enough by now");
    assert_eq!(receipt.state.cents, 0);
    let error = one.execute("alice", Withdraw(1)).await.expect_err("there is nothing left");
    assert_eq!(error.rejection(), Some(&BankError::TooLittle { cents: 0 }));
}

/// A decision to write no events, based on a cached state, is final only if that state is up to date.
pub async fn g5_a_decision_for_nothing_is_confirmed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, other) = (Repository::<Account>::new(&store), Repository::<Account>::new(&store));
    one.execute("alice", Deposit(7)).await.expect("it deposits");
    other.execute("alice", Withdraw(7)).await.expect("it withdraws");
    let receipt = one.execute("alice", BringTo(7)).await.expect("it deposits again");
    assert_eq!((receipt.state.cents, receipt.events, receipt.version), (7, 1, v(3)));
    let receipt = one.execute("alice", BringTo(7)).await.expect("there is nothing to do");
    assert_eq!((receipt.events, receipt.version), (0, v(3)));
}

/// Commands of many tasks over two repositories on one aggregate all take effect exactly once.
pub async fn g5_concurrent_commands_all_take_effect_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let repositories = [(); 2].map(|()| Repository::<Account>::builder(&store).tries(1_000).build());
    let mut tasks = Vec::new();
    for n in 0..40 {
        let accounts = repositories[n % 2].clone();
        tasks.push(tokio::spawn(
            async move { accounts.execute("alice", Deposit(1)).await.map(|receipt| receipt.version) },
        ));
    }
    let mut versions = HashSet::new();
    for task in tasks {
        versions.insert(task.await.expect("no panic").expect("it deposits").get());
    }
    assert_eq!(versions, (1..=40).collect(), "each receipt has a version of its own");
    assert_eq!(repositories[0].load("alice").await.expect("it loads").state.cents, 40);
}

/// When another writer is faster each time, the command gives up after the configured number of tries and reports it.
pub async fn g5_tries_are_bounded(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let log = store.clone();
    let faster = move |append| {
        let account = stream(&log, "account-alice");
        async move {
            account.write(deposited(1), ExpectedVersion::Any).await?;
            Ok(append)
        }
    };
    let meddled = Meddling::with(&store).before_append(faster).into_store();
    let accounts = Repository::<Account>::builder(&meddled).tries(3).build();
    let error = accounts.execute("alice", Deposit(100)).await.expect_err("somebody else is always faster");
    assert!(matches!(error, ExecuteError::Conflict { tries: 3, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(accounts.load("alice").await.expect("it loads").state.cents, 3);
}

/// A command that is dropped at any of its await points has written all of its events or none, and the next one is
/// unaffected.
pub async fn g5_a_dropped_command_is_whole_or_absent(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    for _ in 0..20 {
        poll_once_and_drop(IntoFuture::into_future(accounts.execute("alice", DepositEach(1, 3)))).await;
    }
    let receipt = accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    assert_eq!(receipt.version.get() % 3, 1, "only whole commands are there");
    let cold = Repository::<Account>::new(&store).load("alice").await.expect("it loads");
    assert_eq!((cold.state.cents, cold.version), (receipt.state.cents, receipt.version));
}

/// Repeating a key writes nothing and returns the first outcome, after any number of later events.
pub async fn g6_a_key_executes_a_command_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let first = accounts.execute("alice", Deposit(5)).key("payment-1").await.expect("it deposits");
    accounts.execute("alice", Deposit(7)).await.expect("it deposits");
    for repository in [&accounts, &Repository::new(&store)] {
        let again = repository.execute("alice", Deposit(5)).key("payment-1").await.expect("it is known");
        assert!(again.was_known && !first.was_known);
        assert_eq!((again.version, again.position, again.time), (first.version, first.position, first.time));
        assert_eq!((&again.state, again.events), (&first.state, 1), "the state is folded to the first outcome");
    }
    let receipt = accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    assert_eq!((receipt.state.cents, receipt.version), (13, v(3)), "the state in memory is the newest all the same");
}

/// A command without events is remembered too.
pub async fn g6_a_command_without_events_is_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let first = accounts.execute("alice", BringTo(0)).key("k").await.expect("there is nothing to do");
    assert_eq!((first.events, first.version), (0, v(0)));
    accounts.execute("alice", Deposit(9)).await.expect("it deposits");
    let again = accounts.execute("alice", BringTo(0)).key("k").await.expect("it is known");
    assert_eq!((again.was_known, again.events, again.version, again.state.cents), (true, 0, v(0), 0));
    assert_eq!(again.position, first.position);
    assert_eq!(accounts.load("alice").await.expect("it loads").state.cents, 9);
}

/// A command that would be rejected now, because it was executed before, returns its first outcome.
pub async fn g6_a_known_command_is_not_rejected(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Open("alice")).key("open-1").await.expect("it opens");
    for repository in [&accounts, &Repository::new(&store)] {
        let again = repository.execute("alice", Open("alice")).key("open-1").await.expect("it is known");
        assert!(again.was_known);
        let error = repository.execute("alice", Open("alice")).key("open-2").await.expect_err("it is open");
        assert_eq!(error.rejection(), Some(&BankError::Open));
    }
}

/// A key belongs to one command on one aggregate.
pub async fn g6_a_key_of_another_command_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Open("alice")).key("k").await.expect("it opens");
    let reused = |error: &AppendError| matches!(error, AppendError::CommandKeyReused { key } if *key == "k");
    let error = accounts.execute("alice", Deposit(6)).key("k").await.expect_err("the key is taken");
    assert!(matches!(&error, ExecuteError::Append(error) if reused(error)), "{error:?}");
    let error = accounts.execute("bob", Open("alice")).key("k").await.expect_err("the key is taken");
    assert!(matches!(&error, ExecuteError::Append(error) if reused(error)), "{error:?}");
    let error = accounts.execute("alice", Open("eve")).key("k").await.expect_err("rejected now, and the key is taken");
    assert!(matches!(&error, ExecuteError::Append(error) if reused(error)), "{error:?}");
}

/// Rejections are not remembered: the same key may succeed later.
pub async fn g6_rejections_are_not_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Withdraw(5)).key("k").await.expect_err("there is nothing");
    accounts.execute("alice", Deposit(5)).await.expect("it deposits");
    let receipt = accounts.execute("alice", Withdraw(5)).key("k").await.expect("there is enough now");
    assert!(!receipt.was_known);
}

/// A snapshot is saved after the number of events that the policy specifies, and holds the state of the committed
/// version.
pub async fn g7_a_snapshot_is_the_state_of_the_committed_version(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", DepositEach(1, 4)).await.expect("it deposits");
    accounts.snapshots_settled().await;
    assert_eq!(accounts.metrics().snapshots_saved, 0);
    accounts.execute("alice", DepositEach(1, 2)).await.expect("it deposits");
    accounts.snapshots_settled().await;
    assert_eq!(accounts.metrics().snapshots_saved, 1, "six events are more than five");
    let snapshot = stream(&store, "account-alice").load_snapshot("aggregate").await.expect("it reads");
    assert_eq!(snapshot.expect("it was saved").at, 6);
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");

    let cold = Repository::<Account>::new(&store);
    let loaded = cold.load("alice").await.expect("it loads");
    assert_eq!(cold.metrics().snapshots_used, 1);
    assert_eq!((loaded.version, loaded.position, loaded.state.cents), (v(7), p(7), 7));
    let replayed: Vec<_> = loaded.state.seen.iter().map(|(version, ..)| *version).collect();
    assert_eq!(replayed, [1, 2, 3, 4, 5, 6, 7], "no event is applied twice or left out");
    let at_snapshot = cold.load_as_of("alice", v(6)).await.expect("it loads");
    assert_eq!((at_snapshot.version, at_snapshot.position), (v(6), p(6)), "also where no event follows the snapshot");
}

/// A snapshot of another shape, or one that cannot be read, is ignored and counted.
pub async fn e4_a_useless_snapshot_is_left_aside_and_counted(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", DepositEach(1, 6)).await.expect("it deposits");
    accounts.snapshots_settled().await;
    let saved =
        stream(&store, "account-alice").load_snapshot("aggregate").await.expect("it reads").expect("it was saved");

    let name = || ProjectionName::new("aggregate").expect("a valid name");
    let other = Snapshot::new(id("account-alice"), name(), 6, Fingerprint::of(b"other"), saved.state.clone());
    store.engine().save_snapshot(other).await.expect("the same place replaces it");
    let cold = Repository::<Account>::new(&store);
    assert_eq!(cold.load("alice").await.expect("it loads").state.cents, 6);
    cold.snapshots_settled().await;
    assert_eq!((cold.metrics().snapshots_outdated, cold.metrics().snapshots_used), (1, 0));

    let broken = Snapshot::new(id("account-alice"), name(), 6, saved.fingerprint, saved.state.slice(..20));
    store.engine().save_snapshot(broken).await.expect("the same place replaces it");
    let cold = Repository::<Account>::new(&store);
    assert_eq!(cold.load("alice").await.expect("it loads").state.cents, 6);
    assert_eq!((cold.metrics().snapshots_unreadable, cold.metrics().snapshots_used), (1, 0));
}

/// A snapshot that cannot be saved never fails the command, and is retried with the next one.
pub async fn e4_a_failed_save_never_fails_a_command(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let failing = Meddling::with(&store).before_snapshot(move |snapshot| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(SnapshotError::Store(StoreError::Closed)) } else { Ok(snapshot) } }
    });
    let accounts = Repository::<Account>::new(failing.into_store());
    accounts.execute("alice", DepositEach(1, 6)).await.expect("the command succeeds");
    accounts.snapshots_settled().await;
    assert_eq!((accounts.metrics().snapshots_failed, accounts.metrics().snapshots_saved), (1, 0));
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    accounts.snapshots_settled().await;
    assert_eq!(accounts.metrics().snapshots_saved, 1);
}

/// A command's origin is recorded in the metadata of its events, and passed on to the events they cause.
pub async fn g8_provenance_travels_in_metadata(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let from = Provenance::new().correlation_id("c-1").actor("alice").tenant("acme");
    let from = from.traceparent(traceparent).tracestate("vendor=1");
    accounts.execute("alice", Deposit(5)).provenance(from).await.expect("it deposits");
    let cause = stream(&store, "account-alice").read().collect().await.expect("it reads").remove(0);
    let metadata = cause.metadata.as_ref().expect("there is metadata").as_str();
    let expected = concat!(
        r#"{"actor":"alice","command":"account.deposit","correlation_id":"c-1","tenant":"acme","#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"vendor=1"}"#
    );
    assert_eq!(metadata, expected);

    let caused = Provenance::caused_by(es_framework::Envelope::of(&cause));
    accounts.execute("bob", Deposit(5)).provenance(caused).await.expect("it deposits");
    let effect = stream(&store, "account-bob").read().collect().await.expect("it reads").remove(0);
    let text = |key| effect.metadata.as_ref().and_then(|metadata| metadata.text(key));
    assert_eq!(text("correlation_id").as_deref(), Some("c-1"));
    assert_eq!(text("causation_id"), Some(cause.id.to_string()));
    assert_eq!(text("tenant").as_deref(), Some("acme"));
    assert_eq!(text("traceparent").as_deref(), Some(traceparent));
    assert_eq!(text("tracestate").as_deref(), Some("vendor=1"));
    assert_eq!(text("actor"), None, "who asked first did not ask for this");
}

/// An event that the aggregate does not know is a typed error that names stream, position, name and version.
pub async fn g2_an_unknown_event_is_a_typed_error(fixture: &impl Fixture) {
    let store = fixture.open().await;
    stream(&store, "account-alice").write(typed("account.frozen", ""), ExpectedVersion::Any).await.expect("it writes");
    let accounts = Repository::<Account>::new(&store);
    let error = accounts.load("alice").await.expect_err("it does not know the event");
    let LoadError::Decode(es_framework::DecodeError::Unknown { stream, position, name, schema_version }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (stream.as_str(), position, name.as_str(), schema_version),
        ("account-alice", p(1), "account.frozen", 1)
    );
    let error = accounts.execute("alice", Deposit(1)).await.expect_err("it cannot decide");
    assert_eq!(error.kind(), ErrorKind::Data);
}

/// An event that could not be read back is rejected before it is written.
pub async fn g1_what_cannot_be_read_again_is_never_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let odd = Repository::<Odd>::new(&store);
    let error = odd.execute("a", OddEvent::Lost { number: 7 }).await.expect_err("it would be lost");
    assert!(matches!(error, ExecuteError::Unreadable(_)), "{error:?}");
    assert!(!odd.exists("a").await.expect("it reads"));
}

/// The state after a command equals the state after a replay, even if serde skips a field.
pub async fn g7_the_state_after_a_command_equals_its_replay(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let odd = Repository::<Odd>::new(&store);
    let receipt = odd.execute("a", OddEvent::Kept { note: "not written".into() }).await.expect("it writes");
    let replayed = Repository::<Odd>::new(&store).load("a").await.expect("it loads");
    assert_eq!(receipt.state.notes, replayed.state.notes);
    assert_eq!(receipt.state.notes, [""]);
}

/// A caller can insist on the version it has seen; a retry with a key still succeeds.
pub async fn a2_a_command_can_insist_on_a_version(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, other) = (Repository::<Account>::new(&store), Repository::<Account>::new(&store));
    let new = one.execute("alice", Deposit(1)).expecting(ExpectedVersion::NoStream).key("k").await.expect("it is new");
    other.execute("alice", Deposit(10)).expecting(new.version).await.expect("nobody was faster");
    for repository in [&one, &other, &Repository::new(&store)] {
        let late = repository.execute("alice", Deposit(100)).expecting(new.version).await.expect_err("it has moved on");
        let ExecuteError::Conflict { conflict, .. } = late else { panic!("{late:?}") };
        assert_eq!(conflict.actual_version(), Some((&id("account-alice"), v(2))));
        let again = repository.execute("alice", Deposit(1)).expecting(ExpectedVersion::NoStream).key("k").await;
        assert!(again.expect("a retry is answered").was_known);
    }
    let receipt = one.execute("alice", Deposit(100)).expecting(v(2)).await.expect("memory is brought up to date first");
    assert_eq!(receipt.state.cents, 111);
}

/// An aggregate must have an id.
pub async fn g4_an_empty_id_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let error = Repository::<Account>::new(&store).execute("", Deposit(1)).await.expect_err("it has no id");
    assert!(matches!(error, ExecuteError::Load(LoadError::Name(_))), "{error:?}");
}

/// An aggregate can be loaded as of a version, a position or a time in the past.
pub async fn c7_an_aggregate_is_loaded_as_of_the_past(fixture: &impl Fixture) {
    let clock = ManualClock::at(100);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let accounts = Repository::<Account>::new(&store);
    for n in 1..=12_i64 {
        clock.set(100 * n);
        accounts.execute("alice", Deposit(1)).await.expect("it deposits");
        accounts.execute("bob", Deposit(1)).await.expect("it deposits");
    }
    accounts.snapshots_settled().await;
    for (name, loaded) in [
        ("version", accounts.load_as_of("alice", v(7)).await),
        ("position", accounts.load_as_of("alice", p(14)).await),
        ("time", accounts.load_as_of("alice", Timestamp::from_micros(799)).await),
    ] {
        let loaded = loaded.expect("it loads");
        assert_eq!((loaded.version, loaded.state.cents), (v(7), 7), "as of a {name}");
    }
    let before = accounts.load_as_of("alice", Timestamp::from_micros(99)).await.expect("it loads");
    assert_eq!((before.version, before.exists()), (Version::ZERO, false));
}

/// A stream of more than one page is folded to its end, with and without a snapshot.
pub async fn g5_a_long_stream_is_folded_to_its_end(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let events: Vec<_> = (0..2_500).map(|_| deposited(1)).collect();
    stream(&store, "account-alice").write(events, ExpectedVersion::NoStream).await.expect("it writes");
    let accounts = Repository::<Account>::new(&store);
    let loaded = accounts.load("alice").await.expect("it loads");
    assert_eq!((loaded.version, loaded.state.cents), (v(2_500), 2_500));
    let early = accounts.load_as_of("alice", v(1_700)).await.expect("it loads");
    assert_eq!((early.version, early.state.cents), (v(1_700), 1_700));
}

/// Keys, snapshots and states survive a reopening.
pub async fn g6_keys_and_snapshots_survive_a_reopening(fixture: &impl Durable) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let first = accounts.execute("alice", DepositEach(1, 6)).key("k").await.expect("it deposits");
    accounts.snapshots_settled().await;
    drop(accounts);
    let store = fixture.reopen(store).await;
    let accounts = Repository::<Account>::new(&store);
    let again = accounts.execute("alice", DepositEach(1, 6)).key("k").await.expect("it is known");
    assert_eq!((again.was_known, again.version, again.position), (true, first.version, first.position));
    assert_eq!(again.state, first.state);
    assert!(accounts.metrics().snapshots_used >= 1);
}

/// Repositories over two handles, as in two processes, decide again after each other's writes and lose nothing.
pub async fn g5_repositories_of_two_handles_share_an_aggregate(fixture: &impl Shared) {
    let store = fixture.open().await;
    let second = fixture.second(&store).await;
    let one = Repository::<Account>::builder(&store).tries(1_000).build();
    let other = Repository::<Account>::builder(&second).tries(1_000).build();
    let deposits = |accounts: Repository<Account>| async move {
        for _ in 0..20 {
            accounts.execute("alice", Deposit(1)).await.expect("it deposits");
        }
    };
    let (a, b) = (tokio::spawn(deposits(one.clone())), tokio::spawn(deposits(other.clone())));
    a.await.expect("no panic");
    b.await.expect("no panic");
    assert_eq!(one.load("alice").await.expect("it loads").state.cents, 40);
    let error = other.execute("alice", Withdraw(41)).await.expect_err("there are 40");
    assert_eq!(error.rejection(), Some(&BankError::TooLittle { cents: 40 }));
}
