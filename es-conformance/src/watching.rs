//! D: history, then whatever is written, for ever.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use es_framework::{Filter, ListStreams, Position, Store, StoreError, StreamId, Version, Watch};
use futures_core::Stream as _;
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    begin, ends_closed, event, id, keyed, log, metadata, next, numbered, p, poll_once_and_drop, positions, refused,
    stream, take, texts, typed, up_to, v, versions, within, write,
};

pub async fn d1_a_watch_from_the_start_gives_history_and_then_what_is_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, numbered(1..=3)).await;
    let mut of_stream = begin(account.watch().from_start()).await;
    let mut of_all = begin(store.all().watch().from_start()).await;
    assert_eq!(texts(&take(&mut of_stream, 3).await), ["1", "2", "3"]);
    write(&stream(&store, "b-1"), numbered([77])).await;
    write(&account, numbered([4, 5])).await;
    let live = take(&mut of_stream, 2).await;
    assert_eq!((versions(&live), texts(&live)), (vec![4, 5], vec!["4".to_owned(), "5".to_owned()]));
    let all = take(&mut of_all, 6).await;
    assert_eq!(all, log(&store).await, "what is watched is what is read");
}

pub async fn d1_a_watch_begins_after_the_place_that_was_given(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&stream(&store, "b-1"), numbered([9])).await;
    write(&account, numbered(1..=4)).await;
    let mut of_stream = begin(account.watch().after(v(2))).await;
    let mut of_all = begin(store.all().watch().after(p(2))).await;
    write(&account, numbered([5])).await;
    assert_eq!(versions(&take(&mut of_stream, 3).await), [3, 4, 5]);
    assert_eq!(positions(&take(&mut of_all, 4).await), [3, 4, 5, 6]);
}

pub async fn d1_without_a_start_a_watch_begins_at_the_present(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, numbered(1..=3)).await;
    write(&stream(&store, "b-1"), numbered([9])).await;
    let mut of_stream = begin(account.watch()).await;
    let mut of_all = begin(store.all().watch()).await;
    let mut of_category = begin(store.all().watch().filter(Filter::new().category("a"))).await;
    let mut of_missing = begin(stream(&store, "c-1").watch()).await;
    write(&account, numbered([4])).await;
    write(&stream(&store, "c-1"), numbered([1])).await;
    assert_eq!(versions([&next(&mut of_stream).await]), [4]);
    assert_eq!(positions(&take(&mut of_all, 2).await), [5, 6]);
    assert_eq!(positions([&next(&mut of_category).await]), [5]);
    assert_eq!(positions([&next(&mut of_missing).await]), [6]);
}

pub async fn d1_the_start_is_fixed_before_the_await_returns(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    for n in 0..50 {
        // The watch is not polled before the write, so a start that is fixed at the first poll would miss it.
        let mut of_stream = begin(account.watch()).await;
        let mut of_all = begin(store.all().watch()).await;
        write(&account, numbered([n])).await;
        assert_eq!(texts([&next(&mut of_stream).await]), [n.to_string()]);
        assert_eq!(texts([&next(&mut of_all).await]), [n.to_string()]);
    }
}

pub async fn d1_a_watch_after_a_place_to_come_begins_there(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, numbered(1..=2)).await;
    let mut of_stream = begin(account.watch().after(v(5))).await;
    let mut of_all = begin(store.all().watch().after(p(5))).await;
    // Both are caught up and wait before anything is written.
    idle(&mut of_stream).await;
    idle(&mut of_all).await;
    for n in 3..=8 {
        write(&account, numbered([n])).await;
        if n < 6 {
            idle(&mut of_stream).await;
            idle(&mut of_all).await;
        }
    }
    assert_eq!(versions(&take(&mut of_stream, 3).await), [6, 7, 8]);
    assert_eq!(positions(&take(&mut of_all, 3).await), [6, 7, 8]);
}

/// Polls a watch until it waits; panics if it has an event instead.
async fn idle(watch: &mut Watch) {
    for _ in 0..20 {
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut *watch).poll_next(context))).await;
        assert!(polled.is_pending(), "a watch that has nothing to say said {polled:?}");
        tokio::task::yield_now().await;
    }
}

pub async fn d1_a_place_of_the_wrong_kind_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    refused!(stream(&store, "a-1").watch().after(p(1)).await, StoreError::WrongPlace { .. });
    refused!(store.all().watch().after(v(1)).await, StoreError::WrongPlace { .. });
    assert!(!store.engine().notifier().is_watched(), "a watch that was refused is still counted");
}

pub async fn d1_no_gap_and_no_duplicate_while_writers_run(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "s-0"), numbered(1..=50)).await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let handle = stream(&store, &format!("s-{writer}"));
        writers.spawn(async move {
            for n in 0..100_u64 {
                write(&handle, numbered(vec![n; usize::try_from(n % 3 + 1).unwrap_or(1)])).await;
            }
        });
    }
    // Watches that begin at every stage of the writing, from history, and one that is late with each event.
    let mut watchers = JoinSet::new();
    for n in 0..12_u64 {
        let (store, after) = (store.clone(), p(n * 7));
        watchers.spawn(async move {
            let mut watch = begin(store.all().watch().after(after)).await;
            let mut seen = Vec::new();
            while seen.last() != Some(&846) {
                seen.push(next(&mut watch).await.position.get());
                if n % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(seen, (after.get() + 1..=846).collect::<Vec<_>>(), "@all after {after}");
        });
        tokio::task::yield_now().await;
    }
    for writer in 0..4 {
        let handle = stream(&store, &format!("s-{writer}"));
        watchers.spawn(async move {
            let end = if writer == 0 { 249 } else { 199 };
            let mut watch = begin(handle.watch().from_start()).await;
            assert_eq!(versions(&take(&mut watch, usize::try_from(end).unwrap_or(0)).await), up_to(end));
        });
    }
    writers.join_all().await;
    assert_eq!(store.all().metrics().await.expect("can be asked").position, p(846));
    watchers.join_all().await;
}

pub async fn d1_a_stream_a_category_and_a_filter_are_watched(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let all = |filter| store.all().watch().from_start().filter(filter);
    let mut watches = Vec::new();
    for (what, watcher, expected) in [
        ("a stream", stream(&store, "a-1").watch().from_start(), vec![1, 5, 9, 13]),
        ("a category", all(Filter::new().category("a")), vec![1, 2, 5, 6, 9, 10, 13, 14]),
        ("categories", all(Filter::new().categories(["b", "none"])), vec![3, 7, 11, 15]),
        ("a stream of @all", all(Filter::new().stream(id("a-2"))), vec![2, 6, 10, 14]),
        ("streams", all(Filter::new().streams([id("a-1"), id("b-1"), id("a-1")])), vec![1, 3, 5, 7, 9, 11, 13, 15]),
        ("a type", all(Filter::new().types(["odd"])), vec![1, 3, 5, 7, 9, 11, 13, 15]),
        ("a prefix", all(Filter::new().stream_prefix("a-")), vec![1, 2, 5, 6, 9, 10, 13, 14]),
        ("metadata", all(Filter::new().metadata_equals("n", 6)), vec![6]),
        ("both", all(Filter::new().category("a").types(["odd"])), vec![1, 5, 9, 13]),
        (
            "a stream by type",
            stream(&store, "ab").watch().from_start().filter(Filter::new().types(["even"])),
            vec![4, 8, 12, 16],
        ),
        ("a filter's bound", all(Filter::new().after(p(10)).before(p(13))), vec![11, 12]),
    ] {
        watches.push((what, begin(watcher).await, expected));
    }
    for n in 1..=16_u64 {
        let name = ["ab", "a-1", "a-2", "b-1"][usize::try_from(n % 4).unwrap_or(0)];
        let event = typed(if n % 2 == 0 { "even" } else { "odd" }, n.to_string());
        write(&stream(&store, name), event.with_metadata(metadata(&format!("{{\"n\": {n}}}")))).await;
        if n == 8 {
            // The first half of some is history, of the others live.
            for (what, watch, expected) in watches.iter_mut().step_by(2) {
                let first: Vec<_> = expected.iter().copied().filter(|at| *at <= 8).collect();
                assert_eq!(positions(&take(watch, first.len()).await), first, "{what}, at once");
                idle(watch).await;
                expected.retain(|at| *at > 8);
            }
        }
    }
    for (what, mut watch, expected) in watches {
        assert_eq!(positions(&take(&mut watch, expected.len()).await), expected, "{what}");
        idle(&mut watch).await;
    }
}

pub async fn d1_the_same_filters_hold_for_history_and_for_what_is_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let filter = || Filter::new().category("a").metadata_like("who", "A%").since(store_time(&store));
    let mut live = begin(store.all().watch().from_start().filter(filter())).await;
    idle(&mut live).await;
    for who in ["Ann", "ann", "Bea", "Abe"] {
        for name in ["a-1", "b-1"] {
            let json = format!("{{\"who\": \"{who}\"}}");
            write(&stream(&store, name), event(who.to_owned()).with_metadata(metadata(&json))).await;
        }
    }
    let mut history = begin(store.all().watch().from_start().filter(filter())).await;
    assert_eq!(texts(&take(&mut live, 2).await), ["Ann", "Abe"]);
    assert_eq!(texts(&take(&mut history, 2).await), ["Ann", "Abe"]);
}

fn store_time(store: &Store) -> es_framework::Timestamp {
    es_framework::Timestamp::from_micros(store.now().as_micros().min(0))
}

pub async fn d2_the_right_watchers_are_woken(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut watches = Vec::new();
    for n in 0..50 {
        watches.push((format!("s-{n}"), begin(stream(&store, &format!("s-{n}")).watch()).await));
    }
    for (_, watch) in &mut watches {
        idle(watch).await;
    }
    for n in [7, 49, 0] {
        let name = format!("s-{n}");
        write(&stream(&store, &name), event(name.clone())).await;
        for (of, watch) in &mut watches {
            if *of == name {
                assert_eq!(texts([&next(watch).await]), [name.as_str()]);
            }
            idle(watch).await;
        }
    }
}

pub async fn d2_thousands_of_idle_watchers_are_no_burden(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut watches = Vec::new();
    for n in 0..2_000 {
        let mut watch = begin(stream(&store, &format!("s-{n}")).watch()).await;
        idle(&mut watch).await;
        watches.push(watch);
    }
    let mut of_all = begin(store.all().watch()).await;
    for n in 0..200 {
        write(&stream(&store, "s-1999"), numbered([n])).await;
    }
    assert_eq!(take(&mut of_all, 200).await.len(), 200);
    assert_eq!(versions(&take(watches.last_mut().expect("there are watches"), 200).await), up_to(200));
}

pub async fn d3_a_write_wakes_a_waiting_watcher(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let (waits, mut is_waiting) = tokio::sync::mpsc::channel(1);
    let mut watch = begin(account.watch()).await;
    let watcher = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..100 {
            // Told from within the poll that found nothing, or after the fact: both ends of the race are run.
            waits.send(()).await.expect("the writer is there");
            seen.push(next(&mut watch).await.version.get());
        }
        seen
    });
    for n in 0..100 {
        is_waiting.recv().await.expect("the watcher is there");
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        write(&account, numbered([n])).await;
    }
    assert_eq!(within("the watcher", watcher).await.expect("it succeeds"), up_to(100));
}

pub async fn d4_a_retry_that_writes_nothing_gives_watchers_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let mut watch = begin(account.watch()).await;
    for _ in 0..5 {
        write(&account, keyed("one", "1")).await;
        write(&account, Vec::new()).await;
        refused!(account.write(event("no"), v(77)).await, _);
    }
    write(&account, keyed("two", "2")).await;
    assert_eq!(texts(&take(&mut watch, 2).await), ["1", "2"]);
    idle(&mut watch).await;
}

pub async fn d5_a_slow_watcher_gets_each_event_of_a_flood_once_and_in_order(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let flooded = stream(&store, "flood-1");
    let mut of_all = begin(store.all().watch()).await;
    let mut of_stream = begin(flooded.watch()).await;
    let mut of_rare = begin(store.all().watch().filter(Filter::new().category("rare"))).await;
    write(&flooded, numbered([1])).await;
    // All are caught up, so they are fed from what the writer keeps in memory; then comes more than that holds.
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
        // From nothing to more than the writer keeps in memory, and back.
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
