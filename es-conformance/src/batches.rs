//! H1, H8, H9: projectors that apply a batch of events at once, for every read model of an engine.

use es_framework::{ModelError, Policy, RunError};

use crate::ledger::{ALWAYS, Batches, Entries, Fault, Faulty, Ledger, deposit, entries, folded};
use crate::support::{PATIENCE, p, within};

/// Applied as batches or one by one, events lead to the same rows; a batch has all events of a transaction.
pub async fn h1_a_batch_equals_its_events_one_by_one<L: Ledger>(fixture: &L) {
    for batches in [Batches::Never, Batches::InOrder, Batches::AtTheEnd] {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", 1..=1_500).await;
        let last = deposit(&store, "account-b", 1..=100).await;
        let projector = Entries::<L>::new();
        projector.batches(batches);
        let running = entries(&store, &projector, &model, Policy::default()).start().await.expect("it starts");
        running.reached(last, PATIENCE).await.expect("it gets there");
        let live = deposit(&store, "account-c", [7]).await;
        running.reached(live, PATIENCE).await.expect("it gets there");
        running.stop().await.expect("it stops");
        assert_eq!(fixture.rows(&model.inner).await, folded(&store).await, "{batches:?}");
        let batched = projector.batched();
        if batches == Batches::Never {
            assert!(batched.is_empty());
        } else {
            assert_eq!(batched.concat(), (1..=live.get()).collect::<Vec<_>>());
            assert!(batched.len() < 10, "there are {} batches", batched.len());
        }
    }
}

/// A batch that fails or panics without saying where stops the projection right before the culprit, wherever it is.
pub async fn h8_the_culprit_of_a_batch_is_found_wherever_it_is<L: Ledger>(fixture: &L) {
    for batches in [Batches::InOrder, Batches::AtTheEnd] {
        for (at, panics) in (1..=12).flat_map(|at| [(at, false), (at, true)]) {
            let store = fixture.open().await;
            let model = Faulty::new(fixture.model(&store).await);
            deposit(&store, "account-a", (1..=12).map(|n| if n == at { 13 } else { 1_000 + n })).await;
            let projector = Entries::<L>::new();
            projector.batches(batches);
            if panics {
                projector.panic_at(13, ALWAYS);
            } else {
                projector.refuse(13, ALWAYS);
            }
            let projection = entries(&store, &projector, &model, Policy::stop_at_once());
            let error = within("it fails", projection.catch_up()).await.expect_err("it refuses");
            let found = match error {
                RunError::Model(ModelError::Refused { position, .. }) if !panics => Some(position),
                RunError::Model(ModelError::Panicked { position, .. }) if panics => position,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, Some(p(at)), "{batches:?}");
            let before: Vec<_> = folded(&store).await.into_iter().filter(|row| row.position < at).collect();
            assert_eq!(fixture.rows(&model.inner).await, before, "{batches:?} at {at}");
            // It goes on from there.
            projector.refuse(13, 0);
            let projection = entries(&store, &projector, &model, Policy::default());
            within("it gets there", projection.catch_up()).await.expect("it gets there");
            assert_eq!(fixture.rows(&model.inner).await, folded(&store).await);
        }
    }
}

/// If no event is to blame, the events of a batch that fails are applied one by one, and nothing of the batch is left.
pub async fn h8_a_batch_that_fails_for_no_event_is_applied_one_by_one<L: Ledger>(fixture: &L) {
    for batches in [Batches::Fails, Batches::Panics] {
        let store = fixture.open().await;
        let model = Faulty::new(fixture.model(&store).await);
        deposit(&store, "account-a", 1..=30).await;
        let projector = Entries::<L>::new();
        projector.batches(batches);
        let projection = entries(&store, &projector, &model, Policy::stop_at_once());
        within("it gets there", projection.catch_up()).await.expect("no event fails");
        assert_eq!(fixture.rows(&model.inner).await, folded(&store).await, "{batches:?}");
        assert!((1..=30).all(|position| projector.attempts(position) == 1), "once each");
    }
}

/// A poison is parked out of the middle of a batch, and what is parked is in no later batch.
pub async fn h9_parked_events_are_left_out_of_batches<L: Ledger>(fixture: &L) {
    let store = fixture.open().await;
    let model = Faulty::new(fixture.model(&store).await);
    deposit(&store, "account-a", [1, 2]).await;
    deposit(&store, "account-b", [13, 3]).await;
    let last = deposit(&store, "account-c", [4, 5]).await;
    let projector = Entries::<L>::new();
    projector.batches(Batches::AtTheEnd);
    projector.refuse(13, ALWAYS);
    let running = entries(&store, &projector, &model, Policy::park()).start().await.expect("it starts");
    running.reached(last, PATIENCE).await.expect("it gets there");
    let parked = running.parked(None).await.expect("they are listed");
    assert_eq!(parked.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [3, 4]);
    deposit(&store, "account-b", [6]).await;
    let last = deposit(&store, "account-a", [7]).await;
    running.reached(last, PATIENCE).await.expect("it gets there");
    assert!(projector.batched().concat().iter().all(|position| ![3, 4, 7].contains(position)));
    let kept: Vec<_> = folded(&store).await.into_iter().filter(|row| row.account != "account-b").collect();
    assert_eq!(fixture.rows(&model.inner).await, kept);
    projector.refuse(13, 0);
    running.retry_parked(None).await.expect("it is tried");
    let mut rows = fixture.rows(&model.inner).await;
    rows.sort();
    assert_eq!(rows, folded(&store).await);
    running.stop().await.expect("it stops");
}

/// Whatever call of the model fails, before or after it was carried out, each event of a batch takes effect once: also if
/// it is the transaction in which a failed batch is applied one by one.
pub async fn h1_a_failure_at_every_call_of_a_batch_changes_nothing<L: Ledger>(fixture: &L) {
    for batches in [Batches::InOrder, Batches::AtTheEnd, Batches::Fails, Batches::Panics] {
        for fault in [Fault::FailsBefore, Fault::FailsAfterwards] {
            for at in 0.. {
                let store = fixture.open().await;
                let last = deposit(&store, "account-a", [1, 2, 13, 4, 5]).await;
                let projector = Entries::<L>::new();
                projector.batches(batches);
                projector.refuse(13, 1);
                let model = Faulty::new(fixture.model(&store).await).with([(at, fault)]);
                let running = entries(&store, &projector, &model, Policy::default()).start().await.expect("it starts");
                running.reached(last, PATIENCE).await.expect("it gets there");
                drop(within("it ends", running.stop()).await);
                assert_eq!(fixture.rows(&model.inner).await, folded(&store).await, "{batches:?}, {fault:?} at {at}");
                if model.hits() == 0 {
                    assert!(at > 4, "there are more calls than {at}");
                    break;
                }
            }
        }
    }
}
