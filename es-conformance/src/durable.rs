//! What holds after a store was closed and opened again: everything.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::time::Duration;

use bytes::Bytes;
use es_framework::{
    Append, AppendError, CellError, CellKey, CommandKey, EventId, ExpectedVersion, Filter, ListStreams, Outcome,
    StoreError,
};

use crate::fixture::{Durable, Setup};
use crate::support::{
    ManualClock, append, at, begin, command, ends_closed, event, events_of, exact, id, keyed, log, metadata, next,
    numbered, p, refused, stream, text_id, texts, up_to, v, versions, write,
};

pub async fn a1_after_reopening_every_event_is_there_as_it_was(fixture: &impl Durable) {
    let store = fixture.open().await;
    write(&stream(&store, "zürich-☃"), event(vec![0, 1, 0xff]).with_metadata(metadata("{ \"n\": 1 }"))).await;
    write(&stream(&store, "b-1"), vec![keyed("one", "1"), keyed("67e55044-10b1-426f-9247-bb680e5fe0c8", "2")]).await;
    write(&stream(&store, "b-1"), vec![event(""), event(vec![7; 1 << 20])]).await;
    let before = log(&store).await;
    let store = fixture.reopen(store).await;
    assert_eq!(log(&store).await, before);
    assert_eq!(store.head(), p(5), "the head is known from the start");
    let account = store.all().read().filter(Filter::new().category("b")).collect().await.expect("can be read");
    assert_eq!(versions(&account), up_to(4));
}

pub async fn a2_after_reopening_expectations_are_judged_as_before(fixture: &impl Durable) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=3)).await;
    let store = fixture.reopen(store).await;
    let account = stream(&store, "a-1");
    refused!(account.write(event("x"), ExpectedVersion::NoStream).await, AppendError::Conflict { .. });
    refused!(account.write(event("x"), exact(2)).await, AppendError::Conflict { .. });
    let appended = account.write(event("4"), exact(3)).await.expect("the right version");
    assert_eq!((appended.version(), appended.position), (v(4), p(4)), "versions and positions go on");
}

pub async fn a7_positions_go_on_over_many_reopenings(fixture: &impl Durable) {
    let mut store = fixture.open().await;
    for n in 0..5 {
        assert_eq!(write(&stream(&store, &format!("s-{n}")), numbered([n, n])).await.position, p(n * 2 + 2));
        store = fixture.reopen(store).await;
    }
    assert_eq!(crate::support::positions(&log(&store).await), up_to(10));
    let listed = store.streams(ListStreams::default()).await.expect("can be listed");
    let names: Vec<_> = listed.iter().map(|info| (info.stream.to_string(), info.version)).collect();
    assert_eq!(names, (0..5).map(|n| (format!("s-{n}"), v(2))).collect::<Vec<_>>());
}

pub async fn a8_after_reopening_time_does_not_run_backwards(fixture: &impl Durable) {
    let store = fixture.open_with(Setup::default().clock(ManualClock::at(10_000))).await;
    write(&stream(&store, "a-1"), event("1")).await;
    let store = fixture.reopen_with(store, Setup::default().clock(ManualClock::at(3_000))).await;
    let appended = write(&stream(&store, "b-1"), event("2")).await;
    assert_eq!((appended.time, appended.clock_behind), (at(10_000), Duration::from_millis(7)));
}

pub async fn a12_after_reopening_a_command_is_remembered(fixture: &impl Durable) {
    let store = fixture.open().await;
    let with_events = || {
        Append::to(id("a-1"), exact(0), numbered([1, 2]))
            .check(id("b-1"), ExpectedVersion::NoStream)
            .command(command("pay", "pay"))
    };
    let without = || Append::to(id("a-1"), exact(2), Vec::new()).command(command("nothing", "nothing"));
    let first = append(&store, with_events()).await;
    let nothing = append(&store, without()).await;
    write(&stream(&store, "a-1"), event("3")).await;
    let store = fixture.reopen(store).await;
    for (request, first) in [(with_events(), first), (without(), nothing)] {
        let again = append(&store, request.clone()).await;
        assert_eq!(again.outcome, Outcome::AlreadyWritten);
        assert_eq!((&again.streams, again.position, again.time), (&first.streams, first.position, first.time));
        let key = &request.command.as_ref().expect("it has one").key;
        let record = store.command(key).await.expect("can be asked").expect("it was carried out");
        assert_eq!(Some(&record.command), request.command.as_ref());
        let other = request.clone().command(command(key.as_str(), "another"));
        refused!(store.append(other).await, AppendError::CommandKeyReused { .. });
    }
    assert_eq!(store.command(&CommandKey::new("never").expect("valid")).await.expect("can be asked"), None);
    assert_eq!(log(&store).await.len(), 3);
}

pub async fn b1_after_reopening_derived_ids_are_the_same(fixture: &impl Durable) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered([1, 2])).await;
    let before: Vec<_> = log(&store).await.into_iter().map(|event| event.id).collect();
    let store = fixture.reopen(store).await;
    let after: Vec<_> = log(&store).await.into_iter().map(|event| event.id).collect();
    assert_eq!(after, before);
    assert_eq!(after, [EventId::derived(store.id(), p(1)), EventId::derived(store.id(), p(2))]);
}

pub async fn b2_after_reopening_a_retry_is_known(fixture: &impl Durable) {
    let store = fixture.open().await;
    let events = || {
        let uuid = keyed("67e55044-10b1-426f-9247-bb680e5fe0c8", "2");
        vec![keyed("one", "1").with_metadata(metadata("{}")), uuid, keyed("☃", "3")]
    };
    let first = stream(&store, "a-1").write(events(), ExpectedVersion::NoStream).await.expect("it is missing");
    write(&stream(&store, "a-1"), numbered(4..=300)).await;
    let store = fixture.reopen(store).await;
    let account = stream(&store, "a-1");
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, ExpectedVersion::StreamExists, exact(0)] {
        let again = account.write(events(), expected).await.expect("all is known");
        assert_eq!(again.outcome, Outcome::AlreadyWritten);
        assert_eq!((again.streams[0].first, again.streams[0].last), (v(1), v(3)));
        assert_eq!((again.position, again.time), (first.position, first.time));
    }
    refused!(
        account.write(keyed("one", "other"), ExpectedVersion::Any).await,
        AppendError::IdReused { id, version, .. } if id == text_id("one") && version == v(1),
    );
    let mut with_a_new_one = events();
    with_a_new_one.push(keyed("four", "4"));
    refused!(account.write(with_a_new_one.clone(), exact(300)).await, AppendError::PartlyKnown { known: 3, new: 1 });
    let appended = write(&account, with_a_new_one).await;
    assert_eq!((appended.streams[0].known, appended.streams[0].written, appended.version()), (3, 1, v(301)));
}

pub async fn d1_after_reopening_a_watch_goes_on_after_its_last_place(fixture: &impl Durable) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=5)).await;
    let mut watch = begin(store.all().watch().after(p(2))).await;
    let last = next(&mut watch).await.position;
    let reopened = fixture.reopen(store).await;
    loop {
        // What it had buffered may still come.
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(StoreError::Closed)) => break,
            other => panic!("a watch of a closed store says so, this one said {other:?}"),
        }
    }
    assert!(watch.next().await.is_none());
    let mut resumed = begin(reopened.all().watch().after(last)).await;
    let mut present = begin(reopened.all().watch()).await;
    write(&stream(&reopened, "a-1"), numbered([6])).await;
    assert_eq!(texts(&crate::support::take(&mut resumed, 3).await), ["4", "5", "6"]);
    assert_eq!(texts([&next(&mut present).await]), ["6"]);
    reopened.close().await.expect("can be closed");
    ends_closed(&mut resumed).await;
}

pub async fn e1_after_reopening_snapshots_are_there(fixture: &impl Durable) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=5)).await;
    stream(&store, "a-1").snapshot("sum", v(4), vec![0, 0xff]).await.expect("saved");
    store.all().snapshot("sum", p(5), "all").await.expect("saved");
    let before = stream(&store, "a-1").load_snapshot("sum").await.expect("can be loaded");
    let store = fixture.reopen(store).await;
    let account = stream(&store, "a-1");
    assert_eq!(account.load_snapshot("sum").await.expect("can be loaded"), before);
    let of_all = store.all().load_snapshot("sum").await.expect("can be loaded").expect("was saved");
    assert_eq!((of_all.at, &of_all.state[..]), (5, &b"all"[..]));
    account.snapshot("sum", v(3), "older").await.expect("saving an older one is no error");
    assert_eq!(account.load_snapshot("sum").await.expect("can be loaded"), before);
}

pub async fn f1_after_reopening_the_store_has_the_same_id(fixture: &impl Durable) {
    let store = fixture.open().await;
    let before = store.id();
    let store = fixture.reopen(store).await;
    assert_eq!(store.id(), before);
    assert_ne!(fixture.open().await.id(), before);
}

pub async fn f2_what_was_acknowledged_is_there_after_reopening(fixture: &impl Durable) {
    let store = fixture.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..20_u64 {
        let handle = stream(&store, &format!("s-{n}"));
        writers.spawn(async move {
            let mut acknowledged = 0;
            for _ in 0..50 {
                match handle.write(event("x"), ExpectedVersion::Any).await {
                    Ok(appended) => acknowledged = appended.version().get(),
                    Err(AppendError::Store(StoreError::Closed)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            (handle.id().clone(), acknowledged)
        });
    }
    // Closed while writers are active: everything acknowledged is kept.
    tokio::task::yield_now().await;
    let store = fixture.reopen(store).await;
    for (name, acknowledged) in writers.join_all().await {
        let read = versions(&events_of(&store.stream(name.clone())).await);
        assert_eq!(read, up_to(acknowledged), "{name} has more or less than was acknowledged");
    }
}

pub async fn cells_are_there_after_reopening(fixture: &impl Durable) {
    let store = fixture.open().await;
    let key = |text: &str| CellKey::new(text).expect("valid");
    let value = || Some(Bytes::from_static(&[0, 0xff]));
    store.set_cell(&key("kept"), 0, value()).await.expect("set");
    store.set_cell(&key("kept"), 1, value()).await.expect("set");
    store.set_cell(&key("gone"), 0, value()).await.expect("set");
    store.set_cell(&key("gone"), 1, None).await.expect("removed");
    let store = fixture.reopen(store).await;
    let kept = store.cell(&key("kept")).await.expect("can be read").expect("was set");
    assert_eq!((kept.revision, Some(kept.value)), (2, value()));
    assert_eq!(store.cell(&key("gone")).await.expect("can be read"), None);
    refused!(store.set_cell(&key("kept"), 1, value()).await, CellError::Changed { actual: 2, .. });
    let again = store.set_cell(&key("gone"), 0, value()).await.expect("it does not exist");
    assert!(again > 2, "revision {again} was given before");
}
