//! F: the store as a whole, and its cells.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use bytes::Bytes;
use es_framework::{
    Append, AppendError, CellError, CellKey, CommandKey, Conflict, ErrorKind, ExpectedVersion, InvalidAppend,
    ListCells, ListStreams, MAX_CELLS, Outcome, SnapshotError, Store, StoreError,
};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, Setup};
use crate::support::{
    append, command, event, exact, id, keyed, log, numbered, p, poll_once, refused, stream, up_to, v, versions, within,
    write,
};

fn key(text: &str) -> CellKey {
    CellKey::new(text).expect("a test's cell keys are valid")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub async fn f1_every_store_has_an_id_of_its_own(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    assert_ne!(one.id(), other.id());
    assert_eq!(one.id(), one.clone().id());
    assert_ne!(one.id().to_bytes(), [0; 16]);
}

pub async fn f1_two_stores_share_nothing(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let first = Append::to(id("a-1"), ExpectedVersion::NoStream, keyed("one", "1"));
    append(&one, first.clone().command(command("key", "one"))).await;
    one.all().snapshot("sum", p(1), "x").await.expect("saved");
    one.set_cell(&key("cell"), 0, Some(bytes("x"))).await.expect("set");
    assert!(log(&other).await.is_empty());
    assert_eq!(other.all().load_snapshot("sum").await.expect("can be loaded"), None);
    assert_eq!(other.cell(&key("cell")).await.expect("can be read"), None);
    let appended = append(&other, first.command(command("key", "two"))).await;
    assert!(!appended.was_known() && appended.position == p(1));
    assert_eq!(log(&one).await.len(), 1);
}

pub async fn f1_clones_of_a_handle_are_the_same_store(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let clone = store.clone();
    write(&stream(&store, "a-1"), event("x")).await;
    drop(store);
    assert_eq!(log(&clone).await.len(), 1);
}

pub async fn f3_a_closed_store_says_so_whatever_it_is_asked(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, numbered([1])).await;
    let id_before = store.id();
    within("closing", store.close()).await.expect("it can be closed");
    let error = account.write(event("2"), ExpectedVersion::Any).await.expect_err("the store is closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
    refused!(Err::<(), _>(error), AppendError::Store(StoreError::Closed));
    refused!(account.write(Vec::new(), ExpectedVersion::Any).await, AppendError::Store(StoreError::Closed));
    refused!(account.read().collect().await, StoreError::Closed);
    refused!(store.all().read().backward().collect().await, StoreError::Closed);
    refused!(account.version().await, StoreError::Closed);
    refused!(account.exists().await, StoreError::Closed);
    refused!(account.metrics().await, StoreError::Closed);
    refused!(store.streams(ListStreams::default()).await, StoreError::Closed);
    refused!(store.command(&CommandKey::new("key").expect("valid")).await, StoreError::Closed);
    refused!(account.snapshot("sum", v(1), "x").await, SnapshotError::Store(StoreError::Closed));
    refused!(account.load_snapshot("sum").await, StoreError::Closed);
    refused!(store.cell(&key("cell")).await, StoreError::Closed);
    refused!(store.cells(ListCells::new()).await, StoreError::Closed);
    refused!(store.set_cell(&key("cell"), 0, None).await, CellError::Store(StoreError::Closed));
    match account.watch().await {
        Err(StoreError::Closed) => {}
        Ok(mut watch) => crate::support::ends_closed(&mut watch).await,
        Err(other) => panic!("watching a closed store says {other}"),
    }
    if let Ok(mut watch) = store.all().watch().from_start().await {
        crate::support::ends_closed(&mut watch).await;
    }
    assert_eq!(store.id(), id_before, "the id is known without the store");
}

pub async fn f3_closing_twice_does_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let clone = store.clone();
    within("closing", store.close()).await.expect("it can be closed");
    within("closing again", store.close()).await.expect("closing twice is no error");
    within("closing a clone", clone.close()).await.expect("closing twice is no error");
    refused!(clone.all().read().collect().await, StoreError::Closed);
}

/// A close that was polled once and then kept held a lock, and a second close waited for it forever.
pub async fn f3_a_close_that_nobody_polls_keeps_no_other_from_closing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered([1])).await;
    let mut kept = Box::pin(store.close());
    drop(poll_once(kept.as_mut()).await);
    within("a second close", store.close()).await.expect("it closes");
    drop(kept);
}

pub async fn f3_closing_by_many_at_once_is_closing_once(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), event("x")).await;
    let mut closers = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        closers.spawn(async move { store.close().await.expect("it can be closed") });
    }
    within("closing", closers.join_all()).await;
    refused!(log_of(&store).await, StoreError::Closed);
}

async fn log_of(store: &Store) -> Result<usize, StoreError> {
    store.all().read().collect().await.map(|events| events.len())
}

pub async fn f3_a_write_beside_a_close_succeeds_or_says_closed(fixture: &impl Fixture) {
    for _ in 0..10 {
        let store = fixture.open().await;
        let mut writers = JoinSet::new();
        for n in 0..20_u64 {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..5 {
                    match stream(&store, &format!("s-{n}")).write(event("x"), ExpectedVersion::Any).await {
                        Ok(_) => {}
                        Err(AppendError::Store(StoreError::Closed)) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        tokio::task::yield_now().await;
        within("closing", store.close()).await.expect("it can be closed");
        within("the writers", writers.join_all()).await;
    }
}

pub async fn f3_a_half_read_reader_of_a_closed_store_ends(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered(1..=100)).await;
    let mut reading = store.all().read().page(10, 1 << 20).stream();
    reading.next().await.expect("there are events").expect("can be read");
    within("closing", store.close()).await.expect("it can be closed");
    let mut last = None;
    while let Some(event) = within("the rest", reading.next()).await {
        last = Some(event);
    }
    refused!(last.expect("there is more to read"), StoreError::Closed);
}

pub async fn cells_are_set_if_they_are_at_the_expected_revision(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let lease = key("lease/mailer");
    assert_eq!(store.cell(&lease).await.expect("can be read"), None);
    let first = store.set_cell(&lease, 0, Some(bytes("one"))).await.expect("it does not exist");
    assert_eq!(first, 1);
    let cell = store.cell(&lease).await.expect("can be read").expect("was set");
    assert_eq!((&cell.key, cell.revision, &cell.value[..]), (&lease, 1, &b"one"[..]));
    for wrong in [0, 2, u64::MAX] {
        let error = store.set_cell(&lease, wrong, Some(bytes("no"))).await.expect_err("it is at revision 1");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        refused!(
            Err::<u64, _>(error),
            CellError::Changed { key, expected, actual: 1 } if key == lease && expected == wrong,
        );
    }
    assert_eq!(store.set_cell(&lease, 1, Some(bytes("two"))).await.expect("it is at revision 1"), 2);
    let cell = store.cell(&lease).await.expect("can be read").expect("was set");
    assert_eq!((cell.revision, &cell.value[..]), (2, &b"two"[..]));
}

pub async fn cells_are_removed_and_never_get_an_old_revision_again(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let lease = key("lease");
    store.set_cell(&lease, 0, Some(bytes("one"))).await.expect("set");
    refused!(store.set_cell(&lease, 0, None).await, CellError::Changed { actual: 1, .. });
    store.set_cell(&lease, 1, None).await.expect("removed");
    assert_eq!(store.cell(&lease).await.expect("can be read"), None);
    refused!(store.set_cell(&lease, 1, Some(bytes("x"))).await, CellError::Changed { expected: 1, actual: 0, .. });
    refused!(store.set_cell(&lease, 2, Some(bytes("x"))).await, CellError::Changed { actual: 0, .. });
    let again = store.set_cell(&lease, 0, Some(bytes("again"))).await.expect("it does not exist");
    assert!(again > 2, "revision {again} was given before");
    let cell = store.cell(&lease).await.expect("can be read").expect("was set");
    assert_eq!((cell.revision, &cell.value[..]), (again, &b"again"[..]));
}

pub async fn cells_are_apart_and_take_any_bytes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let values = [("a", Bytes::new()), ("A", Bytes::from(vec![0, 0xff, 0])), ("é☃", Bytes::from(vec![7; 200_000]))];
    for (name, value) in &values {
        store.set_cell(&key(name), 0, Some(value.clone())).await.expect("set");
    }
    for (name, value) in &values {
        let cell = store.cell(&key(name)).await.expect("can be read").expect("was set");
        assert_eq!((cell.revision, &cell.value), (1, value), "{name}");
    }
    assert!(log(&store).await.is_empty(), "a cell is no event");
}

pub async fn cells_are_listed_by_prefix_in_the_order_of_their_keys(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let listed = async |list: ListCells| {
        let cells = store.cells(list).await.expect("can be listed");
        cells.iter().map(|cell| cell.key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert!(listed(ListCells::new()).await.is_empty());
    // In an order that is neither theirs nor its reverse, and with keys that other collations would sort otherwise.
    let keys =
        ["lease/b", "é", "Lease/a", "lease/é", "lease", "lease/a", "lease0", "lease/B", "%", "lease/%", "zz", "☃"];
    for name in keys {
        store.set_cell(&key(name), 0, Some(bytes("x"))).await.expect("set");
    }
    store.set_cell(&key("lease/a"), 1, Some(bytes("two"))).await.expect("set again");
    store.set_cell(&key("lease/b"), 1, None).await.expect("removed");
    let mut sorted: Vec<_> = keys.into_iter().filter(|name| *name != "lease/b").collect();
    sorted.sort_unstable();
    assert_eq!(listed(ListCells::new()).await, sorted, "a removed cell is not listed, and bytes are compared");
    let leases = ["lease/%", "lease/B", "lease/a", "lease/é"];
    assert_eq!(listed(ListCells::new().prefix("lease/")).await, leases);
    assert_eq!(listed(ListCells::new().prefix("%")).await, ["%"], "a prefix is no pattern");
    assert!(listed(ListCells::new().prefix("lease/x")).await.is_empty());
    let cells = store.cells(ListCells::new().prefix("lease/a")).await.expect("can be listed");
    assert_eq!(cells, [store.cell(&key("lease/a")).await.expect("can be read").expect("was set")]);
    assert_eq!((cells[0].revision, &cells[0].value[..]), (2, &b"two"[..]));
    for size in 1..=5 {
        let mut pages = Vec::new();
        let mut list = ListCells::new().prefix("lease/").limit(size);
        loop {
            let page = store.cells(list.clone()).await.expect("can be listed");
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            list = list.after(last.key.clone());
            pages.extend(page.iter().map(|cell| cell.key.as_str().to_owned()));
        }
        assert_eq!(pages, leases, "in pages of {size}");
    }
    assert_eq!(
        listed(ListCells::new().prefix("lease/").after(key("lease/b"))).await,
        leases[3..],
        "a cell that is gone"
    );
    assert_eq!(listed(ListCells::new().prefix("lease/").after(key("a"))).await, leases, "a key before the prefix");
    assert!(listed(ListCells::new().prefix("lease/").after(key("m"))).await.is_empty(), "a key after the prefix");
    assert!(listed(ListCells::new().limit(0)).await.is_empty());
}

/// All cells, as key, revision and value.
async fn cells_of(store: &Store) -> Vec<(String, u64, Bytes)> {
    let cells = store.cells(ListCells::new()).await.expect("can be listed");
    cells.into_iter().map(|cell| (cell.key.to_string(), cell.revision, cell.value)).collect()
}

fn cell(name: &str, revision: u64, value: &'static str) -> (String, u64, Bytes) {
    (name.to_owned(), revision, bytes(value))
}

pub async fn cells_are_set_by_an_append_together_with_its_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    store.set_cell(&key("b"), 0, Some(bytes("before"))).await.expect("set");
    store.set_cell(&key("gone"), 0, Some(bytes("before"))).await.expect("set");
    store.set_cell(&key("gone"), 1, None).await.expect("removed");
    let request = Append::to(id("s-1"), exact(0), numbered([1, 2]))
        .set_cell(key("a"), 0, Some(bytes("a")))
        .set_cell(key("b"), 1, Some(Bytes::new()))
        .set_cell(key("gone"), 0, Some(bytes("back")));
    let appended = append(&store, request).await;
    assert_eq!((appended.position, &appended.cells[..]), (p(2), &[1, 2, 3][..]), "a removed cell gets a new revision");
    assert_eq!(cells_of(&store).await, [cell("a", 1, "a"), cell("b", 2, ""), cell("gone", 3, "back")]);
    let removal = Append::to(id("s-1"), exact(2), numbered([3])).set_cell(key("b"), 2, None);
    assert_eq!(append(&store, removal).await.cells, [3]);
    assert_eq!(store.cell(&key("b")).await.expect("can be read"), None);
    assert_eq!(store.set_cell(&key("b"), 0, Some(bytes("x"))).await.expect("it does not exist"), 4);
    assert_eq!(log(&store).await.len(), 3);
}

pub async fn cells_and_events_of_an_append_are_written_together_or_not_at_all(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "s-1"), event("1")).await;
    store.set_cell(&key("a"), 0, Some(bytes("a"))).await.expect("set");
    let both = |version, revision| {
        Append::to(id("s-1"), exact(version), event("x")).set_cell(key("new"), 0, Some(bytes("new"))).set_cell(
            key("a"),
            revision,
            Some(bytes("x")),
        )
    };
    let error = store.append(both(1, 7)).await.expect_err("the cell is at revision 1");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let changed = |expected| Conflict::cell(key("a"), expected, 1);
    refused!(Err::<(), _>(error), AppendError::Conflict { conflicts } if conflicts == [changed(7)]);
    let conflict = store.append(both(3, 1)).await;
    refused!(conflict, AppendError::Conflict { conflicts } if conflicts == [Conflict::stream(id("s-1"), exact(3), v(1))]);
    // Every one is listed.
    let all = store.append(both(0, 0)).await;
    let stale = Conflict::stream(id("s-1"), exact(0), v(1));
    refused!(all, AppendError::Conflict { conflicts } if conflicts == [stale.clone(), changed(0)]);
    assert_eq!(cells_of(&store).await, [cell("a", 1, "a")], "no cell was set");
    assert_eq!(log(&store).await.len(), 1, "no event was written");
    append(&store, both(1, 1)).await;
    assert_eq!(cells_of(&store).await, [cell("a", 2, "x"), cell("new", 1, "new")]);
}

pub async fn cells_can_be_set_by_an_append_without_events(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "s-1"), event("1")).await;
    let two = || Append::default().set_cell(key("a"), 0, Some(bytes("a"))).set_cell(key("b"), 0, Some(bytes("b")));
    let appended = append(&store, two()).await;
    assert_eq!((appended.outcome, appended.position, appended.streams.len()), (Outcome::Written, p(1), 0));
    assert_eq!(appended.cells, [1, 1]);
    refused!(store.append(two()).await, AppendError::Conflict { conflicts } if conflicts.len() == 2);
    let checked = |version| Append::default().check(id("s-1"), exact(version)).set_cell(key("a"), 1, None);
    refused!(store.append(checked(2)).await, AppendError::Conflict { conflicts } if conflicts.len() == 1);
    assert_eq!(append(&store, checked(1)).await.cells, [2]);
    assert_eq!(cells_of(&store).await, [cell("b", 1, "b")]);
    assert_eq!(log(&store).await.len(), 1);
}

pub async fn cells_are_not_set_again_by_a_retry(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let by_id = || Append::to(id("s-1"), exact(0), keyed("one", "1")).set_cell(key("a"), 0, Some(bytes("a")));
    let by_key = || Append::default().command(command("key", "x")).set_cell(key("b"), 0, Some(bytes("b")));
    for request in [by_id(), by_key()] {
        assert_eq!(append(&store, request).await.cells, [1]);
    }
    // Meanwhile others set them.
    for name in ["a", "b"] {
        assert_eq!(store.set_cell(&key(name), 1, Some(bytes("later"))).await.expect("set"), 2);
    }
    for request in [by_id(), by_key(), by_id().command(command("another", "x"))] {
        let again = append(&store, request).await;
        assert!(again.was_known() && again.cells.is_empty(), "{again:?}");
    }
    assert_eq!(cells_of(&store).await, [cell("a", 2, "later"), cell("b", 2, "later")]);
    let record =
        store.command(&CommandKey::new("key").expect("valid")).await.expect("can be read").expect("remembered");
    assert!(record.appended.cells.is_empty(), "they are not part of the record");
    // Without ids and keys the revision itself tells a retry from a first attempt.
    let plain = || Append::to(id("s-2"), ExpectedVersion::Any, event("1")).set_cell(key("c"), 0, Some(bytes("c")));
    append(&store, plain()).await;
    refused!(store.append(plain()).await, AppendError::Conflict { .. });
    assert_eq!(stream(&store, "s-2").version().await.expect("can be read"), 1);
}

pub async fn cells_of_an_append_are_refused_if_they_cannot_be_valid(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.append_bytes = 1_000)).await;
    let twice = Append::default().set_cell(key("a"), 0, None).set_cell(key("b"), 0, None).set_cell(key("a"), 1, None);
    refused!(store.append(twice).await, AppendError::Invalid(InvalidAppend::CellTwice { key: twice }) if twice == key("a"));
    let many = |cells: usize| {
        (0..cells).fold(Append::default(), |many, n| many.set_cell(key(&n.to_string()), 0, Some(Bytes::new())))
    };
    let limit = MAX_CELLS;
    refused!(
        store.append(many(limit + 1)).await,
        AppendError::Invalid(InvalidAppend::TooManyCells { cells, limit: said }) if (cells, said) == (limit + 1, limit),
    );
    assert!(cells_of(&store).await.is_empty());
    assert_eq!(append(&store, many(limit)).await.cells, vec![1; limit]);
    let large = Append::to(id("s-1"), ExpectedVersion::Any, event("x")).set_cell(
        key("large"),
        0,
        Some(Bytes::from(vec![0; 1_000])),
    );
    refused!(store.append(large).await, AppendError::Invalid(InvalidAppend::TooManyBytes { limit: 1_000, .. }));
    assert!(log(&store).await.is_empty());
}

pub async fn cells_set_by_appends_of_many_at_once_count_what_they_wrote(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..10_u64 {
                loop {
                    let cell = store.cell(&key("count")).await.expect("can be read");
                    let revision = cell.map_or(0, |cell| cell.revision);
                    let request = Append::to(id(&format!("s-{writer}")), exact(n), event("x"))
                        .set_cell(key("count"), revision, Some(Bytes::from((revision + 1).to_string())))
                        .set_cell(key(&format!("own-{writer}")), n, Some(Bytes::from(n.to_string())));
                    match store.append(request).await {
                        Ok(appended) => break assert_eq!(appended.cells, [revision + 1, n + 1]),
                        Err(AppendError::Conflict { conflicts }) => {
                            assert!(matches!(&conflicts[..], [Conflict::Cell { .. }]), "{conflicts:?}");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    within("the writers", writers.join_all()).await;
    let count = store.cell(&key("count")).await.expect("can be read").expect("was set");
    assert_eq!((count.revision, &count.value[..]), (60, &b"60"[..]), "one for each append that was written");
    assert_eq!(log(&store).await.len(), 60);
}

pub async fn cells_set_by_many_at_once_are_won_by_one(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut setters = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        setters.spawn(async move {
            let mut won = Vec::new();
            while won.len() < 10 {
                let counter = key("counter");
                let revision = store.cell(&counter).await.expect("can be read").map_or(0, |cell| cell.revision);
                match store.set_cell(&counter, revision, Some(bytes("x"))).await {
                    Ok(revision) => won.push(revision),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
            won
        });
    }
    let mut won: Vec<_> = setters.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    assert_eq!(won, up_to(80), "each revision was won once");
}

pub async fn cells_and_appends_go_on_beside_each_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let (writing, setting) = (store.clone(), store.clone());
        tasks.spawn(async move {
            for _ in 0..25 {
                write(&stream(&writing, &format!("s-{n}")), event("x")).await;
            }
        });
        tasks.spawn(async move {
            for revision in 0..25 {
                let own = key(&format!("cell-{n}"));
                assert_eq!(
                    setting.set_cell(&own, revision, Some(bytes("x"))).await.expect("nobody else"),
                    revision + 1
                );
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(versions(&stream(&store, "s-0").read().collect().await.expect("can be read")), up_to(25));
}
