//! Damage to what leads to the rows: their numbers, their pages, the indexes.
//!
//! Every result is the original, or a prefix of it followed by a typed error.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use es_conformance::bank::{Account, AccountEvent, Deposit};
use es_framework::engine::PAGE_SCAN;
use es_framework::{
    AppendError, ErrorKind, Event, ExpectedVersion, Filter, Position, Projection, Projector, Reader, Recorded,
    Repository, RunError, StateModel, StateTx, Store, StoreError, StoredEvent, Version,
};
use es_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::image::Image;
use crate::support::{event, folder, id, sql, with_id};

/// One in seven events.
#[derive(Debug, Clone, Event)]
#[es(name = "account.withdrawn")]
struct Withdrawn {
    cents: u64,
}

/// Remembers the positions it has seen.
struct Seen<E>(PhantomData<fn() -> E>);

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Positions(Vec<u64>);

impl<E: Event> Projector for Seen<E> {
    type Event = E;
    type Model = StateModel<Positions>;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "seen";

    fn project(&self, event: &Recorded<E>, seen: &mut StateTx<'_, Positions>) -> Result<(), Self::Error> {
        seen.0.push(event.position().get());
        Ok(())
    }
}

/// Returns everything that was read up to an error, and the error.
async fn read(reader: Reader) -> (Vec<StoredEvent>, Option<StoreError>) {
    let mut reading = reader.stream();
    let mut events = Vec::new();
    loop {
        match reading.next().await {
            Some(Ok(event)) => events.push(event),
            Some(Err(error)) => return (events, Some(error)),
            None => return (events, None),
        }
    }
}

/// Returns what a projection saw, and how it ended.
async fn project<E: Event>(store: &Store) -> (Vec<u64>, Option<StoreError>) {
    let model = StateModel::<Positions>::new(store);
    let name = format!("seen-{}", E::names().join("-"));
    let ended = Projection::new(store, Seen::<E>(PhantomData), model.clone()).named(name).catch_up().await;
    let error = match ended {
        Ok(_) => None,
        Err(RunError::Store(error)) => Some(error),
        Err(other) => panic!("{other:?}"),
    };
    (model.read(|seen| seen.0.clone()), error)
}

/// What a store returns, in order.
struct Answers {
    all: Vec<StoredEvent>,
    streams: Vec<(String, Vec<StoredEvent>)>,
}

const STREAMS: [&str; 4] = ["account-a", "account-b", "account-c", "account-d"];

/// Creates a store with `events` events in four streams, one in seven a withdrawal, and returns its contents.
async fn store_of(events: u64) -> (TempDir, PathBuf, Answers) {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut written = 0;
    while written < events {
        let batch = (7 + written % 5).min(events - written);
        let stream = STREAMS[usize::try_from(written % 4).unwrap()];
        let event = |n: u64| match n % 7 {
            3 => AccountEvent::Withdrawn { cents: 0 }.encode().unwrap(),
            _ => AccountEvent::Deposited { cents: n }.encode().unwrap(),
        };
        let events: Vec<_> = (written..written + batch).map(event).collect();
        store.stream(id(stream)).write(events, ExpectedVersion::Any).await.unwrap();
        written += batch;
    }
    let answers = Answers { all: read(store.all().read()).await.0, streams: streams_of(&store).await };
    assert_eq!(answers.all.len() as u64, events);
    store.close().await.unwrap();
    (folder, path, answers)
}

async fn streams_of(store: &Store) -> Vec<(String, Vec<StoredEvent>)> {
    let mut streams = Vec::new();
    for stream in STREAMS {
        streams.push((stream.to_owned(), store.stream(id(stream)).read().collect().await.unwrap()));
    }
    streams
}

fn is_corrupt(error: Option<&StoreError>) -> bool {
    matches!(error, Some(StoreError::Corrupt { .. }))
}

/// Checks that a result is the original, or a prefix of it followed by a typed error; returns whether it is the
/// original.
fn is_original(what: &str, found: &(Vec<StoredEvent>, Option<StoreError>), original: &[&StoredEvent]) -> bool {
    let (events, error) = found;
    assert!(events.len() <= original.len(), "{what}: more than there was");
    assert!(events.iter().eq(original[..events.len()].iter().copied()), "{what}: another answer");
    assert!(error.is_none() || is_corrupt(error.as_ref()), "{what}: {error:?}");
    assert!(error.is_some() || events.len() == original.len(), "{what}: {} of {}", events.len(), original.len());
    error.is_none()
}

/// Queries everything from a damaged store. Returns the number of events that `@all` gave before the error, if there
/// was one.
async fn ask(what: &str, path: &Path, answers: &Answers) -> Option<usize> {
    let store = match SqliteStore::builder().create(false).open(path).await {
        Ok(store) => store,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}");
            return Some(0);
        }
    };
    let original: Vec<&StoredEvent> = answers.all.iter().collect();
    let all = read(store.all().read()).await;
    let is_whole = is_original(what, &all, &original);
    let mut reversed = original.clone();
    reversed.reverse();
    is_original(what, &read(store.all().read().backward()).await, &reversed);
    let rare: Vec<_> = original.iter().copied().filter(|event| event.name() == "account.withdrawn").collect();
    is_original(what, &read(store.all().read().filter(Filter::new().types(["account.withdrawn"]))).await, &rare);
    let typed = Filter::new().type_like("%withdrawn");
    is_original(what, &read(store.all().read().filter(typed)).await, &rare);
    for (stream, events) in &answers.streams {
        let handle = store.stream(id(stream));
        let events: Vec<_> = events.iter().collect();
        is_original(what, &read(handle.read()).await, &events);
        if let Ok(version) = handle.version().await {
            assert_eq!(version.get(), events.len() as u64, "{what}: the version of {stream}");
        }
        let accounts = Repository::<Account>::new(&store);
        match accounts.load(&stream["account-".len()..]).await {
            Ok(account) => assert_eq!(account.version.get(), events.len() as u64, "{what}: the state of {stream}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}"),
        }
    }
    let (seen, error) = project::<AccountEvent>(&store).await;
    assert!(seen.iter().copied().eq(original.iter().take(seen.len()).map(|event| event.position.get())), "{what}");
    assert!(
        if seen.len() == original.len() { error.is_none() } else { is_corrupt(error.as_ref()) },
        "{what}: {error:?}"
    );
    assert_eq!(seen.len(), all.0.len(), "{what}: a projection comes as far as a reader");
    let (seen, error) = project::<Withdrawn>(&store).await;
    assert!(seen.iter().copied().eq(rare.iter().take(seen.len()).map(|event| event.position.get())), "{what}");
    assert!(if seen.len() == rare.len() { true } else { is_corrupt(error.as_ref()) }, "{what}: {error:?}");
    store.close().await.unwrap();
    (!is_whole).then_some(all.0.len())
}

/// A projection whose log had one flipped bit in the number of a row reported that it had caught up, with 187 of 1,650
/// events projected: the row was beyond the bound of the page, so SQLite stopped there.
#[tokio::test]
async fn a_flipped_bit_in_the_number_of_a_row_is_met_where_it_is() {
    let (_folder, path, answers) = store_of(1_650).await;
    let whole = Image::of(&path);
    for row in [1, 2, 127, 128, 188, 512, 1_000, 1_001, 1_649, 1_650] {
        let pages = whole.pages("es_event", "leaf");
        let field = pages.iter().flat_map(|page| whole.row_numbers(*page)).find(|field| field.value == row).unwrap();
        for bit in [0, 6, 8, 13] {
            let (byte, bit) = (bit / 8, bit % 8);
            if byte >= field.bytes {
                continue;
            }
            let mut image = Image::of(&path);
            image.bytes[field.at + byte] ^= 1 << bit;
            image.put();
            let what = format!("bit {bit} of byte {byte} in the number of row {row}");
            let read = ask(&what, &path, &answers).await;
            assert_eq!(read, Some(usize::try_from(row).unwrap() - 1), "{what}: all before it is read");
            whole.put();
        }
    }
    assert_eq!(ask("the whole file", &path, &answers).await, None);
}

/// A b-tree page that lost half of its cells led to short reads, wrong versions and wrong states.
#[tokio::test]
async fn a_page_that_lost_half_of_its_cells_is_noticed() {
    let (_folder, path, answers) = store_of(1_650).await;
    let whole = Image::of(&path);
    for (name, kind) in [
        ("es_event", "leaf"),
        ("es_event", "internal"),
        ("es_event_version", "leaf"),
        ("es_event_version", "internal"),
        ("es_stream", "leaf"),
        ("es_event_type", "leaf"),
    ] {
        let mut pages = whole.pages(name, kind);
        assert!(!pages.is_empty(), "{name} {kind}");
        // Rows lost at the end of the log: see below.
        if (name, kind) == ("es_event", "leaf") {
            pages.pop();
        }
        for page in pages.iter().step_by(pages.len().div_ceil(6)) {
            let mut image = Image::of(&path);
            image.halve(*page);
            image.put();
            let what = format!("half of the {kind} page at {page} of {name}");
            let read = ask(&what, &path, &answers).await;
            assert!(read.is_some() || name == "es_event_version", "{what} is noticed by a reader of everything");
            whole.put();
        }
    }
}

/// A row was removed from the middle of a stream: a command was decided on the state without it, with the right
/// version.
#[tokio::test]
async fn a_row_that_was_taken_out_is_missed() {
    let (_folder, path, answers) = store_of(200).await;
    let whole = Image::of(&path);
    for position in [1_u64, 2, 77, 199] {
        sql(&path).execute("DELETE FROM es_event WHERE position = ?1", [position.cast_signed()]).unwrap();
        let what = format!("without the row {position}");
        let store = SqliteStore::open(&path).await.unwrap();
        let error = store.all().read().collect().await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { position: Some(at), .. } if at == position), "{what}: {error}");
        let rest = store.all().read().after(Position::new(position)).collect().await.unwrap();
        assert_eq!(rest.len() as u64, 200 - position, "{what}: what lies behind it is read");
        let stream = &answers.all[usize::try_from(position).unwrap() - 1].stream;
        let accounts = Repository::<Account>::new(&store);
        let error = accounts.execute(&stream.as_str()["account-".len()..], Deposit(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}");
        store.close().await.unwrap();
        ask(&what, &path, &answers).await;
        whole.put();
    }
}

/// A damaged entry of the index over versions returned 4 of 6 events of a stream at version 6.
#[tokio::test]
async fn a_damaged_entry_of_the_index_over_versions_is_noticed() {
    let (_folder, path, answers) = store_of(60).await;
    let whole = Image::of(&path);
    let page = whole.pages("es_event_version", "leaf")[0];
    let mut noticed = 0;
    for cell in whole.cells(page).into_iter().step_by(4) {
        let entry = whole.entry(cell);
        for (field, column) in entry.iter().zip(["stream", "version", "position"]) {
            // The numbers 0 and 1 have no byte of their own.
            for bit in [0, 1, 3, 6].into_iter().filter(|_| field.bytes > 0) {
                let mut image = Image::of(&path);
                image.bytes[field.at] ^= 1 << bit;
                image.put();
                let what =
                    format!("bit {bit} of {column} in {:?}", entry.iter().map(|field| field.value).collect::<Vec<_>>());
                assert_eq!(ask(&what, &path, &answers).await, None, "{what}: the log itself is whole");
                let store = SqliteStore::open(&path).await.unwrap();
                for (stream, events) in &answers.streams {
                    let handle = store.stream(id(stream));
                    if !events.iter().any(|event| {
                        event.version.as_i64() == entry[1].value && event.position.as_i64() == entry[2].value
                    }) {
                        continue;
                    }
                    assert!(handle.read().collect().await.is_err(), "{what}: {stream}");
                    noticed += 1;
                }
                store.close().await.unwrap();
                whole.put();
            }
        }
    }
    assert!(noticed > 100, "{noticed}");
}

/// A damaged entry of the index over names returned another stream's events, or made the stream read as empty, so that
/// a retry of a known event was written again.
#[tokio::test]
async fn a_damaged_entry_of_the_index_over_names_is_noticed() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let names: Vec<String> = (0..40).map(|n| format!("s-{}{n:02}", char::from(b'a' + n % 7))).collect();
    for name in &names {
        store.stream(id(name)).write(with_id(name, name), ExpectedVersion::Any).await.unwrap();
    }
    store.close().await.unwrap();
    let whole = Image::of(&path);
    for (n, name) in names.iter().enumerate().skip(1).step_by(3) {
        let at = whole.find("sqlite_autoindex_es_stream_1", name.as_bytes());
        let number = at + name.len();
        assert_eq!(usize::from(whole.bytes[number]), n + 1);
        let changes = (0..name.len()).flat_map(|byte| [0, 2, 5].map(|bit| (at + byte, 1_u8 << bit)));
        for (at, flipped) in changes.chain([0, 1, 3, 4, 6].map(|bit| (number, 1 << bit))) {
            let mut image = Image::of(&path);
            image.bytes[at] ^= flipped;
            image.put();
            let what = format!("{flipped:#x} at {} of {name}", at.abs_diff(number));
            let store = SqliteStore::open(&path).await.unwrap();
            let stream = store.stream(id(name));
            assert!(is_corrupt(stream.read().collect().await.err().as_ref()), "{what}");
            assert!(is_corrupt(stream.version().await.err().as_ref()), "{what}");
            let again = stream.write(with_id(name, name), ExpectedVersion::Any).await;
            assert!(matches!(again, Err(AppendError::Store(StoreError::Corrupt { .. }))), "{what}: {again:?}");
            assert_eq!(store.all().read().collect().await.unwrap().len(), 40, "{what}: nothing was written again");
            for other in names.iter().filter(|other| *other != name) {
                match store.stream(id(other)).read().collect().await {
                    Ok(events) => assert_eq!(events.len(), 1, "{what}: {other}"),
                    Err(error) => assert!(is_corrupt(Some(&error)), "{what}: {other}: {error}"),
                }
            }
            store.close().await.unwrap();
            whole.put();
        }
    }
}

/// An event whose type had turned into another was skipped by typed readers and projections.
#[tokio::test]
async fn an_event_whose_type_is_another_is_not_passed_over() {
    for events in [60, 1_650] {
        let (_folder, path, _) = store_of(events).await;
        let (withdrawn, deposited): (i64, i64) = {
            let number = |name: &str| {
                let number = "SELECT id FROM es_event_type WHERE name = ?1";
                sql(&path).query_row(number, [name], |row| row.get(0)).unwrap()
            };
            (number("account.withdrawn"), number("account.deposited"))
        };
        let position = 4;
        let flips = (0..7).map(|bit| withdrawn ^ 1 << bit);
        // In a long stretch only flipped bits are noticed; see `docs/operations.md`.
        for becomes in flips.chain([99, -1]).chain((events < 500).then_some(deposited)) {
            let change = |becomes: i64| {
                let set = "UPDATE es_event SET type = ?1 WHERE position = ?2";
                sql(&path).execute(set, (becomes, position)).unwrap()
            };
            change(becomes);
            let store = SqliteStore::open(&path).await.unwrap();
            let what = format!("{events} events, {becomes} instead of {withdrawn}");
            let (seen, error) = project::<Withdrawn>(&store).await;
            assert!(is_corrupt(error.as_ref()) && seen.is_empty(), "{what}: {error:?}");
            let typed = store.all().read().filter(Filter::new().types(["account.withdrawn"])).collect().await;
            assert!(is_corrupt(typed.err().as_ref()), "{what}");
            store.close().await.unwrap();
            change(withdrawn);
        }
    }
}

/// A damaged event hid up to 999 intact ones before it on its page, and a watch that was resumed after the last intact
/// one failed immediately.
#[tokio::test]
async fn everything_before_a_damaged_event_is_read_and_watched() {
    let (_folder, path, answers) = store_of(2_500).await;
    let damage = "UPDATE es_event SET time = time + 1 WHERE position = 1700";
    sql(&path).execute_batch(damage).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let stream = answers.all[1_699].stream.clone();
    let version = answers.all[1_699].version.get();
    let at = |error: Option<StoreError>| match error {
        Some(StoreError::Corrupt { position: Some(position), .. }) => position.get(),
        other => panic!("{other:?}"),
    };
    for reader in [
        store.all().read(),
        store.all().read().page(300, 1 << 20),
        store.all().read().filter(Filter::new().category("account")),
        store.all().read().filter(Filter::new().types(["account.withdrawn", "account.deposited"])),
    ] {
        let (events, error) = read(reader.clone()).await;
        assert_eq!((events.len(), at(error)), (1_699, 1_700));
        let (events, error) = read(reader.backward()).await;
        assert_eq!((events.len(), at(error)), (800, 1_700));
    }
    let (events, error) = read(store.stream(stream.clone()).read()).await;
    assert_eq!((events.len() as u64, at(error)), (version - 1, 1_700));
    let (events, error) = read(store.stream(stream.clone()).read().filter(Filter::new().type_like("a%"))).await;
    assert_eq!((events.len() as u64, at(error)), (version - 1, 1_700));
    let (seen, error) = project::<AccountEvent>(&store).await;
    assert_eq!((seen.len(), at(error)), (1_699, 1_700));
    for (handle, place, count) in [
        (store.all(), 0, 1_699),
        (store.stream(stream), 0, version - 1),
        (store.all(), 1_699, 0),
        (store.all(), 1_000, 699),
    ] {
        let watch = handle.watch();
        let watch =
            if handle.id().is_all() { watch.after(Position::new(place)) } else { watch.after(Version::new(place)) };
        let mut watch = watch.await.unwrap();
        let mut watched = 0;
        let error = loop {
            match watch.next().await.unwrap() {
                Ok(_) => watched += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((watched, at(Some(error))), (count, 1_700), "after {place}");
    }
    let mut watch = store.all().watch().after(Position::new(1_700)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().position, 1_701);
    store.close().await.unwrap();
}

/// If rows were deleted, as a later release will do and record in its generation, the gaps are not reported as missing,
/// and damage to the remaining rows is still noticed.
#[tokio::test]
async fn rows_that_were_deleted_are_told_from_rows_that_are_missing() {
    let (_folder, path, answers) = store_of(1_650).await;
    crate::support::delete(&path, "position BETWEEN 1 AND 40 OR position BETWEEN 700 AND 900 OR position % 11 = 0");
    let left: Vec<_> = answers
        .all
        .iter()
        .filter(|event| match event.position.get() {
            1..=40 | 700..=900 => false,
            n => n % 11 != 0,
        })
        .collect();
    let rare: Vec<_> = left.iter().copied().filter(|event| event.name() == "account.withdrawn").collect();
    let filter = || Filter::new().types(["account.withdrawn"]);
    let whole = Image::of(&path);
    let mut damaged = vec![None];
    for page in whole.pages("es_event", "leaf") {
        let numbers = whole.row_numbers(page);
        damaged.push(Some(numbers[numbers.len() / 2]));
    }
    damaged.push(whole.row_numbers(*whole.pages("es_event", "leaf").last().unwrap()).last().copied());
    for field in damaged {
        let mut image = Image::of(&path);
        if let Some(field) = field {
            image.bytes[field.at + field.bytes - 1] ^= 4;
            image.put();
        }
        let what = format!("{field:?}");
        let store = SqliteStore::open(&path).await.unwrap();
        let mut reversed = left.clone();
        reversed.reverse();
        let all = is_original(&what, &read(store.all().read()).await, &left);
        assert_eq!(all, field.is_none(), "{what}");
        is_original(&what, &read(store.all().read().backward()).await, &reversed);
        is_original(&what, &read(store.all().read().filter(filter())).await, &rare);
        store.close().await.unwrap();
        whole.put();
    }
}

/// Typed readers skip long stretches without reading each row: the rows are counted.
#[tokio::test]
async fn rows_that_are_missing_between_wanted_ones_are_missed_too() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let typed = |name: &str| es_framework::CandidateEvent::new(name, "x").unwrap();
    let stream = store.stream(id("s-1"));
    for batch in 0..30 {
        stream.write(vec![event("x"); 900], ExpectedVersion::Any).await.unwrap();
        if batch % 10 == 9 {
            stream.write(typed("rare"), ExpectedVersion::Any).await.unwrap();
        }
    }
    store.close().await.unwrap();
    let whole = Image::of(&path);
    let leaves = whole.pages("es_event", "leaf");
    assert!(leaves.len() > 100);
    let filter = || Filter::new().types(["rare"]);
    for (place, is_forward) in [(0, true), (1, false), (leaves.len() / 2, true), (leaves.len() - 2, false)] {
        let mut image = Image::of(&path);
        image.halve(leaves[place]);
        image.put();
        let store = SqliteStore::open(&path).await.unwrap();
        for reader in [store.all().read(), store.stream(id("s-1")).read()] {
            let reader = reader.filter(filter());
            let (events, error) = read(if is_forward { reader } else { reader.backward() }).await;
            assert!(is_corrupt(error.as_ref()) && events.len() <= 3, "page {place}: {error:?}");
        }
        let error = store.all().read().filter(filter()).collect().await.unwrap_err();
        assert!(is_corrupt(Some(&error)), "{error}");
        store.close().await.unwrap();
        whole.put();
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let (events, error) = read(store.all().read().filter(filter())).await;
    assert!(error.is_none() && events.len() == 3 && PAGE_SCAN < 27_000);
    store.close().await.unwrap();
}

/// A stream lost its last entries, or its last rows: a command was decided on half of its events, with the right
/// version, and its events took the places of others.
#[tokio::test]
async fn what_was_lost_at_the_end_of_the_log_is_missed() {
    for (streams, name) in [(1, "es_event"), (1, "es_event_version"), (3, "es_event"), (3, "es_event_version")] {
        let (_folder, path) = folder();
        let store = SqliteStore::open(&path).await.unwrap();
        for n in 0..24_u64 {
            let deposited = AccountEvent::Deposited { cents: n }.encode().unwrap();
            store
                .stream(id(STREAMS[usize::try_from(n % streams).unwrap()]))
                .write(deposited, ExpectedVersion::Any)
                .await
                .unwrap();
        }
        store.close().await.unwrap();
        let mut image = Image::of(&path);
        let leaf = *image.pages(name, "leaf").last().unwrap();
        image.halve(leaf);
        image.put();
        let what = format!("{streams} streams, half of the last page of {name}");
        let store = SqliteStore::open(&path).await.unwrap();
        let (all, error) = read(store.all().read()).await;
        if name == "es_event" {
            assert!(is_corrupt(error.as_ref()) && !all.is_empty(), "{what}: {} {error:?}", all.len());
            let (seen, error) = project::<AccountEvent>(&store).await;
            assert!(is_corrupt(error.as_ref()) && seen.len() == all.len(), "{what}: {error:?}");
        }
        let mut noticed = 0;
        for stream in &STREAMS[..usize::try_from(streams).unwrap()] {
            let accounts = Repository::<Account>::new(&store);
            match accounts.execute(&stream["account-".len()..], Deposit(1)).await {
                Ok(receipt) => assert_eq!(receipt.version.get(), 24 / streams + 1, "{what}: {stream}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}");
                    noticed += 1;
                }
            }
        }
        assert!(noticed > 0, "{what}");
        store.close().await.unwrap();
    }
}

/// Reading the past of a stream of a million events went through all of them from the end; and a search that trusts a
/// damaged time ends at the wrong place.
#[tokio::test]
async fn the_past_is_found_by_a_search_that_a_damaged_time_does_not_mislead() {
    let (_folder, path) = folder();
    let clock = es_conformance::support::ManualClock::at(0);
    let store = SqliteStore::builder().clock(std::sync::Arc::new(clock.clone())).open(&path).await.unwrap();
    for n in 1..=120_i64 {
        clock.set(n * 10);
        for stream in ["a-1", "b-1"] {
            store.stream(id(stream)).write(event(n.to_string()), ExpectedVersion::Any).await.unwrap();
        }
    }
    let moment = es_framework::Timestamp::from_micros(405);
    let reader = |of: &str| store.stream(id(of)).read().as_of(moment);
    let (of_stream, of_all) = (read(reader("a-1")).await.0, read(reader("@all")).await.0);
    assert_eq!((of_stream.len(), of_all.len()), (40, 80));
    let plain = sql(&path);
    plain.execute("UPDATE es_event SET payload = x'00' WHERE position > 82", []).unwrap();
    for (of, whole) in [("a-1", &of_stream), ("@all", &of_all)] {
        let last = reader(of).backward().limit(1).collect().await.unwrap();
        assert_eq!(last.first(), whole.last(), "{of}: what came later is not looked at");
    }
    plain
        .execute("UPDATE es_event SET payload = CAST(CAST((position + 1) / 2 AS TEXT) AS BLOB) WHERE position > 82", [])
        .unwrap();
    let mut misled = 0;
    for position in 1..=240 {
        for time in [0, 400, 410, i64::MAX] {
            let before: i64 =
                plain.query_row("SELECT time FROM es_event WHERE position = ?1", [position], |row| row.get(0)).unwrap();
            plain.execute("UPDATE es_event SET time = ?2 WHERE position = ?1", (position, time)).unwrap();
            for (of, whole) in [("a-1", &of_stream), ("@all", &of_all)] {
                let whole: Vec<_> = whole.iter().collect();
                let what = format!("{of}: time {time} at {position}");
                misled += usize::from(!is_original(&what, &read(reader(of)).await, &whole));
            }
            plain.execute("UPDATE es_event SET time = ?2 WHERE position = ?1", (position, before)).unwrap();
        }
    }
    assert!(misled > 0);
    drop(plain);
    store.close().await.unwrap();
}
