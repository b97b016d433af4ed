//! B: what makes retries safe.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::collections::HashSet;

use es_framework::{Append, AppendError, ErrorKind, EventId, ExpectedVersion, InvalidAppend, Outcome};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, Setup};
use crate::support::{
    ManualClock, Recording, append, begin, event, events_of, exact, id, keyed, log, metadata, next, numbered, of_type,
    p, refused, stream, text_id, texts, v, versions, write,
};

pub async fn b1_ids_for_some_events_of_an_append_only_are_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    refused!(
        stream(&store, "a-1").write(vec![keyed("k", "1"), event("2"), event("3")], ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::MixedIds { with: 1, without: 2 }),
    );
    let over_two_streams =
        Append::to(id("a-1"), ExpectedVersion::Any, keyed("k", "1")).and(id("b-1"), ExpectedVersion::Any, event("2"));
    refused!(
        store.append(over_two_streams).await,
        AppendError::Invalid(InvalidAppend::MixedIds { with: 1, without: 1 }),
    );
    before.unchanged("a mixture").await;
}

pub async fn b1_without_ids_nothing_is_deduplicated(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    for _ in 0..3 {
        write(&account, vec![event("same"), event("same")]).await;
    }
    assert_eq!(events_of(&account).await.len(), 6);
}

pub async fn b1_an_id_is_a_text_of_1_to_255_bytes_or_a_uuid(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    assert!(EventId::text("").is_err());
    assert!(EventId::text("x".repeat(256)).is_err());
    assert!(EventId::text("a\u{1f}").is_err());
    let ids = [text_id(&"x".repeat(255)), text_id("é☃"), EventId::uuid([0; 16]), EventId::uuid([0xff; 16])];
    for event_id in &ids {
        write(&account, event("x").with_id(event_id.clone())).await;
    }
    let read: Vec<_> = events_of(&account).await.into_iter().map(|event| event.id).collect();
    assert_eq!(read, ids, "an id reads back as it was written");
    for event_id in &ids {
        assert!(write(&account, event("x").with_id(event_id.clone())).await.was_known(), "{event_id} was forgotten");
    }
}

pub async fn b1_ids_compare_as_bytes(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let different = ["a", "A", "a ", " a", "é", "e\u{301}", "1", "01", "1.0", "a%", "a_"];
    for text in different {
        assert!(!write(&account, keyed(text, "x")).await.was_known(), "{text:?} was taken for another id");
    }
    assert_eq!(events_of(&account).await.len(), different.len());
}

pub async fn b1_the_canonical_text_of_a_uuid_is_that_uuid(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let text = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let uuid = EventId::uuid(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8_u128.to_be_bytes());
    write(&account, event("x").with_id(uuid.clone())).await;
    assert!(write(&account, keyed(text, "x")).await.was_known());
    assert!(!write(&account, event("x").with_id(text_id(&text.to_uppercase()))).await.was_known(), "upper case");
    let events = events_of(&account).await;
    assert_eq!((events.len(), &events[0].id), (2, &uuid));
    assert_eq!(events[0].id.to_string(), text);
    assert_eq!(events[1].id.to_string(), text.to_uppercase());
}

pub async fn b1_an_event_without_an_id_reads_with_the_same_derived_one_everywhere(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let mut watch = begin(account.watch()).await;
    write(&stream(&store, "b-1"), event("first")).await;
    write(&account, event("x")).await;
    let expected = EventId::derived(store.id(), p(2));
    let watched = next(&mut watch).await;
    let from_stream = events_of(&account).await.remove(0);
    let backward = account.read().backward().collect().await.expect("can be read").remove(0);
    let from_all = log(&store).await.remove(1);
    for read in [watched, from_stream, backward, from_all] {
        assert_eq!(read.id, expected);
        assert!(read.id.is_derived());
    }
    assert_eq!(expected.to_string(), format!("@{}-2", store.id()));
}

pub async fn b1_derived_ids_are_never_the_same_twice(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for name in ["a-1", "b-1", "a-1"] {
        write(&stream(&store, name), numbered(1..=10)).await;
    }
    let ids: HashSet<_> = log(&store).await.into_iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 30);
}

pub async fn b1_ids_of_the_derived_form_cannot_be_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, event("x")).await;
    let derived = events_of(&account).await.remove(0).id;
    assert!(EventId::text(derived.to_string()).is_err(), "its text is refused");
    let before = Recording::of(&store).await;
    for content in ["x", "y"] {
        refused!(
            account.write(event(content).with_id(derived.clone()), ExpectedVersion::Any).await,
            AppendError::Invalid(InvalidAppend::DerivedId { id }) if id == derived,
        );
    }
    before.unchanged("a derived id").await;
}

pub async fn b2_a_retry_is_known_whatever_it_expects(fixture: &impl Fixture) {
    let clock = ManualClock::at(100);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let account = stream(&store, "a-1");
    write(&account, keyed("zero", "0")).await;
    let events = || vec![keyed("one", "1"), keyed("two", "2")];
    let first = account.write(events(), exact(1)).await.expect("the stream is at version 1");
    clock.set(900);
    for later in 0..2 {
        let before = Recording::of(&store).await;
        for expected in [
            ExpectedVersion::Any,
            ExpectedVersion::NoStream,
            ExpectedVersion::StreamExists,
            exact(0),
            exact(1),
            exact(3),
            exact(99),
        ] {
            let again = account.write(events(), expected).await.expect("all events are known");
            assert_eq!(again.outcome, Outcome::AlreadyWritten, "expecting {expected}");
            let part = &again.streams[0];
            assert_eq!((part.first, part.last), (v(2), v(3)), "the original versions, expecting {expected}");
            assert_eq!((again.position, again.time), (first.position, first.time), "those of the first write");
        }
        before.unchanged("a retry").await;
        write(&account, numbered(1..=(later + 1) * 50)).await;
    }
}

pub async fn b2_the_outcome_of_a_retry_says_how_many_events_were_known(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let events = || vec![keyed("one", "1"), keyed("two", "2"), keyed("three", "3")];
    let first = write(&account, events()).await;
    assert_eq!((first.streams[0].written, first.streams[0].known), (3, 0));
    let again = write(&account, events()).await;
    assert_eq!((again.streams[0].written, again.streams[0].known), (3, 3));
}

pub async fn b2_a_part_of_an_earlier_append_is_known_with_its_versions(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    write(&account, vec![keyed("one", "1"), keyed("two", "2"), keyed("three", "3")]).await;
    let again = account.write(keyed("two", "2"), exact(0)).await.expect("it is known");
    assert!(again.was_known());
    assert_eq!((again.streams[0].first, again.streams[0].last, again.position), (v(2), v(2), p(2)));
}

pub async fn b2_an_append_over_several_streams_is_known_as_a_whole(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "checked-1"), numbered([1])).await;
    let request = || {
        Append::to(id("a-1"), ExpectedVersion::NoStream, vec![keyed("one", "1"), keyed("two", "2")])
            .check(id("checked-1"), exact(1))
            .and(id("b-1"), ExpectedVersion::NoStream, keyed("one", "1"))
    };
    let first = append(&store, request()).await;
    // The streams advance, and the stream that is only checked is no longer as expected.
    for name in ["a-1", "b-1", "checked-1"] {
        write(&stream(&store, name), numbered([9])).await;
    }
    let before = Recording::of(&store).await;
    let again = append(&store, request()).await;
    assert_eq!(again.outcome, Outcome::AlreadyWritten);
    assert_eq!((again.position, again.time), (first.position, first.time));
    let told: Vec<_> = again.streams.iter().map(|part| (part.stream.as_str(), part.first, part.last)).collect();
    assert_eq!((told[0], told[2]), (("a-1", v(1), v(2)), ("b-1", v(1), v(1))));
    before.unchanged("a retry over several streams").await;
}

pub async fn b2_an_append_over_several_streams_known_in_part_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), keyed("one", "1")).await;
    let before = Recording::of(&store).await;
    let request = Append::to(id("a-1"), ExpectedVersion::Any, keyed("one", "1")).and(
        id("b-1"),
        ExpectedVersion::Any,
        vec![keyed("one", "1"), keyed("two", "2")],
    );
    let error = store.append(request).await.expect_err("known in part");
    assert_eq!(error.kind(), ErrorKind::Caller);
    refused!(Err::<(), _>(error), AppendError::PartlyKnown { known: 1, new: 2 });
    before.unchanged("an append known in part").await;
}

pub async fn b2_of_the_same_write_sent_by_many_at_once_one_is_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut senders = JoinSet::new();
    for _ in 0..20 {
        let account = stream(&store, "a-1");
        senders.spawn(async move {
            let events = vec![keyed("one", "1"), keyed("two", "2")];
            account.write(events, ExpectedVersion::NoStream).await.expect("it is new or known")
        });
    }
    let outcomes = senders.join_all().await;
    assert_eq!(outcomes.iter().filter(|appended| appended.outcome == Outcome::Written).count(), 1);
    assert!(outcomes.iter().all(|appended| (appended.version(), appended.position) == (v(2), p(2))));
    assert_eq!(log(&store).await.len(), 2);
}

pub async fn b3_the_same_id_with_other_content_is_refused_and_named(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, keyed("zero", "0")).await;
    let original = || of_type("opened", 2, "json", "1").with_id(text_id("one"));
    write(&account, original()).await;
    let before = Recording::of(&store).await;
    for (what, other) in [
        ("type", of_type("closed", 2, "json", "1")),
        ("schema version", of_type("opened", 3, "json", "1")),
        ("codec", of_type("opened", 2, "raw", "1")),
        ("payload", of_type("opened", 2, "json", "2")),
    ] {
        for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(2)] {
            let error = account.write(other.clone().with_id(text_id("one")), expected).await.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Caller, "{what}");
            refused!(
                Err::<(), _>(error),
                AppendError::IdReused { stream, id, version }
                    if stream == "a-1" && id == text_id("one") && version == v(2),
            );
        }
    }
    assert!(write(&account, original()).await.was_known());
    before.unchanged("an id with other content").await;
}

pub async fn b3_metadata_is_not_compared_and_the_first_stays(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "a-1");
    let with = |json: &str| keyed("one", "1").with_metadata(metadata(json));
    write(&account, with(r#"{"trace": 1}"#)).await;
    assert!(write(&account, with(r#"{"trace": 2}"#)).await.was_known());
    assert!(write(&account, keyed("one", "1")).await.was_known());
    let events = events_of(&account).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].metadata, Some(metadata(r#"{"trace": 1}"#)));
}

pub async fn b4_known_events_are_skipped_and_the_rest_appended(fixture: &impl Fixture) {
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists] {
        let account = stream(&fixture.open().await, "a-1");
        write(&account, vec![keyed("one", "1"), keyed("two", "2")]).await;
        let mixed = vec![keyed("three", "3"), keyed("two", "2"), keyed("four", "4"), keyed("one", "1")];
        let appended = account.write(mixed, expected).await.expect("the known ones are skipped");
        assert_eq!(appended.outcome, Outcome::Written);
        let part = &appended.streams[0];
        assert_eq!((part.known, part.written), (2, 2), "the outcome says how many");
        assert_eq!((part.first, part.last, appended.position), (v(3), v(4), p(4)));
        let events = events_of(&account).await;
        assert_eq!(texts(&events), ["1", "2", "3", "4"]);
        assert_eq!(versions(&events), [1, 2, 3, 4]);
    }
}

pub async fn b4_an_append_known_in_part_is_refused_where_it_cannot_be_a_retry(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, vec![keyed("one", "1"), keyed("two", "2")]).await;
    let before = Recording::of(&store).await;
    for expected in [ExpectedVersion::NoStream, exact(0), exact(1), exact(2)] {
        refused!(
            account.write(vec![keyed("two", "2"), keyed("three", "3")], expected).await,
            AppendError::PartlyKnown { known: 1, new: 1 },
        );
    }
    before.unchanged("an append known in part").await;
}

pub async fn b5_the_same_id_twice_in_one_append_is_stored_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let twice = || vec![keyed("one", "1"), keyed("two", "2"), keyed("one", "1"), keyed("one", "1")];
    let appended = account.write(twice(), ExpectedVersion::NoStream).await.expect("the content is the same");
    assert_eq!((appended.version(), appended.position, appended.streams[0].written), (v(2), p(2), 2));
    assert_eq!(texts(&events_of(&account).await), ["1", "2"]);
    let before = Recording::of(&store).await;
    assert!(write(&account, twice()).await.was_known());
    before.unchanged("a retry").await;
}

pub async fn b5_the_same_id_twice_in_one_append_with_other_content_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    refused!(
        stream(&store, "a-1").write(vec![keyed("one", "1"), keyed("one", "2")], ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::IdTwice { id, .. }) if id == text_id("one"),
    );
    before.unchanged("an id that stands twice").await;
}

pub async fn b5_the_same_id_in_another_stream_is_another_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert!(!write(&stream(&store, "a-1"), keyed("one", "1")).await.was_known());
    assert!(!write(&stream(&store, "b-1"), keyed("one", "2")).await.was_known());
    assert_eq!(texts(&log(&store).await), ["1", "2"]);
    assert!(write(&stream(&store, "a-1"), keyed("one", "1")).await.was_known());
    assert!(write(&stream(&store, "b-1"), keyed("one", "2")).await.was_known());
}
