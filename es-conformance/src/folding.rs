//! G: an aggregate is folded from all of its events, whatever an engine returns.

use es_framework::engine::Page;
use es_framework::{
    ErrorKind, Event, ExecuteError, ExpectedVersion, LoadError, Repository, Store, StoreError, StoredEvent,
};

use crate::bank::{Account, AccountEvent, Deposit};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::support::{log, stream, v};

async fn account_of(fixture: &impl Fixture, events: u64) -> Store {
    let store = fixture.open().await;
    let deposits = (1..=events).map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let deposits: Vec<_> = deposits.collect();
    stream(&store, "account-alice").write(deposits, ExpectedVersion::Any).await.expect("it writes");
    store
}

/// A store that loses events of a stream on the way, while the bounds of its pages stay as they are.
fn losing(store: &Store, lost: impl Fn(&StoredEvent) -> bool + Send + Sync + 'static) -> Store {
    let lose = move |mut page: Page| {
        page.events.retain(|event| !lost(event));
        page
    };
    Meddling::with(store).change_page(lose).into_store()
}

/// An engine that skipped events produced a state that never existed, and a command was decided on it with the right
/// version.
pub async fn g5_a_state_is_never_folded_from_a_part_of_its_events(fixture: &impl Fixture) {
    let store = account_of(fixture, 2_500).await;
    for (what, lost) in [
        ("the first", 1..=1_u64),
        ("one of the first page", 500..=500),
        ("one of a later page", 1_700..=1_700),
        ("the last", 2_500..=2_500),
        ("the last page", 2_001..=2_500),
        ("all", 1..=2_500),
    ] {
        let losing = losing(&store, move |event| lost.contains(&event.version.get()));
        // Another repository remembers none of it.
        let accounts = Repository::<Account>::new(&losing);
        let error = accounts.load("alice").await.expect_err(what);
        assert!(matches!(error, LoadError::Store(StoreError::Corrupt { .. })), "{what}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Data, "{what}");
        let error = accounts.execute("alice", Deposit(1)).await.expect_err(what);
        assert!(matches!(error, ExecuteError::Load(LoadError::Store(StoreError::Corrupt { .. }))), "{what}: {error:?}");
    }
    assert_eq!(log(&store).await.len(), 2_500, "nothing was decided");
    let account = Repository::<Account>::new(&store).load("alice").await.expect("it loads");
    assert_eq!(account.version, v(2_500));
}

/// The same when a cached state is brought up to date, and when a past state is loaded.
pub async fn g5_a_state_in_memory_is_never_brought_up_to_date_by_a_part(fixture: &impl Fixture) {
    let store = account_of(fixture, 10).await;
    let losing = losing(&store, |event| event.version == v(12));
    let accounts = Repository::<Account>::new(&losing);
    accounts.execute("alice", Deposit(1)).await.expect("nothing is missing yet");
    let others = Repository::<Account>::new(&store);
    for _ in 0..3 {
        others.execute("alice", Deposit(1)).await.expect("it deposits");
    }
    let error = accounts.execute("alice", Deposit(1)).await.expect_err("version 12 is missing");
    assert!(matches!(error, ExecuteError::Load(LoadError::Store(StoreError::Corrupt { .. }))), "{error:?}");
    assert_eq!(log(&store).await.len(), 14);
}

/// A stream was truncated beyond the newest snapshot: the snapshot's state lacks the removed events, and so does an
/// empty one.
pub async fn g7_a_snapshot_older_than_the_truncation_is_refused(fixture: &impl Fixture) {
    let store = account_of(fixture, 4).await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    accounts.snapshots_settled().await;
    assert_eq!(accounts.metrics().snapshots_saved, 1, "there is a snapshot at version 5");
    let more = (1..=3).map(|cents| AccountEvent::Deposited { cents }.encode().expect("it encodes"));
    let more: Vec<_> = more.collect();
    stream(&store, "account-alice").write(more, ExpectedVersion::Any).await.expect("it writes");
    for (floor, fits) in [(0, true), (3, true), (5, true), (6, false), (8, false)] {
        let truncate = move |mut page: Page| {
            page.events.retain(|event| event.version > v(floor));
            if let Some(head) = &mut page.stream {
                head.floor = v(floor);
            }
            page
        };
        let truncated = Meddling::with(&store).change_page(truncate).into_store();
        let loaded = Repository::<Account>::new(&truncated).load("alice").await;
        if fits {
            assert_eq!(loaded.expect("the snapshot reaches far enough").version, v(8), "floor {floor}");
            continue;
        }
        match loaded {
            Err(LoadError::Store(StoreError::Truncated { floor: found, after, .. })) => {
                assert_eq!((found, after), (v(floor), v(5)));
            }
            other => panic!("floor {floor}: {other:?}"),
        }
    }
}
