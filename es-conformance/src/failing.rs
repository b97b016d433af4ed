//! H1, H3, H8, H9: what becomes of events and models that fail, for every read model of an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use es_framework::{
    Category, ConsumerState, ErrorKind, ExpectedVersion, ModelError, Policy, Position, RunError, Store, Then,
};

use crate::ledger::{ALWAYS, Entries, Fault, Faulty, Ledger, Row, deposit, entries, folded};
use crate::support::{PATIENCE, p, stream, typed, within};

fn refused(error: &RunError, at: u64) -> bool {
    matches!(error, RunError::Model(ModelError::Refused { position, .. }) if *position == p(at))
}

/// The rows of all streams but some, up to a position.
fn without(rows: Vec<Row>, accounts: &[&str], upto: Position) -> Vec<Row> {
    let wanted = |row: &Row| row.position <= upto.get() && !accounts.contains(&row.account.as_str());
    rows.into_iter().filter(wanted).collect()
}

/// An event that fails for good stops the consumer right before it, wherever on its page it is: each attempt is counted, and
/// everything before it is applied.
pub async fn h3_the_event_that_fails_is_found_wherever_it_is<L: Ledger>(fixture: &L) {
    for at in [1, 2, 500, 999, 1_000] {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", (1..=1_000).map(|n| if n == at { 13 } else { 1_000 + n })).await;
        let projector = Entries::<L>::new();
        projector.refuse(13, ALWAYS);
        let running = entries(&store, &projector, &model, Policy::default()).start().await.expect("it starts");
        let error = within("it fails", running.finished()).await.expect_err("it refuses");
        assert!(refused(&error, at), "{error:?}");
        assert_eq!((error.kind(), error.category()), (ErrorKind::Caller, Category::UserCode));
        assert_eq!(running.position(), p(at - 1));
        assert_eq!(fixture.rows(&model.inner).await, without(folded(&store).await, &[], p(at - 1)));
        let failure = running.status().last_failure.expect("it failed");
        assert_eq!((failure.position, failure.attempts), (Some(p(at)), 3));
        assert!(failure.error.contains("13 cents are refused"), "{failure:?}");
        assert!(projector.attempts(at) >= 3, "{} attempts", projector.attempts(at));
        // It goes on from there.
        projector.refuse(13, 0);
        let running = entries(&store, &projector, &model, Policy::default()).start().await.expect("it starts");
        running.reached(p(1_000), PATIENCE).await.expect("it gets there");
        running.stop().await.expect("it stops");
        assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
    }
}

/// Every event of a page fails once, by an error or by a panic: each is tried again, alone, and none is lost or applied
/// twice.
pub async fn h3_every_event_may_fail_and_be_tried_again<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a", 1..=60).await;
    let projector = Entries::<L>::new();
    for cents in 1..=60 {
        if cents % 3 == 0 {
            projector.panic_at(cents, 2);
        } else {
            projector.refuse(cents, 1);
        }
    }
    let running = entries(&store, &projector, &model, Policy::default()).start().await.expect("it starts");
    running.reached(p(60), PATIENCE).await.expect("it gets there");
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
    assert!((1..=60).all(|position| projector.attempts(position) >= 2));
    let status = running.status();
    assert_eq!((status.state, status.parked), (ConsumerState::Live, 0));
    assert_eq!(status.last_failure.map(|failure| failure.category), Some(Category::Panic));
    running.stop().await.expect("it stops");
}

/// A read model that is out of order for long is waited for. That uses up no event's attempts, and does not end the
/// consumer.
pub async fn h3_a_model_that_is_down_is_waited_for<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let last = deposit(&store, "account-a", 1..=3).await;
    let running =
        entries(&store, &Entries::<L>::new(), &model, Policy::stop_at_once()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it gets there");
    model.fails(60);
    let last = deposit(&store, "account-a", 4..=6).await;
    let mut waited = false;
    while running.position() < last {
        let status = running.status();
        assert!(!status.state.is_over(), "{status:?}");
        waited |= status.state == ConsumerState::Waiting;
        tokio::task::yield_now().await;
    }
    assert!(waited && model.hits() == 60, "{} times", model.hits());
    let failure = running.status().last_failure.expect("it failed");
    assert_eq!((failure.category, failure.position), (Category::ReadModel, None));
    assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
    // It can be stopped while it waits.
    model.fails(1_000_000);
    deposit(&store, "account-a", [7]).await;
    while running.status().state != ConsumerState::Waiting {
        tokio::task::yield_now().await;
    }
    within("it stops", running.stop()).await.expect_err("settling fails, too");
}

/// A consumer that starts while its read model is down waits for it.
pub async fn h3_a_consumer_can_start_while_its_model_is_down<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let last = deposit(&store, "account-a", 1..=3).await;
    let model = Faulty::new(fixture.model(&store).await);
    model.fails(5);
    let running = entries(&store, &Entries::<L>::new(), &model, Policy::default()).start().await.expect("it waits");
    running.reached(last, PATIENCE).await.expect("it gets there");
    running.stop().await.expect("it stops");
    assert_eq!((fixture.rows(&model.inner).await, model.hits()), (folded(&store).await, 5));
}

/// Failures have a category, and what cannot be decoded is not tried twice.
pub async fn h8_failures_have_a_category<L: Ledger>(fixture: &L) {
    let of_payload = typed("account.deposited", "no such payload, and far too long for one");
    let of_version = crate::support::of_type("account.deposited", 99, "bincode", "whatever");
    for (event, category) in [(of_payload, Category::Decode), (of_version, Category::UnknownType)] {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", [1]).await;
        stream(&store, "account-a").write(event, ExpectedVersion::Any).await.expect("it writes");
        let projection = entries(&store, &Entries::<L>::new(), &model, Policy::default());
        let running = projection.start().await.expect("it starts");
        let error = within("it fails", running.finished()).await.expect_err("it cannot be decoded");
        assert_eq!((error.category(), error.kind()), (category, ErrorKind::Data));
        let failure = running.status().last_failure.expect("it failed");
        assert_eq!((failure.category, failure.position, failure.attempts), (category, Some(p(2)), 1));
    }
}

/// An event that fails for good is parked in the checkpoint's transaction, and later events of its key queue behind it in
/// order; all others go on. Tried again, they are applied in order.
pub async fn h9_a_parked_key_keeps_its_order_and_others_go_on<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let projector = Entries::<L>::new();
    projector.refuse(13, ALWAYS);
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    let mut last = Position::ZERO;
    for round in 0..30 {
        for account in ["account-a", "account-b", "account-c"] {
            let bad = round == 7 && account == "account-b";
            last = deposit(&store, account, [if bad { 13 } else { 100 + round }, 200 + round]).await;
        }
    }
    running.reached(last, PATIENCE).await.expect("it goes on");
    let all = folded(&store).await;
    let bad = all.iter().find(|row| row.cents == 13).expect("it was written").position;
    let expected = |row: &Row| row.account != "account-b" || row.position < bad;
    let rows = all.iter().filter(|row| expected(row)).cloned().collect::<Vec<_>>();
    assert_eq!(fixture.rows(&model.inner).await, rows);
    let queued = all.iter().filter(|row| !expected(row)).cloned().collect::<Vec<_>>();
    let parked = running.parked(None).await.expect("they are listed");
    assert_eq!(
        parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(),
        queued.iter().map(|row| row.position).collect::<Vec<_>>()
    );
    assert!(parked.iter().all(|event| event.key == "account-b"));
    let failure = parked[0].failure.as_ref().expect("it failed");
    assert_eq!((failure.category, failure.attempts), (Category::UserCode, 3));
    assert!(failure.error.contains("13 cents are refused") && failure.first <= failure.last, "{failure:?}");
    assert!(parked[1..].iter().all(|event| event.failure.is_none()));
    assert_eq!(running.status().parked, parked.len());

    // A retry that fails leaves everything parked, in order, and counts the attempt.
    let retried = running.retry_parked(Some("account-b")).await.expect("it is tried");
    assert_eq!((retried.applied, retried.failed), (0, 1));
    let again = running.parked(Some("account-b")).await.expect("they are listed");
    assert_eq!(again.len(), parked.len());
    assert_eq!(again[0].failure.as_ref().map(|failure| failure.attempts), Some(4));
    assert_eq!(fixture.rows(&model.inner).await, rows);

    // What is parked survives a restart.
    running.stop().await.expect("it stops");
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    assert_eq!(running.parked(None).await.expect("they are listed"), again);
    last = deposit(&store, "account-b", [300]).await;
    running.reached(last, PATIENCE).await.expect("it goes on");
    assert_eq!(running.status().parked, parked.len() + 1);

    projector.refuse(13, 0);
    let retried = running.retry_parked(None).await.expect("it is tried");
    assert_eq!((retried.applied, retried.failed, running.status().parked), (parked.len() + 1, 0, 0));
    let of_b = |rows: Vec<Row>| rows.into_iter().filter(|row| row.account == "account-b").collect::<Vec<_>>();
    assert_eq!(of_b(fixture.rows(&model.inner).await), of_b(folded(&store).await));
    last = deposit(&store, "account-b", [301]).await;
    running.reached(last, PATIENCE).await.expect("it goes on");
    running.stop().await.expect("it stops");
    let mut rows = fixture.rows(&model.inner).await;
    rows.sort();
    assert_eq!(rows, folded(&store).await);
}

/// Poison in one of a hundred keys: every other key is complete, each poisoned one up to the poison.
pub async fn h9_poison_in_many_keys_stops_nobody_else<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    let mut last = Position::ZERO;
    for round in 0..10 {
        for key in 0..200 {
            // A poison in keys 7 and 107, in the middle of their events.
            let cents = if key % 100 == 7 && round == 4 { 13 } else { 1_000 + round };
            last = deposit(&store, &format!("account-{key}"), [cents]).await;
        }
    }
    let projector = Entries::<L>::new();
    projector.refuse(13, ALWAYS);
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it goes on");
    let parked = running.parked(None).await.expect("they are listed");
    let keys = parked.iter().map(|event| event.key.as_str()).collect::<BTreeSet<_>>();
    assert_eq!((keys.into_iter().collect::<Vec<_>>(), parked.len()), (vec!["account-107", "account-7"], 12));
    let mut per_key = BTreeMap::<_, usize>::new();
    for row in fixture.rows(&model.inner).await {
        *per_key.entry(row.account).or_default() += 1;
    }
    assert!(
        per_key.iter().all(|(key, rows)| *rows == if key.ends_with("-7") || key == "account-107" { 4 } else { 10 })
    );
    running.stop().await.expect("it stops");
}

/// An event that cannot be decoded is parked as it is in the log; when the code can, it is tried again. Dropping is an
/// explicit act.
pub async fn h8_what_cannot_be_decoded_is_parked_and_can_be_dropped<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a", [1]).await;
    let unreadable = typed("account.deposited", "no such payload, and far too long for one");
    stream(&store, "account-a").write(unreadable, ExpectedVersion::Any).await.expect("it writes");
    deposit(&store, "account-a", [3]).await;
    let last = deposit(&store, "account-b", [4]).await;
    let projector = Entries::<L>::new();
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it goes on");
    let parked = running.parked(None).await.expect("they are listed");
    assert_eq!(parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [2, 3]);
    let stored = &crate::support::log(&store).await[1];
    assert_eq!((parked[0].position, parked[0].checksum), (stored.position, stored.checksum), "it can be found again");
    assert_eq!(parked[0].failure.as_ref().map(|failure| failure.category), Some(Category::Decode));
    let retried = running.retry_parked(None).await.expect("it is tried");
    assert_eq!((retried.applied, retried.failed), (0, 1));
    running.drop_parked(p(99), "an operator", "a mistake").await.expect_err("it is not parked");
    running.drop_parked(p(2), "an operator", "it was a test").await.expect("it is dropped");
    assert_eq!(running.status().parked, 1, "the next one still queues");
    let retried = running.retry_parked(None).await.expect("it is tried");
    assert_eq!((retried.applied, retried.failed, running.status().parked), (1, 0, 0));
    running.stop().await.expect("it stops");
    let mut cents = fixture.rows(&model.inner).await.into_iter().map(|row| row.cents).collect::<Vec<_>>();
    cents.sort_unstable();
    assert_eq!(cents, [1, 3, 4]);
}

/// The number of parked events is bounded: the consumer stops right before the one that would be too many.
pub async fn h9_beyond_the_bound_of_parked_events_the_consumer_stops<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a", [13]).await;
    for cents in 1..=3 {
        deposit(&store, "account-b", [cents]).await;
        deposit(&store, "account-a", [cents]).await;
    }
    let projector = Entries::<L>::new();
    projector.refuse(13, ALWAYS);
    let mut policy = Policy::park();
    policy.parked = 3;
    let running = entries(&store, &projector, &model, policy).start().await.expect("it starts");
    let error = within("it stops", running.finished()).await.expect_err("there are too many");
    assert!(matches!(&*error, RunError::TooManyParked { limit: 3, position, .. } if *position == p(7)), "{error:?}");
    assert_eq!((running.position(), running.status().parked), (p(6), 3));
    let rows = fixture.rows(&model.inner).await;
    assert_eq!(rows, without(folded(&store).await, &["account-a"], p(6)));
    // With more room it goes on.
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(p(7), PATIENCE).await.expect("it gets there");
    assert_eq!(running.status().parked, 4);
    running.stop().await.expect("it stops");
}

/// A key of the user's own decides who queues behind whom.
pub async fn h9_the_key_can_be_another_than_the_stream<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a1", [13]).await;
    deposit(&store, "account-a2", [2]).await;
    let last = deposit(&store, "account-b1", [3]).await;
    let projector = Entries::<L>::new();
    projector.panic_at(13, ALWAYS);
    let policy = Policy::park().park_by(|event| event.stream().as_str()[..9].to_owned());
    let running = entries(&store, &projector, &model, policy).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it goes on");
    let parked = running.parked(Some("account-a")).await.expect("they are listed");
    assert_eq!(parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(parked[0].failure.as_ref().map(|failure| failure.category), Some(Category::Panic));
    assert_eq!(fixture.rows(&model.inner).await.len(), 1);
    running.stop().await.expect("it stops");
}

/// Runs the projection in a process of its own, as far as one process can play another: a runtime that is dropped when the
/// model's call dies.
async fn until_it_dies<L: Ledger>(
    store: &Store,
    projector: &Entries<L>,
    model: &Faulty<L::Model>,
    last: Position,
) -> bool {
    let projection = entries(store, projector, model, Policy::park());
    let watched = model.clone();
    let process = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system gives one");
        let alive = runtime.block_on(async {
            let life = async {
                let running = projection.start().await.expect("it starts");
                running.reached(last, PATIENCE).await.expect("it gets there");
                running.retry_parked(None).await.expect("it is tried");
                running.stop().await.expect("it stops");
            };
            tokio::select! {
                biased;
                () = watched.died() => false,
                () = life => true,
            }
        });
        runtime.shutdown_background();
        alive
    };
    let (done, died) = tokio::sync::oneshot::channel();
    thread::spawn(move || done.send(process()).expect("somebody waits"));
    within("it lives or dies", died).await.expect("no panic")
}

/// Whatever call of the model fails or kills the process, before or after it was carried out: afterwards the rows are what
/// the log says, and what is parked is parked.
pub async fn h1_a_failure_or_death_at_every_call_changes_nothing<L: Ledger>(fixture: &L) {
    for fault in Fault::ALL {
        let mut at = 0;
        loop {
            let store = fixture.open().await;
            deposit(&store, "account-a", [1, 2]).await;
            deposit(&store, "account-b", [13, 3]).await;
            let last = deposit(&store, "account-c", [4, 5]).await;
            let projector = Entries::<L>::new();
            projector.refuse(13, ALWAYS);
            let faulty = Faulty::new(fixture.model(&store).await).with([(at, fault)]);
            let mut alive = false;
            // A failure as it settles, or as the parked event is tried again, is told to whoever asked.
            if matches!(fault, Fault::DiesBefore | Fault::DiesAfterwards) {
                alive = until_it_dies::<L>(&store, &projector, &faulty, last).await;
            } else {
                let running = entries(&store, &projector, &faulty, Policy::park()).start().await.expect("it starts");
                running.reached(last, PATIENCE).await.expect("it gets there");
                drop(running.retry_parked(None).await);
                if within("it ends", running.stop()).await.is_ok() {
                    alive = faulty.hits() == 0;
                }
            }
            let model = Faulty::new(fixture.after_death(&store, faulty.inner.clone()).await);
            let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
            running.reached(last, PATIENCE).await.expect("it gets there");
            let rows = fixture.rows(&model.inner).await;
            assert_eq!(rows, without(folded(&store).await, &["account-b"], last), "{fault:?} at call {at}");
            let parked = running.parked(None).await.expect("they are listed");
            assert_eq!(
                parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(),
                [3, 4],
                "{fault:?} at {at}"
            );
            projector.refuse(13, 0);
            running.retry_parked(None).await.expect("it is tried");
            let mut rows = fixture.rows(&model.inner).await;
            rows.sort();
            assert_eq!(rows, folded(&store).await, "{fault:?} at call {at}");
            running.stop().await.expect("it stops");
            if alive {
                assert!(at > 5, "there are more calls than {at}");
                break;
            }
            at += 1;
            assert!(at < 100, "it never comes through");
        }
    }
}

/// Deaths, failures and refusals at random, by seed: the rows are a fold of the log in the end, each key in order.
pub async fn h1_whatever_happens_each_event_takes_effect_once<L: Ledger>(fixture: &L) {
    let seed = std::env::var("ES_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_127_u64);
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..12 {
        let store = fixture.open().await;
        let mut model = fixture.model(&store).await;
        let projector = Entries::<L>::new();
        let mut last = Position::ZERO;
        for _ in 0..6 {
            for _ in 0..random(6) {
                let account = format!("account-{}", random(4));
                last = deposit(&store, &account, (0..=random(5)).map(|_| 1 + random(40))).await;
            }
            for cents in 1..=40 {
                let times = if random(10) == 0 { random(5) } else { 0 };
                if random(2) == 0 { projector.refuse(cents, times) } else { projector.panic_at(cents, times) }
            }
            let faults = (0..3).map(|_| (random(14), Fault::ALL[usize::try_from(random(4)).unwrap_or_default()]));
            let faulty = Faulty::new(model).with(faults.collect::<BTreeMap<_, _>>());
            let lives = entries(&store, &projector, &faulty, Policy::park());
            let watched = faulty.clone();
            let process = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("the system gives one");
                runtime.block_on(async {
                    let life = async {
                        let Ok(running) = lives.start().await else { return };
                        if running.reached(last, PATIENCE).await.is_ok() {
                            drop(running.retry_parked(None).await);
                        }
                        drop(running.stop().await);
                    };
                    tokio::select! {
                        () = watched.died() => {}
                        () = life => {}
                    }
                });
                runtime.shutdown_background();
            };
            let (done, died) = tokio::sync::oneshot::channel();
            thread::spawn(move || {
                process();
                done.send(()).expect("somebody waits");
            });
            within("it lives or dies", died).await.expect("no panic");
            model = fixture.after_death(&store, faulty.inner.clone()).await;
        }
        for cents in 1..=40 {
            projector.refuse(cents, 0);
        }
        let model = Faulty::new(model);
        let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
        running.reached(last, PATIENCE).await.expect("it gets there");
        running.retry_parked(None).await.expect("it is tried");
        running.stop().await.expect("it stops");
        let rows = fixture.rows(&model.inner).await;
        let mut in_order = rows.clone();
        in_order.sort();
        assert_eq!(in_order, folded(&store).await, "seed {seed}, round {round}");
        let mut seen = BTreeMap::new();
        for row in rows {
            let before = seen.insert(row.account.clone(), row.position);
            assert!(before < Some(row.position), "seed {seed}, round {round}: {} is out of order", row.account);
        }
    }
}

/// The store is closed in the middle of whatever a consumer does: it ends, and says why.
pub async fn h6_closing_the_store_in_the_middle_ends_a_consumer<L: Ledger>(fixture: &L) {
    for state in [ConsumerState::Live, ConsumerState::Retrying, ConsumerState::Waiting, ConsumerState::Paused] {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", [1]).await;
        let projector = Entries::<L>::new();
        let mut policy = Policy::default();
        let long = Duration::from_secs(3_600);
        policy.user_code = es_framework::Backoff::new(3, long, long);
        policy.outage = policy.user_code;
        policy.then = Then::Park;
        let projection = es_framework::Projection::new(&store, projector.clone(), model.clone()).policy(policy);
        let running = projection.start().await.expect("it starts");
        running.reached(p(1), PATIENCE).await.expect("it gets there");
        match state {
            ConsumerState::Retrying => {
                projector.refuse(13, ALWAYS);
                deposit(&store, "account-a", [13]).await;
            }
            ConsumerState::Waiting => {
                model.fails(1);
                deposit(&store, "account-a", [2]).await;
            }
            ConsumerState::Paused => running.pause().await.expect("it pauses"),
            _ => {}
        }
        within("it gets into the state", async {
            while running.status().state != state {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        store.close().await.expect("it closes");
        let error = within("it ends", running.finished()).await.expect_err("the store is closed");
        assert_eq!(error.kind(), ErrorKind::Closed, "{state}: {error:?}");
    }
}
