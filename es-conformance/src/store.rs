//! F: the store as a whole, and its cells.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use bytes::Bytes;
use es_framework::{
    Append, AppendError, CellError, CellKey, CommandKey, ErrorKind, ExpectedVersion, ListCells, ListStreams,
    SnapshotError, StoreError,
};
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    append, command, event, id, log, numbered, p, poll_once, refused, stream, up_to, v, versions, within, write,
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
    let first = Append::to(id("a-1"), ExpectedVersion::NoStream, crate::support::keyed("one", "1"));
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

async fn log_of(store: &es_framework::Store) -> Result<usize, StoreError> {
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
