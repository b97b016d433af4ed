//! A12: appends that carry a command key.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{Append, AppendError, CommandKey, ErrorKind, ExpectedVersion, Outcome};
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    Recording, append, command, event, events_of, exact, id, keyed, log, numbered, p, refused, stream, v, write,
};

pub async fn a12_the_same_command_again_answers_the_first_outcome_and_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered([1])).await;
    let request = || {
        Append::to(id("a-1"), exact(1), numbered([2, 3]))
            .and(id("b-1"), ExpectedVersion::NoStream, numbered([1]))
            .check(id("c-1"), ExpectedVersion::NoStream)
            .command(command("pay-17", "pay 5 to bob"))
    };
    let first = append(&store, request()).await;
    assert_eq!(first.outcome, Outcome::Written);
    write(&stream(&store, "a-1"), numbered([4])).await;
    write(&stream(&store, "c-1"), numbered([1])).await;
    let before = Recording::of(&store).await;
    let again = append(&store, request()).await;
    assert_eq!(again.outcome, Outcome::AlreadyWritten);
    assert_eq!((&again.streams, again.position, again.time), (&first.streams, first.position, first.time));
    before.unchanged("a command carried out twice").await;
}

pub async fn a12_a_command_keeps_its_name(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for (key, name) in [("with", Some("account.deposit")), ("without", None), ("odd", Some("[\"\u{e9}]"))] {
        let mut keyed = command(key, "same");
        keyed.name = name.map(Into::into);
        append(&store, Append::to(id("a-1"), ExpectedVersion::Any, numbered([1])).command(keyed.clone())).await;
        let record = store.command(&keyed.key).await.expect("readable").expect("it was carried out");
        assert_eq!((record.command.name.as_deref(), record.appended.streams.len()), (name, 1));
        // The name does not identify the command: the fingerprint does.
        let renamed = command(key, "same").named("another");
        let again = append(&store, Append::to(id("a-1"), ExpectedVersion::Any, numbered([1])).command(renamed)).await;
        assert_eq!(again.outcome, Outcome::AlreadyWritten);
    }
}

pub async fn a12_a_command_without_events_is_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, numbered([1, 2])).await;
    let request = || Append::to(id("a-1"), exact(2), Vec::new()).command(command("nothing-to-do", "x"));
    let first = append(&store, request()).await;
    assert_eq!((first.outcome, first.version(), first.position), (Outcome::Written, v(2), p(2)));
    write(&account, numbered([3])).await;
    let again = append(&store, request()).await;
    assert_eq!((again.outcome, again.version(), again.position), (Outcome::AlreadyWritten, v(2), p(2)));
    assert_eq!(again.time, first.time);
}

pub async fn a12_the_same_key_for_another_command_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    append(&store, Append::to(id("a-1"), ExpectedVersion::Any, numbered([1])).command(command("key", "one"))).await;
    let before = Recording::of(&store).await;
    for stream in ["a-1", "b-1"] {
        // Everything including the expectation holds: only the fingerprint differs.
        let other = Append::to(id(stream), ExpectedVersion::Any, numbered([2])).command(command("key", "two"));
        let error = store.append(other).await.expect_err("the key is taken");
        assert_eq!(error.kind(), ErrorKind::Caller);
        refused!(Err::<(), _>(error), AppendError::CommandKeyReused { key } if key == "key");
    }
    before.unchanged("another command under a known key").await;
}

pub async fn a12_a_key_is_unique_in_the_store_not_in_a_stream(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let request =
        |stream: &str| Append::to(id(stream), ExpectedVersion::NoStream, numbered([1])).command(command("key", "same"));
    let first = append(&store, request("a-1")).await;
    let again = append(&store, request("b-1")).await;
    assert_eq!((again.outcome, &again.streams), (Outcome::AlreadyWritten, &first.streams));
    assert!(!stream(&store, "b-1").exists().await.expect("can be asked"));
}

pub async fn a12_the_key_is_judged_before_ids_and_expectation(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let first = Append::to(id("a-1"), ExpectedVersion::NoStream, keyed("e", "1")).command(command("key", "one"));
    append(&store, first).await;
    let wrong_in_every_way =
        || Append::to(id("a-1"), exact(99), keyed("e", "other content")).command(command("key", "one"));
    assert_eq!(append(&store, wrong_in_every_way()).await.outcome, Outcome::AlreadyWritten);
    let other = wrong_in_every_way().command(command("key", "two"));
    refused!(store.append(other).await, AppendError::CommandKeyReused { .. });
}

pub async fn a12_a_command_that_failed_is_not_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let request = |expected| Append::to(id("a-1"), expected, numbered([1])).command(command("key", "one"));
    refused!(store.append(request(exact(5))).await, AppendError::Conflict { .. });
    assert_eq!(store.command(&CommandKey::new("key").expect("valid")).await.expect("can be asked"), None);
    assert_eq!(append(&store, request(exact(0))).await.outcome, Outcome::Written);
    assert_eq!(events_of(&stream(&store, "a-1")).await.len(), 1);
}

pub async fn a12_a_command_can_be_looked_up_by_its_key(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let key = CommandKey::new("pay-17").expect("valid");
    assert_eq!(store.command(&key).await.expect("can be asked"), None);
    let request = Append::to(id("a-1"), ExpectedVersion::Any, numbered([1, 2]))
        .and(id("b-1"), ExpectedVersion::Any, numbered([3]))
        .check(id("c-1"), ExpectedVersion::NoStream)
        .command(command("pay-17", "pay"));
    let appended = append(&store, request).await;
    let record = store.command(&key).await.expect("can be asked").expect("the command was carried out");
    assert_eq!(record.command, command("pay-17", "pay"));
    assert_eq!(
        (&record.appended.streams, record.appended.position, record.appended.time),
        (&appended.streams, appended.position, appended.time),
    );
}

pub async fn a12_a_command_whose_events_are_known_by_their_ids_is_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    let written = write(&account, vec![keyed("e1", "1"), keyed("e2", "2")]).await;
    write(&account, keyed("e3", "3")).await;
    let request = |events| Append::to(id("a-1"), ExpectedVersion::Any, events).command(command("key", "one"));
    let known = append(&store, request(vec![keyed("e1", "1"), keyed("e2", "2")])).await;
    assert_eq!((known.outcome, known.version(), known.position), (Outcome::AlreadyWritten, v(2), written.position));
    let again = append(&store, request(Vec::new())).await;
    assert_eq!((again.outcome, again.version(), again.position), (Outcome::AlreadyWritten, v(2), written.position));
    refused!(
        store.append(request(Vec::new()).command(command("key", "two"))).await,
        AppendError::CommandKeyReused { .. },
    );
}

pub async fn a12_of_the_same_command_sent_by_many_at_once_one_is_carried_out(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut senders = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        senders.spawn(async move {
            let request = Append::to(id("a-1"), ExpectedVersion::Any, event("paid")).command(command("key", "pay"));
            append(&store, request).await
        });
    }
    let outcomes = senders.join_all().await;
    assert_eq!(outcomes.iter().filter(|appended| appended.outcome == Outcome::Written).count(), 1);
    assert!(outcomes.iter().all(|appended| appended.position == p(1) && appended.version() == v(1)));
    assert_eq!(log(&store).await.len(), 1);
}
