//! Tags in a file: how they are stored, when the file changes for them, and who may write it then.

use std::time::Duration;

use es_framework::{
    Append, AppendError, CandidateEvent, Conflict, Criterion, ExpectedVersion, Filter, Position, Query, Store,
    StoreError, StoredEvent, Tag,
};
use es_sqlite::SqliteStore;
use es_sqlite::rusqlite::types::Value;

use crate::support::{all, event, folder, id, on_writer, sql, write};

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

pub(crate) fn tagged(payload: &str, tags: &[&str]) -> CandidateEvent {
    event(payload).with_tags(tags.iter().map(|text| tag(text)))
}

pub(crate) fn with_tags(tags: &[&str]) -> Query {
    Criterion::tags(tags.iter().map(|text| tag(text))).into()
}

pub(crate) async fn query(store: &Store, query: Query) -> Result<Vec<StoredEvent>, StoreError> {
    store.all().read().filter(Filter::new().query(query)).collect().await
}

pub(crate) async fn write_tagged(store: &Store, stream: &str, payload: &str, tags: &[&str]) -> Position {
    let written = store.stream(id(stream)).write(tagged(payload, tags), ExpectedVersion::Any).await;
    written.unwrap().position
}

fn format(path: &std::path::Path) -> i64 {
    sql(path).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

fn positions(events: &[StoredEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.get()).collect()
}

#[tokio::test]
async fn tags_are_stored_as_the_docs_say() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "before").await;
    assert_eq!(format(&path), 1, "as before there were tags");
    write_tagged(&store, "s-1", "one", &["course:db-101"]).await;
    write_tagged(&store, "s-1", "several", &["student:ann", "course:db-101", "größe:\"☃\""]).await;
    write(&store, "s-1", "none").await;
    assert_eq!(format(&path), 2);
    let plain = sql(&path);
    let column = |sql: &str| -> Vec<Value> {
        let mut statement = plain.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(
        column("SELECT tags FROM es_event ORDER BY position"),
        [Value::Null, Value::Integer(1), text("2,1,3"), Value::Null]
    );
    assert_eq!(
        column("SELECT name FROM es_tag ORDER BY id"),
        [text("course:db-101"), text("student:ann"), text("größe:\"☃\"")]
    );
    assert_eq!(
        column("SELECT term || ' ' || position || ' ' || nth FROM es_posting ORDER BY term, position"),
        [text("-1 1 1"), text("1 2 1"), text("1 3 2"), text("2 3 1"), text("3 3 1")]
    );
    assert_eq!(
        column("SELECT tags FROM log ORDER BY position"),
        [
            Value::Null,
            text(r#"["course:db-101"]"#),
            text(r#"["student:ann","course:db-101","größe:\"☃\""]"#),
            Value::Null
        ]
    );
    assert_eq!(column("SELECT value FROM es_meta WHERE key = 'write_requires'"), [text("tags")]);
    drop(plain);
    let found = query(&store, with_tags(&["course:db-101"])).await.unwrap();
    assert_eq!(positions(&found), [2, 3]);
    assert_eq!(found[1].tags, ["student:ann", "course:db-101", "größe:\"☃\""]);
    store.close().await.unwrap();
    let store = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    assert_eq!(positions(&query(&store, with_tags(&["student:ann"])).await.unwrap()), [3]);
    store.close().await.unwrap();
}

/// The statement by which `docs/operations.md` has the postings made again; and events that were written before there
/// were any are found by their types.
#[tokio::test]
async fn postings_can_be_made_from_the_events() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let of = |n: usize| CandidateEvent::new(if n.is_multiple_of(700) { "rare" } else { "tested" }, "x").unwrap();
    let plain: Vec<_> = (0..3_000).map(of).collect();
    store.stream(id("s-1")).write(plain, ExpectedVersion::Any).await.unwrap();
    let more = (3_000..6_000).map(|n| of(n).with_tags([Tag::of("n", n % 7).unwrap(), Tag::of("m", n % 3).unwrap()]));
    store.stream(id("s-1")).write(more.collect::<Vec<_>>(), ExpectedVersion::Any).await.unwrap();
    let check = async |store: &Store| {
        let rare = query(store, Criterion::types(["rare"]).into()).await.unwrap();
        assert_eq!(positions(&rare), (0..6_000).step_by(700).map(|n| n + 1).collect::<Vec<_>>());
        let some = query(store, Criterion::types(["rare"]).tag(tag("n:0")).into()).await.unwrap();
        assert_eq!(positions(&some), [3_501, 4_201, 4_901, 5_601]);
        assert_eq!(crate::tag_damage::findings(store).await, [""; 0]);
    };
    check(&store).await;
    store.close().await.unwrap();
    let contents = || -> Vec<(i64, i64, i64)> {
        let plain = sql(&path);
        let mut statement = plain.prepare("SELECT term, position, nth FROM es_posting ORDER BY 1, 2").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let before = contents();
    assert_eq!(before.iter().filter(|(term, ..)| *term < 0).count(), 6 + 6, "a posting per type and block");
    let docs = include_str!("../../../docs/operations.md");
    let (_, statement) = docs.split_once("```sql\nBEGIN IMMEDIATE;\nDELETE FROM es_posting;").unwrap();
    let (statement, _) = statement.split_once("```").unwrap();
    sql(&path).execute_batch(&format!("BEGIN IMMEDIATE; DELETE FROM es_posting; {statement}")).unwrap();
    assert_eq!(contents(), before);
    let store = SqliteStore::open(&path).await.unwrap();
    check(&store).await;
    store.close().await.unwrap();
}

/// Nothing changes in a store that has no tags, whatever is asked of it: a release without tags still opens it.
#[tokio::test]
async fn a_store_without_tags_stays_what_it_was() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    let none = with_tags(&["course:db-101"]);
    assert_eq!(query(&store, none.clone()).await.unwrap(), []);
    assert_eq!(query(&store, none.clone().or(Criterion::types(["tested"]))).await.unwrap().len(), 1);
    store.append(Append::default().unless(none.clone(), Position::ZERO)).await.unwrap();
    let conflict = store.append(Append::default().unless(Query::all(), Position::ZERO)).await.unwrap_err();
    let AppendError::Conflict { conflicts } = conflict else { panic!("{conflict:?}") };
    assert!(matches!(&conflicts[..], [Conflict::Condition { position, .. }] if *position == 1), "{conflicts:?}");
    store.close().await.unwrap();
    for read_only in [true, false] {
        let store = SqliteStore::builder().read_only(read_only).open(&path).await.unwrap();
        assert_eq!(query(&store, none.clone()).await.unwrap(), []);
        store.close().await.unwrap();
    }
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('es_tag', 'es_posting')";
    assert_eq!(sql(&path).query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert_eq!(format(&path), 1);
}

/// The first tags change tables that others have open, read from and write to.
#[tokio::test]
async fn one_process_adds_the_first_tags_while_others_have_the_file_open() {
    let (_folder, path) = folder();
    let [store, other] = [SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let reader = SqliteStore::builder().read_only(true).open(&path).await.unwrap();
    let course = with_tags(&["course:db-101"]);
    for store in [&store, &other] {
        write(store, "s-1", "x").await;
        assert_eq!(query(store, course.clone()).await.unwrap(), []);
        store.append(Append::default().unless(course.clone(), Position::ZERO)).await.unwrap();
    }
    assert_eq!(all(&reader).await.len(), 2);
    let mut watch = other.all().watch().filter(Filter::new().query(course.clone())).await.unwrap();
    let mut watch_reader = reader.all().watch().await.unwrap();
    write_tagged(&store, "s-1", "y", &["course:db-101"]).await;
    let told = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((told.position.get(), told.tags.as_slice()), (3, &[tag("course:db-101")][..]));
    let told = tokio::time::timeout(Duration::from_secs(10), watch_reader.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.tags, ["course:db-101"]);
    // The other one's writer knew that there is no such event, and its connections that there is no such table.
    let stale = Append::to(id("s-2"), ExpectedVersion::Any, tagged("z", &["course:db-101"]));
    let refused = other.append(stale.clone().unless(course.clone(), Position::new(2))).await.unwrap_err();
    assert!(
        matches!(&refused, AppendError::Conflict { conflicts } if matches!(conflicts[..],
        [Conflict::Condition { position, .. }] if position == 3)),
        "{refused:?}"
    );
    other.append(stale.unless(course.clone(), Position::new(3))).await.unwrap();
    write(&other, "s-1", "untagged").await;
    for store in [&*store, &*other, &*reader] {
        assert_eq!(positions(&query(store, course.clone()).await.unwrap()), [3, 4]);
        assert_eq!(all(store).await.len(), 5);
    }
    for store in [store, other, reader] {
        store.close().await.unwrap();
    }
}

/// A group that brings the first tags and fails leaves the file as it was, and the writer knows it.
#[tokio::test]
async fn the_first_tags_are_rolled_back_with_their_group() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, "s-1", "x").await;
    on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 10), [], |row| row.get::<_, i64>(0))
    })
    .await;
    let large = tagged(&"x".repeat(1 << 20), &["a:1", "b:2"]);
    for _ in 0..2 {
        let events = [tagged("small", &["b:2"]), large.clone()];
        let refused = store.stream(id("s-1")).write(events, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(refused, AppendError::Store(StoreError::DiskFull { .. })), "{refused:?}");
        assert_eq!(format(&path), 1);
        assert_eq!(query(&store, with_tags(&["b:2"])).await.unwrap(), []);
        store.append(Append::default().unless(with_tags(&["b:2"]), Position::ZERO)).await.unwrap();
        write(&store, "s-1", "untagged").await;
    }
    on_writer(&store, |connection| {
        connection.query_row("PRAGMA max_page_count = 100000", [], |row| row.get::<_, i64>(0))
    })
    .await;
    write_tagged(&store, "s-1", "y", &["b:2"]).await;
    write_tagged(&store, "s-1", "z", &["a:1"]).await;
    for reopened in [false, true] {
        let store = if reopened { SqliteStore::open(&path).await.unwrap() } else { store.clone() };
        assert_eq!(positions(&query(&store, with_tags(&["b:2"])).await.unwrap()), [4]);
        assert_eq!(positions(&query(&store, with_tags(&["a:1"])).await.unwrap()), [5]);
        let conflict = store.append(Append::default().unless(with_tags(&["a:1"]), Position::new(4))).await;
        assert!(matches!(conflict, Err(AppendError::Conflict { .. })), "{conflict:?}");
        store.close().await.unwrap();
    }
}

/// A group that is rolled back had numbered tags that nobody has now: their numbers are given to others.
#[tokio::test]
async fn no_tag_of_a_group_that_was_rolled_back_is_remembered() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    write_tagged(&store, "s-1", "x", &["a:0"]).await;
    let pages = on_writer(&store, |connection| {
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 10), [], |row| row.get::<_, i64>(0))
    });
    pages.await;
    let events = [tagged("x", &["b:1", "a:0"]), tagged("x", &["b:2"]), tagged(&"x".repeat(1 << 20), &["a:0"])];
    for _ in 0..3 {
        let refused = store.stream(id("s-1")).write(events.clone(), ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(refused, AppendError::Store(StoreError::DiskFull { .. })), "{refused:?}");
        // None of them is there, and none of them is known.
        let none = with_tags(&["b:1"]).or_all(with_tags(&["b:2"])).or_all(with_tags(&["a:0", "b:1"]));
        store.append(Append::default().unless(none, Position::ZERO)).await.unwrap();
        store.append(Append::default().unless(with_tags(&["a:0"]), Position::new(1))).await.unwrap();
    }
    write_tagged(&store, "s-1", "y", &["b:2", "c:3"]).await;
    write_tagged(&store, "s-1", "y", &["b:1", "a:0"]).await;
    for reopened in [false, true] {
        let store = if reopened { SqliteStore::open(&path).await.unwrap() } else { store.clone() };
        for (tag, expected) in [("a:0", &[1, 3][..]), ("b:1", &[3]), ("b:2", &[2]), ("c:3", &[2])] {
            assert_eq!(positions(&query(&store, with_tags(&[tag])).await.unwrap()), expected, "{tag}");
        }
        store.close().await.unwrap();
    }
}

/// A retry is recognised although its own event now makes its condition fail, and although the rows are wider now.
#[tokio::test]
async fn a_retry_of_a_tagged_append_is_known() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.unwrap();
    let event = |n: usize| crate::support::with_id("x", &n.to_string()).with_tags([tag("a:1"), tag("b:1")]);
    for n in 0..3 {
        let after = Position::new(n as u64);
        let append = Append::to(id("s-1"), ExpectedVersion::Any, event(n)).unless(with_tags(&["a:1"]), after);
        assert!(!store.append(append.clone()).await.unwrap().was_known());
        assert!(store.append(append.clone()).await.unwrap().was_known());
    }
    store.close().await.unwrap();
}
