//! What tools query about a store that can be inspected.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::future::Future;

use bytes::Bytes;
use es_framework::inspect::{Cursor, Inspect, List, Listed, Verified};
use es_framework::{
    Append, CellKey, ErrorKind, EventId, ExpectedVersion, Fingerprint, ProjectionName, Snapshot, Store, StoreError,
    StreamId, Tag,
};

use crate::fixture::Fixture;
use crate::support::{append, command, event, id, keyed, numbered, p, refused, stream, tag, text_id, v, write};

/// A store that contains something of everything.
async fn filled(fixture: &impl Fixture) -> Store {
    let store = fixture.open().await;
    write(&stream(&store, "account-alice"), numbered([1, 2, 3])).await;
    write(&stream(&store, "account-bob"), vec![keyed("same", "1")]).await;
    write(&stream(&store, "order-1"), vec![keyed("same", "1"), keyed("other", "2")]).await;
    for (key, name) in [("pay-1", Some("bank.pay")), ("pay-2", None), ("ship-1", Some("shop.ship"))] {
        let mut keyed = command(key, "x");
        keyed.name = name.map(Into::into);
        append(&store, Append::to(id("paid-1"), ExpectedVersion::Any, event("p")).command(keyed)).await;
    }
    for key in ["a", "b", "lease/x", "lease/y"] {
        store.set_cell(&cell_key(key), 0, Some(Bytes::from_static(b"value"))).await.expect("a new cell can be set");
    }
    store.set_cell(&cell_key("b"), 1, None).await.expect("a cell can be removed");
    for (of, name, at) in [("account-alice", "aggregate", 2), ("account-alice", "other", 3), ("@all", "totals", 5)] {
        let of = if of == "@all" { StreamId::all() } else { id(of) };
        let name = ProjectionName::new(name).expect("a valid name");
        let snapshot = Snapshot::new(of, name, at, Fingerprint::of(b"f"), &b"state"[..]);
        store.engine().save_snapshot(snapshot).await.expect("it is not beyond the end");
    }
    store
}

fn cell_key(key: &str) -> CellKey {
    CellKey::new(key).expect("a test's cell keys are valid")
}

fn inspect(store: &Store) -> &dyn Inspect {
    store.engine().inspect().expect("this group is for engines that can be inspected")
}

/// All entries of a list, requested in pages of one, of three and of all, which must agree.
async fn all<T, F>(prefix: &str, page: impl Fn(List) -> F) -> Vec<T>
where
    T: PartialEq + std::fmt::Debug,
    F: Future<Output = Result<Listed<T>, StoreError>> + Send,
{
    let mut answers = Vec::new();
    for limit in [1, 3, 1_000] {
        let (mut entries, mut list) = (Vec::new(), List::new().prefix(prefix).limit(limit));
        loop {
            let Listed { items, next, .. } = page(list.clone()).await.expect("the list can be read");
            assert!(items.len() <= limit, "a page holds {limit}");
            entries.extend(items);
            let Some(next) = next else { break };
            list = list.after(next);
        }
        answers.push(entries);
    }
    let all = answers.pop().expect("three answers");
    assert!(answers.iter().all(|pages| *pages == all), "pages differ from the whole: {answers:?} {all:?}");
    all
}

async fn verified(store: &Store) -> (u64, Vec<String>) {
    let (mut checked, mut findings, mut after) = (0, Vec::new(), None::<Cursor>);
    loop {
        let Verified { checked: rows, findings: found, next, .. } =
            inspect(store).verify(after.as_ref()).await.expect("the store can be read");
        checked += rows;
        findings.extend(found.iter().map(ToString::to_string));
        let Some(next) = next else { return (checked, findings) };
        after = Some(next);
    }
}

pub async fn inspect_counts_what_is_there(fixture: &impl Fixture) {
    let counts = inspect(&fixture.open().await).counts().await.expect("an empty store can be counted");
    assert_eq!((counts.head, counts.events, counts.streams, counts.types, counts.cells), (p(0), 0, 0, 0, 0));
    let counts = inspect(&filled(fixture).await).counts().await.expect("the store can be counted");
    assert_eq!((counts.head, counts.events, counts.streams), (p(9), 9, 4));
    assert_eq!((counts.commands, counts.cells, counts.snapshots), (3, 3, 3));
    assert!(counts.types >= 1);
}

pub async fn inspect_lists_streams_by_prefix_in_either_order(fixture: &impl Fixture) {
    let store = &filled(fixture).await;
    let names = |prefix: &'static str| async move {
        let streams = all(prefix, |list| async move { inspect(store).streams(&list).await }).await;
        streams.into_iter().map(|info| (info.stream.to_string(), info.version.get())).collect::<Vec<_>>()
    };
    let named = |streams: &[(&str, u64)]| streams.iter().map(|(s, v)| ((*s).to_owned(), *v)).collect::<Vec<_>>();
    let everything = [("account-alice", 3), ("account-bob", 1), ("order-1", 2), ("paid-1", 3)];
    assert_eq!(names("").await, named(&everything));
    assert_eq!(names("account-").await, named(&everything[..2]));
    assert_eq!(names("Account").await, []);
    assert_eq!(names("%").await, []);
    let newest = inspect(store).streams(&List::new().newest_first().limit(3)).await.expect("it can be read");
    let rest = inspect(store).streams(&List::new().newest_first().after(newest.next.clone())).await;
    let rest = rest.expect("it can be read");
    let order: Vec<String> = newest.items.into_iter().chain(rest.items).map(|info| info.stream.to_string()).collect();
    assert_eq!(order, ["paid-1", "order-1", "account-bob", "account-alice"]);
    assert_eq!(rest.next, None);
}

pub async fn inspect_lists_types_with_their_shapes(fixture: &impl Fixture) {
    let store = &filled(fixture).await;
    let shaped = es_framework::EventType::new("account.closed", 2, "bincode").expect("valid").with_shape("{cents:u64}");
    write(&stream(store, "account-bob"), es_framework::CandidateEvent::of_type(shaped.clone(), "x")).await;
    let types = all("account.", |list| async move { inspect(store).types(&list).await }).await;
    let [only] = &types[..] else { panic!("one type begins so: {types:?}") };
    assert_eq!((&**only, only.shape()), (&shaped, Some("{cents:u64}")));
    assert!(all("", |list| async move { inspect(store).types(&list).await }).await.len() > 1);
}

pub async fn inspect_lists_cells_snapshots_and_commands(fixture: &impl Fixture) {
    let store = &filled(fixture).await;
    let cells = all("", |list| async move { inspect(store).cells(&list).await }).await;
    let keys: Vec<_> = cells.iter().map(|cell| cell.key.as_str()).collect();
    assert_eq!(keys, ["a", "lease/x", "lease/y"], "a removed cell is not listed");
    assert_eq!(all("lease/", |list| async move { inspect(store).cells(&list).await }).await, cells[1..]);
    let snapshots = all("", |list| async move { inspect(store).snapshots(&list).await }).await;
    let places: Vec<_> = snapshots.iter().map(|s| (s.stream.as_str(), s.name.as_str(), s.at, s.bytes)).collect();
    let expected = [("@all", "totals", 5, 5), ("account-alice", "aggregate", 2, 5), ("account-alice", "other", 3, 5)];
    assert_eq!(places, expected);
    let commands = all("pay-", |list| async move { inspect(store).commands(&list).await }).await;
    let named: Vec<_> = commands.iter().map(|c| (c.command.key.as_str(), c.command.name.as_deref())).collect();
    assert_eq!(named, [("pay-1", Some("bank.pay")), ("pay-2", None)]);
    assert_eq!(all("", |list| async move { inspect(store).checkpoints(&list).await }).await, []);
}

pub async fn inspect_finds_events_by_id_in_every_stream(fixture: &impl Fixture) {
    let store = &filled(fixture).await;
    let found = |event_id: EventId| async move {
        let event_id = &event_id;
        let events = all("", |list| async move { inspect(store).events_with_id(event_id, &list).await }).await;
        events.iter().map(|event| (event.stream.to_string(), event.version)).collect::<Vec<_>>()
    };
    let both = [("account-bob".to_owned(), v(1)), ("order-1".to_owned(), v(1))];
    assert_eq!(found(text_id("same")).await, both);
    assert_eq!(found(text_id("none")).await, []);
    let derived = EventId::derived(store.id(), p(2));
    assert_eq!(found(derived).await, [("account-alice".to_owned(), v(2))]);
    assert_eq!(found(EventId::derived(store.id(), p(4))).await, [], "that event has an id of its own");
    assert_eq!(found(EventId::derived(es_framework::StoreId::random(), p(2))).await, [], "of another store");
}

pub async fn inspect_shows_the_tags_of_an_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), vec![keyed("one", "1").with_tags([tag("b:1"), tag("a:1")]), keyed("two", "2")]).await;
    for (event_id, tags) in [("one", vec!["b:1", "a:1"]), ("two", vec![])] {
        let events = inspect(&store).events_with_id(&text_id(event_id), &List::new()).await.expect("can be listed");
        let found: Vec<Vec<&str>> =
            events.items.iter().map(|event| event.tags.iter().map(Tag::as_str).collect()).collect();
        assert_eq!(found, [tags]);
    }
    let Verified { findings, .. } = inspect(&store).verify(None).await.expect("can be verified");
    assert!(findings.is_empty(), "{findings:?}");
}

pub async fn inspect_verifies_a_whole_store(fixture: &impl Fixture) {
    assert_eq!(verified(&fixture.open().await).await.1, [] as [String; 0]);
    let (checked, findings) = verified(&filled(fixture).await).await;
    assert_eq!(findings, [] as [String; 0]);
    assert!(checked >= 9, "{checked}");
}

pub async fn inspect_refuses_a_cursor_that_is_none(fixture: &impl Fixture) {
    let store = &filled(fixture).await;
    let error = inspect(store).streams(&List::new().after(Cursor::new("nonsense"))).await.expect_err("not a cursor");
    assert_eq!(error.kind(), ErrorKind::Caller);
    refused!(Err::<(), _>(error), StoreError::InvalidCursor { cursor } if cursor == "nonsense");
}
