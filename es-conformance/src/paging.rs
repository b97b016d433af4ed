//! C4: reads are split into pages and hold nothing in between.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use es_framework::engine::{Direction, PAGE_SCAN, Page};
use es_framework::{ErrorKind, Mark};
use futures_core::Stream as _;

use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::reading::two_streams;
use crate::support::{
    a_page, event, events_of, id, log, metadata, numbered, p, positions, stream, texts, typed, up_to, v, within, write,
};

pub async fn c4_pages_of_any_size_give_the_same_events(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let whole = log(&store).await;
    for (events, bytes) in [(1, 1), (1, usize::MAX), (3, 1 << 20), (usize::MAX, 1), (7, 10), (20, 100), (0, 0)] {
        let read = store.all().read().page(events, bytes);
        assert_eq!(read.clone().collect().await.expect("can be read"), whole, "pages of {events} and {bytes} bytes");
        let backward = read.clone().backward().collect().await.expect("can be read");
        assert!(backward.iter().eq(whole.iter().rev()), "backward, pages of {events} and {bytes} bytes");
        let limited = read.limit(7).collect().await.expect("can be read");
        assert_eq!(limited, whole[..7], "limited, pages of {events} and {bytes} bytes");
    }
}

pub async fn c4_pages_that_are_read_ahead_are_those_read_one_after_the_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for round in 0..60 {
        let events: Vec<_> = (0..50_usize)
            .map(|n| typed(if n % 7 == round % 5 { "rare" } else { "often" }, "x".repeat((n * round) % 90)))
            .collect();
        write(&stream(&store, if round % 4 == 0 { "b-1" } else { "a-1" }), events).await;
    }
    let filters = [
        es_framework::Filter::new(),
        es_framework::Filter::new().types(["rare"]),
        es_framework::Filter::new().type_like("oft_n"),
        es_framework::Filter::new().types(["never"]),
    ];
    for of in ["@all", "a-1"] {
        for filter in &filters {
            for (events, bytes) in [(1_000, 4 << 20), (100, 4 << 20), (10, 4 << 20), (1_000, 700), (33, 900)] {
                let mut next = a_page(of, |read| {
                    (read.filter, read.events, read.bytes) = (filter.clone(), events, bytes);
                });
                let mut one_after_the_other = Vec::new();
                loop {
                    let page = store.engine().read(next.clone()).await.expect("can be read");
                    one_after_the_other.extend(page.events);
                    next.after = page.scanned;
                    if page.end {
                        break;
                    }
                }
                let read = store.stream(id(of)).read().filter(filter.clone()).page(events, bytes);
                let (whole, what) = (read.collect().await.expect("can be read"), (of, filter, events, bytes));
                assert_eq!(positions(&whole), positions(&one_after_the_other), "{what:?}");
                let mut watched = Vec::new();
                let watch = store.stream(id(of)).watch().from_start().filter(filter.clone());
                let mut watch = watch.await.expect("can be watched");
                while watched.len() < one_after_the_other.len() {
                    let batch = within("a batch", watch.next_batch()).await.expect("goes on");
                    watched.extend(batch.expect("can be read"));
                }
                assert_eq!(positions(&watched), positions(&one_after_the_other), "watched, {what:?}");
            }
        }
    }
}

pub async fn c4_a_stretch_of_large_events_makes_no_small_pages_after_it(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, vec![event(vec![7; 600]); 4]).await;
    for _ in 0..4 {
        write(&account, vec![event("x"); 1_000]).await;
    }
    for of in ["@all", "a-1"] {
        let (pages, ahead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, count_ahead) = (Arc::clone(&pages), Arc::clone(&ahead));
        let counted = Meddling::with(&store).before_read(move |read| {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            assert!(!(first && read.ahead), "the first page is needed now");
            count_ahead.fetch_add(usize::from(read.ahead), Ordering::SeqCst);
            async { Ok(read) }
        });
        let read = counted.into_store().stream(id(of)).read().page(100, 1_000).collect().await.expect("can be read");
        assert_eq!(read.len(), 4_004);
        let pages = pages.load(Ordering::SeqCst);
        // Each may be half full, and they grow step by step.
        assert!(pages < 2 * 44 + 20, "{of}: {pages} pages for what fits into 44");
        assert!(ahead.load(Ordering::SeqCst) > pages / 2, "{of}: most of them are asked for before they are needed");
    }
}

pub async fn c4_pages_without_progress_end_a_read_with_an_error(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    for backward in [false, true] {
        // When no events are requested, a page reports where it starts.
        let stuck = Meddling::with(&store).before_read(|mut read| {
            read.events = 0;
            async { Ok(read) }
        });
        let stuck = stuck.into_store();
        let read = stuck.all().read();
        let read = if backward { read.backward() } else { read };
        let error = within("an answer", read.collect()).await.expect_err("there is no progress");
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    }
}

pub async fn c4_a_page_is_bounded_in_events_and_bytes_but_holds_one_at_least(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, (0..10).map(|n| event(vec![n; 1_000])).collect::<Vec<_>>()).await;
    for of in ["a-1", "@all"] {
        for direction in [Direction::Forward, Direction::Backward] {
            for (events, bytes, expected) in
                [(4, 1 << 20, 4), (100, 2_500, 2), (100, 3_000, 3), (100, 10, 1), (100, 1 << 20, 10), (10, 10_000, 10)]
            {
                let read = a_page(of, |read| (read.events, read.bytes, read.direction) = (events, bytes, direction));
                let page = store.engine().read(read).await.expect("can be read");
                assert_eq!(page.events.len(), expected, "{of} {direction:?} {events} {bytes}");
                assert_eq!(page.head, 10);
                assert_eq!(page.end, expected == 10, "{of} {direction:?}: the end is reached or not");
                if !page.end {
                    let forward = direction == Direction::Forward;
                    let last = if forward { expected as u64 } else { 11 - expected as u64 };
                    assert_eq!(page.scanned, last, "{of} {direction:?}: go on from the last event of the page");
                }
            }
        }
    }
}

pub async fn c4_a_page_counts_metadata_in_its_bytes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let heavy = format!("{{\"text\": \"{}\"}}", "x".repeat(1_000));
    let events: Vec<_> = (0..5).map(|_| event("x").with_metadata(metadata(&heavy))).collect();
    write(&stream(&store, "a-1"), events).await;
    let page = store.engine().read(a_page("a-1", |read| read.bytes = 2_100)).await.expect("can be read");
    assert_eq!(page.events.len(), 2);
}

pub async fn c4_a_page_ends_after_10_000_rows_that_did_not_match(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let busy = stream(&store, "busy-1");
    write(&busy, typed("rare", "first")).await;
    for _ in 0..5 {
        write(&busy, vec![event("x"); 5_000]).await;
    }
    write(&busy, typed("rare", "last")).await;
    // No engine can evaluate this filter with an index, so the rows have to be scanned.
    let filter = || es_framework::Filter::new().type_like("r_re");
    for of in ["busy-1", "@all"] {
        let first = a_page(of, |read| read.filter = filter());
        let page = store.engine().read(first.clone()).await.expect("can be read");
        assert!(!page.end, "{of}: a page looks at {PAGE_SCAN} rows and is not the end");
        assert!(page.scanned <= PAGE_SCAN as u64 && page.scanned > 0, "{of}: scanned up to {}", page.scanned);
        assert_eq!(texts(&page.events), ["first"], "{of}");
        let mut next = first;
        next.after = page.scanned;
        let page = store.engine().read(next).await.expect("can be read");
        assert!(page.events.is_empty() && !page.end, "{of}: the second page has nothing and is not the end");
        let read = store.stream(id(of)).read().filter(filter());
        assert_eq!(texts(&read.clone().collect().await.expect("can be read")), ["first", "last"], "{of}");
        assert_eq!(texts(&read.backward().collect().await.expect("can be read")), ["last", "first"], "{of} backward");
    }
}

pub async fn c4_a_page_of_all_names_the_last_event_it_looked_at(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let all = log(&store).await;
    let mark = |index: usize| Some(Mark { position: all[index].position, checksum: all[index].checksum });
    let filter = es_framework::Filter::new().stream(id("a-1"));
    let page = |after, events, filter: &es_framework::Filter| {
        let read = a_page("@all", |read| (read.after, read.events, read.filter) = (after, events, filter.clone()));
        let engine = Arc::clone(store.engine());
        async move { engine.read(read).await.expect("can be read") }
    };
    assert_eq!(page(0, 5, &es_framework::Filter::new()).await.mark, mark(4));
    let filtered = page(0, 1_000, &filter).await;
    assert_eq!(filtered.events.last().map(|event| event.position), Some(p(19)));
    assert_eq!((filtered.scanned, filtered.mark), (20, mark(19)), "also of an event that did not pass the filter");
    let at_the_end = page(20, 1_000, &filter).await;
    assert!(at_the_end.events.is_empty() && at_the_end.end);
    assert_eq!(at_the_end.mark, mark(19), "also when there was nothing new");
}

pub async fn c4_a_read_ends_at_the_head_its_first_page_saw(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    for of in ["a-1", "@all"] {
        let handle = store.stream(id(of));
        let (there, more) = (events_of(&handle).await, stream(&store, "a-1"));
        let mut reading = handle.read().page(2, 1 << 20).stream();
        let mut read = Vec::new();
        while let Some(event) = within("a page", reading.next()).await {
            read.push(event.expect("can be read"));
            // Writes continue while the read is halfway through; it would never end if it followed them.
            write(&more, numbered([1, 2, 3])).await;
        }
        assert_eq!(read, there, "{of}");
    }
}

pub async fn c4_half_read_readers_block_nobody(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let mut paused = Vec::new();
    for n in 0..200_u64 {
        let handle = if n % 2 == 0 { store.all() } else { stream(&store, "a-1") };
        let mut reading = handle.read().page(2, 1 << 20).stream();
        within("the first event", reading.next()).await.expect("there are events").expect("can be read");
        paused.push(reading);
    }
    let account = stream(&store, "a-1");
    for n in 0..20 {
        let written = within("a write beside half-read readers", account.write(event("x"), v(10 + n))).await;
        written.expect("nobody else writes");
    }
    within("a snapshot", account.snapshot("sum", v(30), "state")).await.expect("nobody is in the way");
    for (n, mut reading) in paused.into_iter().enumerate() {
        let mut count = 1;
        while let Some(event) = within("the rest", reading.next()).await {
            event.expect("can be read");
            count += 1;
        }
        assert_eq!(count, if n % 2 == 0 { 20 } else { 10 }, "a paused reader goes on and ends where it would have");
    }
}

pub async fn c4_a_read_is_a_stream_of_events_and_of_batches(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let mut reading = store.all().read().page(6, 1 << 20).stream();
    let first = std::future::poll_fn(|context| Pin::new(&mut reading).poll_next(context)).await;
    let mut count = first.expect("there are events").map(|event| event.position.get()).expect("can be read");
    while let Some(batch) = reading.next_batch().await {
        let batch = batch.expect("can be read");
        assert!(!batch.is_empty(), "a batch has one event at least");
        count += batch.len() as u64;
    }
    assert_eq!(count, 20);
    assert!(reading.next().await.is_none() && reading.next_batch().await.is_none(), "the end stays the end");
}

pub async fn c4_a_next_that_is_dropped_loses_no_event(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let mut reading = store.all().read().page(1, 1).stream();
    let mut read = Vec::new();
    loop {
        crate::support::poll_once_and_drop(async {
            if let Some(Ok(event)) = reading.next().await {
                read.push(event);
            }
        })
        .await;
        match reading.next().await {
            Some(event) => read.push(event.expect("can be read")),
            None => break,
        }
    }
    assert_eq!(positions(&read), up_to(20));
}

/// A change to a page on its way to the reader.
type Change = fn(Page) -> Page;

pub async fn c4_a_page_that_contradicts_itself_ends_a_read_with_an_error(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let changes: [(&str, bool, Change); 6] = [
        ("it is the end, short of its head", false, |mut page| {
            page.events.pop();
            page.scanned -= 1;
            page
        }),
        ("it is the end, short of its beginning", true, |mut page| {
            page.events.pop();
            page.scanned += 1;
            page
        }),
        ("its events are out of order", false, |mut page| {
            page.events.swap(1, 2);
            page
        }),
        ("its events are out of order, backward", true, |mut page| {
            page.events.reverse();
            page
        }),
        ("an event comes twice", false, |mut page| {
            page.events.insert(1, page.events[0].clone());
            page
        }),
        ("an event lies beyond what was looked at", false, |mut page| {
            (page.scanned, page.end) = (5, false);
            page
        }),
    ];
    for (what, backward, change) in changes {
        for of in ["@all", "a-1"] {
            let read = Meddling::with(&store).change_page(change).into_store().stream(id(of)).read();
            let read = if backward { read.backward() } else { read };
            let error = within("an answer", read.collect()).await.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Internal, "{of}: {what}: {error}");
        }
    }
    // A name that leads to another stream.
    let strange = Meddling::with(&store).change_page(|mut page| {
        page.events.iter_mut().for_each(|event| event.stream = id("b-1"));
        page
    });
    let error = stream(&strange.into_store(), "a-1").read().collect().await.expect_err("these are another stream's");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
}

/// A backward page that had scanned 10,000 rows went one row too far.
pub async fn c4_a_backward_read_gives_every_event_at_the_borders_of_its_pages(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let busy = stream(&store, "busy-1");
    for batch in 0..5_usize {
        let events: Vec<_> = (0..4_011)
            .map(|n| typed(if (n + batch) % 3 == 0 { "even" } else { "odd" }, format!("{batch}-{n}")))
            .collect();
        write(&busy, events).await;
    }
    for filter in [
        es_framework::Filter::new(),
        es_framework::Filter::new().type_like("ev_n"),
        es_framework::Filter::new().types(["even"]),
        es_framework::Filter::new().types(["odd"]).before(p(20_003)),
    ] {
        for of in ["@all", "busy-1"] {
            let read = store.stream(id(of)).read().filter(filter.clone()).page(65_536, 64 << 20);
            let forward = positions(&read.clone().collect().await.expect("can be read"));
            assert!(forward.windows(2).all(|pair| pair[0] < pair[1]));
            let mut backward = positions(&read.backward().collect().await.expect("can be read"));
            backward.reverse();
            assert!(forward == backward, "{of} {filter:?}: {} forward, {} backward", forward.len(), backward.len());
            let typed = filter.clauses().iter().any(|clause| matches!(clause, es_framework::Clause::Types(_)));
            assert!(typed || forward.len() == 20_055 || forward.len() == 20_055 / 3, "{of} {filter:?}");
        }
    }
}
