//! C1, C2, C5 and C7: reading back what was written.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{EventId, ExpectedVersion, ListStreams, Store, StoreError, Version};

use crate::fixture::{Fixture, Setup};
use crate::support::{
    ManualClock, a_list, append, at, event, events_of, id, log, metadata, numbered, p, positions, refused, stream,
    text_id, typed, up_to, v, versions, write,
};

/// Ten events in `a-1` and, in between, ten in `b-1`: the odd and the even positions.
pub(crate) async fn two_streams(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    for n in 1..=10 {
        write(&stream(&store, "a-1"), numbered([n])).await;
        write(&stream(&store, "b-1"), numbered([n + 100])).await;
    }
    store
}

pub async fn c1_a_stream_is_read_forward_and_backward_between_versions(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let read = || stream(&store, "a-1").read();
    for (what, reader, expected) in [
        ("all", read(), up_to(10)),
        ("after is exclusive", read().after(v(3)), (4..=10).collect()),
        ("before is exclusive", read().before(v(4)), up_to(3)),
        ("between", read().after(v(3)).before(v(7)), vec![4, 5, 6]),
        ("limit", read().limit(3), up_to(3)),
        ("after with limit", read().after(v(3)).limit(2), vec![4, 5]),
        ("after 0", read().after(v(0)), up_to(10)),
        ("after the last", read().after(v(10)), vec![]),
        ("after any", read().after(Version::MAX), vec![]),
        ("before the first", read().before(v(1)), vec![]),
        ("before 0", read().before(v(0)), vec![]),
        ("before more than there is", read().before(v(100)), up_to(10)),
        ("nothing between", read().after(v(5)).before(v(6)), vec![]),
        ("after above before", read().after(v(7)).before(v(3)), vec![]),
        ("limit 0", read().limit(0), vec![]),
        ("limit above all", read().limit(usize::MAX), up_to(10)),
        ("backward", read().backward(), (1..=10).rev().collect()),
        ("backward after", read().backward().after(v(8)), vec![10, 9]),
        ("backward before", read().backward().before(v(3)), vec![2, 1]),
        ("backward between", read().backward().after(v(3)).before(v(7)), vec![6, 5, 4]),
        ("backward limit", read().backward().limit(2), vec![10, 9]),
        ("backward before with limit", read().backward().before(v(7)).limit(2), vec![6, 5]),
        ("backward before 1", read().backward().before(v(1)), vec![]),
        ("backward after the last", read().backward().after(v(10)), vec![]),
    ] {
        let events = reader.clone().collect().await.expect("the stream can be read");
        assert_eq!(versions(&events), expected, "{what}");
        let in_small_pages = reader.page(2, 1 << 20).collect().await.expect("the stream can be read");
        assert_eq!(events, in_small_pages, "{what}, in pages of two");
    }
}

pub async fn c1_all_is_read_forward_and_backward_between_positions(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let read = || store.all().read();
    for (what, reader, expected) in [
        ("all", read(), up_to(20)),
        ("after is exclusive", read().after(p(17)), vec![18, 19, 20]),
        ("before is exclusive", read().before(p(3)), vec![1, 2]),
        ("between", read().after(p(3)).before(p(6)), vec![4, 5]),
        ("limit", read().limit(3), up_to(3)),
        ("after the last", read().after(p(20)), vec![]),
        ("after above before", read().after(p(9)).before(p(3)), vec![]),
        ("backward", read().backward(), (1..=20).rev().collect()),
        ("backward between", read().backward().after(p(3)).before(p(6)), vec![5, 4]),
        ("backward limit", read().backward().limit(2), vec![20, 19]),
        ("backward before with limit", read().backward().before(p(7)).limit(2), vec![6, 5]),
    ] {
        let events = reader.clone().collect().await.expect("@all can be read");
        assert_eq!(positions(&events), expected, "{what}");
        let in_small_pages = reader.page(3, 1 << 20).collect().await.expect("@all can be read");
        assert_eq!(events, in_small_pages, "{what}, in pages of three");
    }
}

pub async fn c1_all_holds_every_stream_in_the_order_of_writing(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let all = log(&store).await;
    let (odd, even): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|event| event.position.get() % 2 == 1);
    assert_eq!(odd, events_of(&stream(&store, "a-1")).await, "an event is the same in @all and in its stream");
    assert_eq!(even, events_of(&stream(&store, "b-1")).await, "an event is the same in @all and in its stream");
}

pub async fn c1_a_place_of_the_wrong_kind_is_refused(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    let account = stream(&store, "a-1");
    refused!(account.read().after(p(1)).collect().await, StoreError::WrongPlace { .. });
    refused!(account.read().before(p(1)).collect().await, StoreError::WrongPlace { .. });
    refused!(store.all().read().after(v(1)).collect().await, StoreError::WrongPlace { .. });
    refused!(store.all().read().as_of(v(1)).collect().await, StoreError::WrongPlace { .. });
}

pub async fn c2_a_missing_stream_reads_as_empty(fixture: &impl Fixture) {
    let store = two_streams(fixture).await;
    for name in ["missing-1", "a", "a-", "a-11", "A-1", "a-1 ", "a_1", "%"] {
        let missing = stream(&store, name);
        assert!(events_of(&missing).await.is_empty(), "{name}");
        assert!(missing.read().backward().collect().await.expect("can be read").is_empty(), "{name}, backward");
        assert!(!missing.exists().await.expect("can be asked"), "{name}");
        assert_eq!(missing.version().await.expect("can be asked"), v(0), "{name}");
    }
}

pub async fn c2_an_empty_store_reads_as_empty(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert!(log(&store).await.is_empty());
    assert!(store.all().read().backward().collect().await.expect("can be read").is_empty());
    assert!(store.streams(ListStreams::default()).await.expect("can be listed").is_empty());
    let metrics = store.all().metrics().await.expect("can be asked");
    assert_eq!((metrics.version, metrics.position, metrics.last_time), (v(0), p(0), None));
    assert_eq!(store.head(), p(0));
}

pub async fn c2_version_existence_and_metrics_of_a_stream_can_be_asked(fixture: &impl Fixture) {
    let clock = ManualClock::at(10);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let account = stream(&store, "a-1");
    write(&account, numbered(1..=3)).await;
    clock.set(20);
    write(&stream(&store, "b-1"), numbered([1])).await;
    assert!(account.exists().await.expect("can be asked"));
    assert_eq!(account.version().await.expect("can be asked"), v(3));
    let metrics = account.metrics().await.expect("can be asked");
    assert_eq!((metrics.version, metrics.position, metrics.last_time), (v(3), p(3), Some(at(10))));
    let all = store.all().metrics().await.expect("can be asked");
    assert_eq!((all.version, all.position, all.last_time), (v(0), p(4), Some(at(20))));
    assert_eq!(store.head(), p(4), "a handle knows of its own commits");
}

pub async fn c2_streams_are_listed_in_pages_in_the_order_of_their_first_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for name in ["z-1", "a-2", "m", "a-1", "aa-1", "a", "z-0", "b-1-x"] {
        write(&stream(&store, name), numbered([1])).await;
    }
    // Later writes change versions but no places.
    write(&stream(&store, "a-1"), numbered(2..=4)).await;
    write(&stream(&store, "z-1"), numbered([2])).await;
    for page in [1, 2, 3, 1_000] {
        let mut listed = Vec::new();
        let mut list = a_list(|list| list.limit = page);
        loop {
            let streams = store.streams(list.clone()).await.expect("can be listed");
            assert!(streams.len() <= page, "a page of {page} has {}", streams.len());
            let Some(last) = streams.last() else { break };
            list.after = Some(last.stream.clone());
            listed.extend(streams.iter().map(|info| (info.stream.to_string(), info.version.get())));
            assert!(listed.len() <= 8, "the list goes in circles: {listed:?}");
        }
        let expected = [("z-1", 2), ("a-2", 1), ("m", 1), ("a-1", 4), ("aa-1", 1), ("a", 1), ("z-0", 1), ("b-1-x", 1)];
        assert_eq!(listed, expected.map(|(name, version)| (name.to_owned(), version)), "in pages of {page}");
    }
}

pub async fn c2_the_streams_of_a_category_are_listed_in_pages(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 0..10 {
        for category in ["account", "accounts", "Account", "order"] {
            write(&stream(&store, &format!("{category}-{}", 9 - n)), numbered([1])).await;
        }
    }
    write(&stream(&store, "account"), numbered([1])).await;
    let mut listed = Vec::new();
    let mut list = a_list(|list| (list.category, list.limit) = (Some("account".to_owned()), 4));
    loop {
        let streams = store.streams(list.clone()).await.expect("can be listed");
        let Some(last) = streams.last() else { break };
        list.after = Some(last.stream.clone());
        listed.extend(streams.iter().map(|info| info.stream.to_string()));
        assert!(listed.len() <= 11, "the list goes in circles: {listed:?}");
    }
    let expected: Vec<_> = (0..10).map(|n| format!("account-{}", 9 - n)).chain(["account".to_owned()]).collect();
    assert_eq!(listed, expected);
    for none in ["acc", "account-1", "missing", "%", ""] {
        let list = a_list(|list| list.category = Some(none.to_owned()));
        assert!(store.streams(list).await.expect("can be listed").is_empty(), "{none:?} is no category");
    }
}

pub async fn c5_events_read_back_byte_for_byte(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "zürich-☃-\u{10ffff}");
    let mebibyte: Vec<u8> = (0..1_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let written = vec![
        event(""),
        event(vec![0]),
        event(vec![0, 0xff, 0, 0xfe]),
        event("text with ' quotes \" and ; -- é ☃"),
        event(mebibyte),
        typed("ereignis.geöffnet 🎉", "x"),
        typed(&"t".repeat(255), "x"),
        event("x").with_metadata(metadata("{}")),
        event("x").with_metadata(metadata(" {\"a\" : 1.0,\n\t\"a\":[1e3, null, \"\\u00e9é\"]} ")),
        event("x").with_metadata(None),
        crate::support::of_type("n", u32::MAX, "my codec é", "x"),
        crate::support::of_type("n", 0, "raw", "x"),
    ];
    let appended = write(&account, written.clone()).await;
    for read in [events_of(&account).await, log(&store).await] {
        assert_eq!(read.len(), written.len());
        for (n, (stored, candidate)) in read.iter().zip(&written).enumerate() {
            assert_eq!(stored.payload, candidate.payload(), "payload {n}");
            assert_eq!(stored.metadata.as_ref(), candidate.metadata(), "metadata {n}");
            assert_eq!(stored.event_type.name(), candidate.event_type().name(), "type {n}");
            assert_eq!(stored.event_type.schema_version(), candidate.event_type().schema_version(), "schema {n}");
            assert_eq!(stored.event_type.codec(), candidate.event_type().codec(), "codec {n}");
            assert_eq!(stored.stream, "zürich-☃-\u{10ffff}");
            assert_eq!(stored.time, appended.time);
            assert_eq!(stored.checksum, stored.computed_checksum(), "the checksum covers what was read, {n}");
        }
    }
}

pub async fn c5_empty_metadata_is_not_no_metadata(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    write(&account, vec![event("x").with_metadata(metadata("{}")), event("x")]).await;
    let read: Vec<_> = events_of(&account).await.into_iter().map(|event| event.metadata).collect();
    assert_eq!(read, [Some(metadata("{}")), None]);
}

pub async fn c5_the_shape_of_a_type_reads_back(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let shaped = es_framework::EventType::new("opened", 1, "bincode").expect("valid").with_shape("{owner: str}");
    write(&account, es_framework::CandidateEvent::of_type(shaped, "x")).await;
    assert_eq!(events_of(&account).await[0].event_type.shape(), Some("{owner: str}"));
}

pub async fn c5_ids_read_back_as_they_were_written(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let ids = [text_id("text"), EventId::uuid([7; 16]), EventId::time_ordered(at(1_000_000)), text_id("☃")];
    write(&account, ids.iter().map(|id| event("x").with_id(id.clone())).collect::<Vec<_>>()).await;
    assert_eq!(events_of(&account).await.into_iter().map(|event| event.id).collect::<Vec<_>>(), ids);
}

pub async fn c7_a_stream_is_read_as_of_a_version_a_time_or_a_position(fixture: &impl Fixture) {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    for n in 1..=5 {
        clock.set(n * 10);
        write(&stream(&store, "a-1"), numbered([1, 1])).await;
        write(&stream(&store, "b-1"), numbered([1])).await;
    }
    // Version 2n of a-1 is at position 3n − 1 and time 10n.
    let read = || stream(&store, "a-1").read();
    for (what, reader, expected) in [
        ("version 3", read().as_of(v(3)), 3),
        ("version 0", read().as_of(v(0)), 0),
        ("a version to come", read().as_of(v(99)), 10),
        ("time 30", read().as_of(at(30)), 6),
        ("time 29", read().as_of(at(29)), 4),
        ("before all times", read().as_of(at(9)), 0),
        ("a time to come", read().as_of(at(i64::MAX)), 10),
        ("position 5", read().as_of(p(5)), 4),
        ("position 6", read().as_of(p(6)), 4),
        ("position 7", read().as_of(p(7)), 5),
        ("position 0", read().as_of(p(0)), 0),
    ] {
        let events = reader.clone().collect().await.expect("can be read");
        assert_eq!(versions(&events), up_to(expected), "as of {what}");
        let backward = reader.backward().limit(1).page(1, 1).collect().await.expect("can be read");
        assert_eq!(versions(&backward), if expected == 0 { vec![] } else { vec![expected] }, "last as of {what}");
    }
}

pub async fn c7_all_is_read_as_of_a_position_or_a_time(fixture: &impl Fixture) {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    for n in 1..=5 {
        clock.set(n * 10);
        let both = es_framework::Append::to(id("a-1"), ExpectedVersion::Any, numbered([1, 1]));
        append(&store, both.and(id("b-1"), ExpectedVersion::Any, numbered([1]))).await;
    }
    let read = || store.all().read();
    for (what, reader, expected) in [
        ("position 4", read().as_of(p(4)), 4),
        ("position 0", read().as_of(p(0)), 0),
        ("time 20", read().as_of(at(20)), 6),
        ("time 19", read().as_of(at(19)), 3),
        ("time 9", read().as_of(at(9)), 0),
        ("both", read().as_of(p(4)).as_of(at(10)), 3),
    ] {
        let events = reader.page(2, 1 << 20).collect().await.expect("can be read");
        assert_eq!(positions(&events), up_to(expected), "as of {what}");
    }
}

/// A time or position bound in a stream was found by going through all of its events.
pub async fn c7_the_past_is_bounded_in_a_stream_among_others(fixture: &impl Fixture) {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    for n in 1..=700_i64 {
        clock.set(n / 3 * 10);
        write(&stream(&store, "other-1"), numbered([1])).await;
        if n % 5 != 0 {
            write(&stream(&store, "a-1"), numbered([1])).await;
        }
    }
    let all = log(&store).await;
    let whole = events_of(&stream(&store, "a-1")).await;
    for micros in [-1, 0, 1, 10, 15, 20, 1_000, 1_234, 2_330, 2_331, i64::MAX, i64::MIN] {
        for position in [0, 1, 2, 500, 777, 1_258, 1_259, 5_000] {
            for filter in [
                es_framework::Filter::new().until(at(micros)),
                es_framework::Filter::new().since(at(micros)),
                es_framework::Filter::new().after(p(position)).until(at(micros)),
                es_framework::Filter::new().before(p(position)).since(at(micros)),
            ] {
                for (of, events) in [("a-1", &whole), ("@all", &all)] {
                    let expected: Vec<_> = events.iter().filter(|event| filter.matches(&event.header())).collect();
                    let read = stream(&store, of).read().filter(filter.clone());
                    let forward = read.clone().collect().await.expect("can be read");
                    assert_eq!(positions(&forward), positions(expected.iter().copied()), "{of} {filter:?}");
                    let last = read.backward().limit(1).collect().await.expect("can be read");
                    assert_eq!(last.first(), expected.last().copied(), "{of} {filter:?}");
                }
            }
        }
    }
}
