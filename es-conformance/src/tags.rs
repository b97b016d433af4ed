//! I1: tags are stored with their events.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{
    Append, AppendError, Criterion, ExpectedVersion, Filter, InvalidAppend, InvalidName, Outcome, StoredEvent, Tag,
};

use crate::fixture::{Durable, Fixture, Setup};
use crate::support::{
    ManualClock, Recording, a_page, at, begin, event, events_of, found, id, keyed, log, metadata, positions, refused,
    stream, tag, tagged, tags_of, take, text_id, typed, write,
};

pub async fn i1_tags_read_back_in_the_order_given(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut watch = begin(store.all().watch().from_start()).await;
    let orders = [vec!["b:1", "a:1", "c:1"], vec!["c:1", "b:1", "a:1"], vec![], vec!["a:1", "b:1", "c:1"], vec!["z:9"]];
    let events: Vec<_> = orders.iter().map(|tags| tagged("noted", tags)).collect();
    write(&stream(&store, "a-1"), events.clone()).await;
    write(&stream(&store, "b-1"), events).await;
    let expected: Vec<_> = orders.iter().chain(&orders).map(|tags| tags_of(tags)).collect();
    let read = |events: &[StoredEvent]| events.iter().map(|event| event.tags.to_vec()).collect::<Vec<_>>();
    assert_eq!(read(&log(&store).await), expected);
    assert_eq!(read(&events_of(&stream(&store, "b-1")).await), expected[5..]);
    let mut backward = store.all().read().backward().page(3, 1 << 20).collect().await.expect("can be read");
    backward.reverse();
    assert_eq!(read(&backward), expected);
    assert_eq!(read(&take(&mut watch, 10).await), expected, "what is watched is what is read");
}

pub async fn i1_an_event_has_at_most_32_tags(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let many = |n: usize| event("x").with_tags((0..n).map(|n| Tag::of("n", n).expect("it is short")));
    write(&stream(&store, "a-1"), many(32)).await;
    let before = Recording::of(&store).await;
    let append = Append::to(id("a-1"), ExpectedVersion::Any, vec![event("y"), many(33)]);
    let error = store.append(append).await.expect_err("an event has too many tags");
    let AppendError::Invalid(error) = error else { panic!("{error:?}") };
    assert_eq!(error, InvalidAppend::TooManyTags { tags: 33, limit: 32 });
    before.unchanged("an event with too many tags").await;
    let all: Vec<_> = (0..32).map(|n| Tag::of("n", n).expect("it is short")).collect();
    assert_eq!(log(&store).await[0].tags, all[..]);
    assert_eq!(found(&store, Criterion::tags(all.iter().rev())).await, [1], "an event with all of 32 tags is found");
    for one in &all {
        assert_eq!(found(&store, Criterion::tags([one])).await, [1]);
    }
}

pub async fn i1_a_tag_of_255_bytes_and_of_any_characters_is_stored_and_found(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let longest = format!("long:{}", "x".repeat(250));
    let texts = [
        longest.as_str(),
        "größe:ß",
        "naïve:☃ 日本語",
        "family:👨‍👩‍👧",
        // The same character, written in two ways.
        "accent:é",
        "accent:e\u{301}",
        "Case:A",
        "case:a",
        "space: a ",
        "space:a",
        "quote:'\";--",
        "percent:%_\\",
        "colon:12:30:00",
        "del:\u{7f}",
        "high:\u{10ffff}",
    ];
    for text in texts {
        write(&stream(&store, "a-1"), tagged("noted", &[text])).await;
    }
    for (n, text) in (1..).zip(texts) {
        let read = store.all().read().filter(Filter::new().query(Criterion::tags([tag(text)]))).await;
        let read = read.expect("can be read");
        assert_eq!(positions(&read), [n], "{text:?}");
        assert_eq!(read[0].tags, [text]);
    }
    for text in ["", "a", ":", "a:", ":b", "a:\u{0}", "a\n:b", &format!("{longest}x")] {
        assert!(Tag::new(text).is_err(), "{text:?} is not a tag");
    }
    refused!(Tag::of("a:b", "c"), InvalidName::NotATag { .. });
}

pub async fn i1_the_same_tag_twice_in_one_event_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    for tags in [vec!["a:1", "a:1"], vec!["a:1", "b:1", "c:1", "b:1"]] {
        let twice = Append::to(id("a-1"), ExpectedVersion::Any, tagged("noted", &tags));
        refused!(store.append(twice).await, AppendError::Invalid(InvalidAppend::TagTwice { .. }));
    }
    before.unchanged("a tag that was given twice").await;
    let both = vec![tagged("noted", &["a:1", "b:1"]), tagged("noted", &["a:1", "A:1", "a:11"])];
    write(&stream(&store, "a-1"), both).await;
    assert_eq!(found(&store, Criterion::tags([tag("a:1")])).await, [2, 3]);
}

pub async fn i1_tags_are_part_of_the_checksum(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), vec![tagged("noted", &["a:1", "b:2"]), event("x")]).await;
    for stored in log(&store).await {
        assert_eq!(stored.computed_checksum(), stored.checksum);
        for tags in [vec!["a:1"], vec!["b:2", "a:1"], vec!["a:1", "b:3"], vec!["a:1", "b:2", "c:3"], vec!["a:1b:2"]] {
            let damaged = with_tags(&stored, &tags);
            assert_ne!(damaged.computed_checksum(), stored.checksum, "{tags:?}");
        }
    }
}

pub async fn i1_tags_count_in_the_bytes_of_an_append_and_of_a_page(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.append_bytes = 980)).await;
    let long: Vec<_> = (0..10).map(|n| format!("n{n}:{}", "x".repeat(95))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let of = |tags: &[&str]| typed("noted", "").with_tags(tags_of(tags));
    write(&stream(&store, "a-1"), of(&long)).await;
    let before = Recording::of(&store).await;
    let over = Append::to(id("a-1"), ExpectedVersion::Any, of(&long).with_id(text_id("1")));
    refused!(store.append(over).await, AppendError::Invalid(InvalidAppend::TooManyBytes { bytes: 981, limit: 980 }));
    before.unchanged("an append of too many bytes").await;
    for _ in 0..4 {
        write(&stream(&store, "a-1"), of(&long)).await;
    }
    let read = a_page("a-1", |read| read.bytes = 2_500);
    let page = store.engine().read(read).await.expect("can be read");
    assert_eq!(page.events.len(), 2, "a page counts tags in its bytes");
}

pub async fn i1_tags_are_not_compared_and_the_first_stay(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, keyed("one", "x").with_tags([tag("a:1")])).await;
    let again = write(&account, keyed("one", "x").with_tags([tag("b:1")])).await;
    assert_eq!(again.outcome, Outcome::AlreadyWritten);
    assert_eq!(log(&store).await[0].tags, ["a:1"]);
    assert_eq!(found(&store, Criterion::tags([tag("b:1")])).await, [0; 0]);
    assert_eq!(found(&store, Criterion::tags([tag("a:1")])).await, [1]);
}

pub async fn i1_tags_stand_beside_everything_else_of_an_event(fixture: &impl Fixture) {
    let clock = ManualClock::at(7);
    let store = fixture.open_with(Setup::default().clock(clock)).await;
    // The payload looks like tags, like metadata, and like nothing at all: it is not looked at.
    let payloads: [&'static [u8]; 3] = [br#"{"tags":["a:2"]}"#, b"a:2", &[0xff, 0]];
    for payload in payloads {
        let event = typed("noted", payload).with_metadata(metadata(r#"{"tags": ["a:2"]}"#)).with_tags([tag("a:1")]);
        write(&stream(&store, "s-1"), event.with_id(text_id(&format!("{}", payload.len())))).await;
    }
    assert_eq!(found(&store, Criterion::tags([tag("a:2")])).await, [0; 0]);
    let query = Filter::new().query(Criterion::tags([tag("a:1")]));
    let read = store.all().read().filter(query).await.expect("can be read");
    assert_eq!(read, log(&store).await, "the events are whole");
    for (stored, payload) in read.iter().zip(payloads) {
        assert_eq!((&stored.payload[..], stored.time), (payload, at(7)));
        assert_eq!(stored.metadata.as_ref().map(es_framework::Metadata::as_str), Some(r#"{"tags": ["a:2"]}"#));
        assert_eq!(stored.id, text_id(&payload.len().to_string()));
    }
}

pub async fn i1_after_reopening_tags_are_there(fixture: &impl Durable) {
    let store = fixture.open().await;
    for n in 0..50_u64 {
        let tags = [tag(&format!("n:{}", n % 7)), tag("every:one")];
        write(&stream(&store, &format!("s-{}", n % 3)), event("x").with_tags(tags)).await;
    }
    let before = log(&store).await;
    let store = fixture.reopen(store).await;
    assert_eq!(log(&store).await, before);
    assert_eq!(found(&store, Criterion::tags([tag("every:one"), tag("n:3")])).await, [4, 11, 18, 25, 32, 39, 46]);
    // New events get the same tags and others.
    write(&stream(&store, "s-0"), tagged("noted", &["new:1", "n:3"])).await;
    assert_eq!(found(&store, Criterion::tags([tag("n:3")])).await.last(), Some(&51));
    assert_eq!(found(&store, Criterion::tags([tag("new:1")])).await, [51]);
}

/// An event as it would be read if its tags had been damaged.
fn with_tags(stored: &StoredEvent, tags: &[&str]) -> StoredEvent {
    let mut damaged = stored.clone();
    damaged.tags = tags_of(tags).into_iter().collect();
    damaged
}
