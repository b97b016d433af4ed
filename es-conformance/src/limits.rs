//! A6: what cannot be written, and size limits.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{Append, AppendError, ExpectedVersion, InvalidAppend, StreamId};

use crate::fixture::{Fixture, Setup};
use crate::support::{Recording, event, events_of, exact, id, log, metadata, numbered, refused, stream, write};

pub async fn a6_ids_that_begin_with_at_cannot_be_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for reserved in ["@all", "@", "@mine-1"] {
        refused!(
            stream(&store, reserved).write(event("x"), ExpectedVersion::Any).await,
            AppendError::Invalid(InvalidAppend::ReservedStream { stream }) if stream == reserved,
        );
        let among_others =
            Append::to(id("a-1"), ExpectedVersion::Any, event("x")).and(id(reserved), ExpectedVersion::Any, event("x"));
        refused!(store.append(among_others).await, AppendError::Invalid(InvalidAppend::ReservedStream { .. }));
    }
    assert!(log(&store).await.is_empty(), "something was written");
    write(&stream(&store, "not@first"), event("fine")).await;
    assert!(events_of(&stream(&store, "@mine-1")).await.is_empty(), "reserved streams other than @all are empty");
}

pub async fn a6_a_stream_id_has_1_to_255_bytes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert!(store.open_stream("").is_err(), "an empty id");
    assert!(store.open_stream("a".repeat(256)).is_err(), "256 bytes");
    assert!(store.open_stream("é".repeat(128)).is_err(), "256 bytes in 128 characters");
    assert!(store.open_stream("a\0b").is_err(), "a control character");
    for longest in ["a".repeat(255), format!("{}x", "é".repeat(127)), "a".to_owned(), "-".to_owned()] {
        let handle = store.open_stream(&longest).expect("at most 255 bytes");
        write(&handle, event("fits")).await;
        assert_eq!(events_of(&handle).await[0].stream, StreamId::new(longest).expect("at most 255 bytes"));
    }
}

pub async fn a6_a_payload_over_its_limit_is_refused(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.payload_bytes = 1_000)).await;
    let account = stream(&store, "account-alice");
    write(&account, event(vec![7; 1_000])).await;
    let before = Recording::of(&store).await;
    refused!(
        account.write(vec![event("fine"), event(vec![7; 1_001])], ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::PayloadTooLarge { bytes: 1_001, limit: 1_000 }),
    );
    before.unchanged("a payload over its limit").await;
}

pub async fn a6_metadata_over_its_limit_is_refused(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.metadata_bytes = 100)).await;
    let account = stream(&store, "account-alice");
    let of_length = |bytes: usize| event("x").with_metadata(metadata(&format!("{{{}}}", " ".repeat(bytes - 2))));
    write(&account, of_length(100)).await;
    let before = Recording::of(&store).await;
    refused!(
        account.write(vec![event("fine"), of_length(101)], ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::MetadataTooLarge { bytes: 101, limit: 100 }),
    );
    before.unchanged("metadata over its limit").await;
}

pub async fn a6_an_append_of_too_many_events_is_refused(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.append_events = 10)).await;
    write(&stream(&store, "a-1"), numbered(1..=10)).await;
    let before = Recording::of(&store).await;
    let over_two = Append::to(id("a-1"), ExpectedVersion::Any, numbered(1..=5)).and(
        id("b-1"),
        ExpectedVersion::Any,
        numbered(1..=6),
    );
    refused!(
        store.append(over_two).await,
        AppendError::Invalid(InvalidAppend::TooManyEvents { events: 11, limit: 10 }),
    );
    before.unchanged("an append of too many events").await;
}

pub async fn a6_an_append_of_too_many_bytes_is_refused(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.append_bytes = 3_000)).await;
    let account = stream(&store, "account-alice");
    write(&account, vec![event(vec![1; 1_000]), event(vec![2; 1_000]), event(vec![3; 1_000])]).await;
    let before = Recording::of(&store).await;
    let over = vec![event(vec![1; 1_500]), event(vec![2; 1_499]).with_metadata(metadata("{}"))];
    refused!(
        account.write(over, ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::TooManyBytes { bytes: 3_001, limit: 3_000 }),
    );
    before.unchanged("an append of too many bytes").await;
}

pub async fn a6_the_default_limits_are_those_of_the_contract(fixture: &impl Fixture) {
    let limits = fixture.open().await.engine().limits();
    assert_eq!(limits.payload_bytes, 16 << 20);
    assert_eq!(limits.metadata_bytes, 64 << 10);
    assert_eq!(limits.append_events, 65_536);
    assert_eq!(limits.append_bytes, 64 << 20);
}

pub async fn a6_what_is_wrong_is_said_before_what_is_unexpected(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.payload_bytes = 1)).await;
    let account = stream(&store, "account-alice");
    refused!(account.write(event("too long"), exact(7)).await, AppendError::Invalid(_));
}
