//! D1–D4: history, then everything that is written, forever.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{Filter, Store, StoreError};
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    begin, event, id, idle, keyed, log, metadata, next, numbered, p, positions, refused, stream, take, texts, typed,
    up_to, v, versions, within, write,
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
        // The watch is not polled before the write, so a start that is only determined at the first poll would miss it.
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
    // Watches that start at every stage of the writing, from history, and one that is slow with each event.
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
            // For some watches the first half is history, for the others it is live.
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
            // Notified from within the poll that found nothing, or afterwards: both sides of the race are exercised.
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
