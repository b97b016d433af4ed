//! D5 and D6: slow watchers, and how a watch ends.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::collections::HashSet;

use es_framework::{Filter, ListStreams, Position, StoreError, StreamId, Version, Watch};
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    begin, ends_closed, event, id, idle, next, numbered, p, poll_once_and_drop, positions, stream, take, texts, up_to,
    versions, within, write,
};

pub async fn d5_a_slow_watcher_gets_each_event_of_a_flood_once_and_in_order(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let flooded = stream(&store, "flood-1");
    let mut of_all = begin(store.all().watch()).await;
    let mut of_stream = begin(flooded.watch()).await;
    let mut of_rare = begin(store.all().watch().filter(Filter::new().category("rare"))).await;
    write(&flooded, numbered([1])).await;
    // All are caught up, so they are fed from the writer's in-memory buffer; then come more events than it holds.
    for watch in [&mut of_all, &mut of_stream] {
        assert_eq!(texts([&next(watch).await]), ["1"]);
    }
    idle(&mut of_rare).await;
    for block in 0..12 {
        write(&flooded, numbered((block * 1_000 + 2)..=(block * 1_000 + 1_001))).await;
    }
    write(&stream(&store, "rare-1"), event("rare")).await;
    write(&flooded, numbered([12_002])).await;
    assert_eq!(versions(&take(&mut of_stream, 12_001).await), (2..=12_002).collect::<Vec<_>>());
    assert_eq!(positions(&take(&mut of_all, 12_002).await), (2..=12_003).collect::<Vec<_>>());
    assert_eq!(texts([&next(&mut of_rare).await]), ["rare"]);
    for watch in [&mut of_all, &mut of_stream, &mut of_rare] {
        idle(watch).await;
    }
}

pub async fn d5_a_flood_of_large_events_is_watched_whole(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut watch = begin(store.all().watch()).await;
    for n in 0..12_u8 {
        write(&stream(&store, "a-1"), event(vec![n; 1 << 20])).await;
    }
    for n in 0..12_u8 {
        assert_eq!(next(&mut watch).await.payload.first(), Some(&n));
    }
    idle(&mut watch).await;
}

pub async fn d5_a_watcher_that_pauses_again_and_again_misses_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let mut watch = begin(account.watch()).await;
    let mut seen = Vec::new();
    let mut written = 0;
    for round in 0..40_u64 {
        // From nothing to more than the writer's buffer holds, and back.
        let many = [1, 50, 700, 5_000][usize::try_from(round % 4).unwrap_or(0)];
        write(&account, vec![event("x"); many]).await;
        written += many as u64;
        let taken = usize::try_from((written - seen.len() as u64) / (round % 3 + 1)).unwrap_or(0);
        seen.extend(versions(&take(&mut watch, taken).await));
    }
    let left = usize::try_from(written).unwrap_or(0) - seen.len();
    seen.extend(versions(&take(&mut watch, left).await));
    assert_eq!(seen, up_to(written));
}

pub async fn d6_dropping_a_watcher_frees_it(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let notifier = std::sync::Arc::clone(store.engine().notifier());
    assert!(!notifier.is_watched());
    let watches = [
        begin(store.all().watch()).await,
        begin(stream(&store, "a-1").watch()).await,
        begin(store.all().watch().filter(Filter::new().categories(["a", "b"]))).await,
        begin(store.all().watch().filter(Filter::new().streams([id("a-1"), id("a-1")]))).await,
    ];
    for mut watch in watches {
        assert!(notifier.is_watched());
        idle(&mut watch).await;
    }
    assert!(!notifier.is_watched(), "a dropped watch is still counted");
    write(&stream(&store, "a-1"), event("x")).await;
}

pub async fn d6_a_watch_that_was_never_begun_costs_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    drop(store.all().watch());
    drop(store.all().watch().into_future());
    assert!(!store.engine().notifier().is_watched());
}

pub async fn d6_closing_tells_every_watcher_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=3)).await;
    let none: [StreamId; 0] = [];
    let mut watches = vec![
        begin(store.all().watch()).await,
        begin(stream(&store, "a-1").watch()).await,
        begin(stream(&store, "missing-1").watch()).await,
        begin(store.all().watch().filter(Filter::new().category("c"))).await,
        begin(store.all().watch().filter(Filter::new().stream(id("a-1")))).await,
        begin(store.all().watch().filter(Filter::new().types(["none"]))).await,
        begin(store.all().watch().filter(Filter::new().streams(none))).await,
    ];
    for watch in &mut watches {
        idle(watch).await;
    }
    let mut waiting = JoinSet::new();
    for mut watch in watches {
        waiting.spawn(async move { ends_closed(&mut watch).await });
    }
    tokio::task::yield_now().await;
    within("closing", store.close()).await.expect("the store can be closed");
    waiting.join_all().await;
}

pub async fn d6_a_watch_that_closing_finds_busy_is_told_too(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=3_000)).await;
    let mut unpolled = begin(store.all().watch().from_start()).await;
    let mut half_way = begin(store.all().watch().from_start()).await;
    take(&mut half_way, 10).await;
    within("closing", store.close()).await.expect("the store can be closed");
    for watch in [&mut unpolled, &mut half_way] {
        loop {
            match within("the end of a watch", watch.next()).await {
                Some(Ok(_)) => {}
                Some(Err(StoreError::Closed)) => break,
                other => panic!("a watch of a closed store says so, this one said {other:?}"),
            }
        }
        assert!(within("what follows the end", watch.next()).await.is_none());
    }
}

pub async fn d6_a_watch_is_resumed_from_the_last_place(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let mut after = Version::ZERO;
    let mut seen = Vec::new();
    for n in 1..=10_u64 {
        write(&account, numbered([n, n])).await;
        let mut watch = begin(account.watch().after(after)).await;
        let event = next(&mut watch).await;
        after = event.version;
        seen.push(after.get());
    }
    assert_eq!(seen, up_to(10));
}

pub async fn d6_a_next_that_is_dropped_loses_no_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let mut watch = begin(account.watch()).await;
    let mut seen = HashSet::new();
    for n in 1..=50_u64 {
        if n % 2 == 0 {
            poll_once_and_drop(watch.next_batch_into(&mut seen)).await;
        }
        write(&account, numbered([n])).await;
        poll_once_and_drop(watch.next_batch_into(&mut seen)).await;
    }
    while seen.len() < 50 {
        within("the rest", watch.next_batch_into(&mut seen)).await;
    }
    assert_eq!(seen, up_to(50).into_iter().collect());
}

trait NextBatchInto {
    fn next_batch_into(&mut self, seen: &mut HashSet<u64>) -> impl Future<Output = ()> + Send;
}

impl NextBatchInto for Watch {
    async fn next_batch_into(&mut self, seen: &mut HashSet<u64>) {
        for event in self.next_batch().await.expect("it goes on").expect("it can be read") {
            assert!(seen.insert(event.version.get()), "{} came twice", event.version);
        }
    }
}

pub async fn d6_a_watch_outlives_the_handles_it_was_made_with(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut watch = begin(stream(&store.clone(), "a-1").watch()).await;
    write(&stream(&store, "a-1"), event("x")).await;
    assert_eq!(next(&mut watch).await.position, p(1));
    let listed = store.streams(ListStreams::default()).await.expect("can be listed");
    assert_eq!(listed.len(), 1);
    assert!(store.head() > Position::ZERO);
}
