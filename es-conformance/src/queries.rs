//! I2: queries over types and tags, in reads, counts and watches.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::engine::PAGE_SCAN;
use es_framework::{
    Append, AppendError, Criterion, ExpectedVersion, Filter, InvalidAppend, InvalidQuery, Query, Store, StoreError,
    StoredEvent, Tag,
};
use tokio::task::JoinSet;

use crate::fixture::{Fixture, Setup};
use crate::support::{
    ManualClock, Recording, a_page, append, at, begin, event, found, id, idle, log, next, numbered, p, positions,
    refused, stream, tag, tagged, tags_of, take, texts, typed, up_to, v, write,
};

/// Tags and types that a careless query would mix up. One event per position, ten microseconds apart.
async fn a_log_of_lookalikes(fixture: &impl Fixture) -> Store {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let types = ["opened", "Opened", "opened.v2", "open", "course:1"];
    let tags: [&[&str]; 9] = [
        &["course:1"],
        &["course:1", "student:1"],
        &["course:11", "student:1"],
        &["student:1", "course:1", "term:1"],
        &[],
        &["course:2", "student:2"],
        &["Course:1", "course:1 ", "cours:e:1"],
        &["student:2", "course:1"],
        &["1:course", "opened:opened", "course:opened"],
    ];
    for n in 0..135 {
        clock.set(i64::try_from(n).unwrap_or(0) * 10 + 10);
        let event = typed(types[n % types.len()], n.to_string()).with_tags(tags_of(tags[n / types.len() % tags.len()]));
        write(&stream(&store, ["a-1", "a-2", "b-1", "b"][n % 4]), event).await;
    }
    store
}

fn queries() -> Vec<Query> {
    let (course, student, term) = (|| tag("course:1"), || tag("student:1"), || tag("term:1"));
    let mut queries = vec![
        Query::new(),
        Query::all(),
        Query::all().or(Criterion::tags([course()])),
        Query::new().or_all(Query::all()),
        Criterion::any().into(),
        Criterion::types(["never"]).tag(course()).into(),
        Criterion::types(["never"]).into(),
        Criterion::tags([tag("never:1")]).into(),
        Criterion::tags([course(), tag("never:1")]).into(),
        Criterion::tags([course(), course()]).into(),
        Criterion::types(["opened", "opened", "never"]).into(),
        Criterion::types(["opened", "opened"]).tag(course()).into(),
    ];
    let types: [&[&str]; 5] = [&[], &["opened"], &["opened", "open"], &["Opened", "never"], &["course:1", "opened.v2"]];
    let tags = [vec![], vec![course()], vec![student(), course()], vec![term()], vec![tag("course:11")]];
    let criteria =
        types.iter().flat_map(|types| tags.iter().map(|tags| Criterion::types(types.iter().copied()).all_of(tags)));
    let criteria: Vec<_> = criteria.collect();
    // Every criterion alone, and each with each other one.
    for a in &criteria {
        queries.push(a.clone().into());
        queries.extend(criteria.iter().step_by(3).map(|b| Query::from(a.clone()).or(b.clone())));
    }
    queries.push(criteria.into_iter().collect());
    queries
}

/// Checks every query, on `@all` and on streams, in both directions, against the log itself and the one evaluator.
pub async fn i2_every_query_answers_what_the_evaluator_says(fixture: &impl Fixture) {
    let store = a_log_of_lookalikes(fixture).await;
    let everything = log(&store).await;
    let handles = ["@all", "a-1", "b", "missing-1"].map(|name| stream(&store, name));
    let mut matched = 0;
    for query in queries() {
        for handle in &handles {
            let of_stream = |event: &&StoredEvent| handle.id().is_all() || event.stream == *handle.id();
            let expected: Vec<_> =
                everything.iter().filter(of_stream).filter(|event| query.matches(&event.header())).collect();
            matched += expected.len();
            let reader = handle.read().filter(Filter::new().query(&query));
            let read = reader.clone().await.expect("can be read");
            assert_eq!(positions(&read), positions(expected.iter().copied()), "{} by {query}", handle.id());
            assert!(read.iter().eq(expected.iter().copied()), "the events are whole");
            let backward = reader.clone().backward().page(3, 1 << 20).collect().await.expect("can be read");
            let reversed = positions(expected.iter().rev().copied());
            assert_eq!(positions(&backward), reversed, "{} backward in small pages by {query}", handle.id());
            let small = reader.clone().page(2, 1 << 20).collect().await.expect("can be read");
            assert_eq!(positions(&small), positions(&read), "{} in small pages by {query}", handle.id());
            assert_eq!(reader.count().await.expect("can be counted"), expected.len() as u64, "{query}");
        }
    }
    assert!(matched > 5_000, "the queries matched hardly anything, {matched} events, so nothing was tested");
}

/// The evaluator has tests of its own; these few results are written down, so that it and the engine cannot both be
/// wrong in the same way.
pub async fn i2_the_answers_are_those_of_the_contract(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for (name, event_type, tags) in [
        ("course-1", "defined", &["course:1"][..]),
        ("course-2", "defined", &["course:2"]),
        ("student-1", "enrolled", &["student:1", "course:1"]),
        ("student-2", "enrolled", &["course:1", "student:2"]),
        ("student-1", "left", &["student:1", "course:1"]),
        ("student-1", "enrolled", &["student:1", "course:2"]),
        ("course-1", "closed", &["course:1"]),
        ("bank", "opened", &[]),
        ("course-12", "defined", &["course:12"]),
    ] {
        write(&stream(&store, name), tagged(event_type, tags)).await;
    }
    let (course, student) = (|n: u8| tag(&format!("course:{n}")), |n: u8| tag(&format!("student:{n}")));
    for (query, expected) in [
        (Query::new(), vec![]),
        (Query::all(), up_to(9)),
        (Criterion::tags([course(1)]).into(), vec![1, 3, 4, 5, 7]),
        (Criterion::tags([course(1), student(1)]).into(), vec![3, 5]),
        (Criterion::tags([student(1), course(1)]).into(), vec![3, 5]),
        (Criterion::types(["defined"]).into(), vec![1, 2, 9]),
        (Criterion::types(["defined", "closed"]).into(), vec![1, 2, 7, 9]),
        (Criterion::types(["defined", "closed"]).tag(course(1)).into(), vec![1, 7]),
        (Criterion::types(["enrolled"]).tag(course(1)).tag(student(2)).into(), vec![4]),
        // In whatever order the criteria are given, and an event that meets both is there once.
        (Query::new().or(Criterion::tags([student(1)])).or(Criterion::tags([course(1)])), vec![1, 3, 4, 5, 6, 7]),
        (Query::new().or(Criterion::tags([course(1)])).or(Criterion::tags([student(1)])), vec![1, 3, 4, 5, 6, 7]),
        (Query::new().or(Criterion::types(["closed"])).or(Criterion::types(["opened"])), vec![7, 8]),
        (Query::new().or(Criterion::types(["left"]).tag(course(2))).or(Criterion::types(["Defined"])), vec![]),
        (Criterion::tags([tag("course:3")]).into(), vec![]),
        (Criterion::tags([course(1), course(2)]).into(), vec![]),
    ] {
        let read = store.all().read().filter(Filter::new().query(&query)).await.expect("can be read");
        assert_eq!(positions(&read), expected, "{query}");
    }
}

pub async fn i2_a_tag_that_begins_with_another_is_another(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let texts = ["a:1", "a:11", "a:1:1", "a:1 ", "aa:1", "A:1", "a:2", "b:1", "a:\u{661}"];
    for text in texts {
        write(&stream(&store, "a-1"), tagged("noted", &[text])).await;
    }
    for (n, text) in (1..).zip(texts) {
        assert_eq!(found(&store, Criterion::tags([tag(text)])).await, [n], "{text:?}");
    }
}

pub async fn i2_a_query_goes_with_bounds_limits_and_other_clauses(fixture: &impl Fixture) {
    let store = a_log_of_lookalikes(fixture).await;
    let everything = log(&store).await;
    let query = || Query::from(Criterion::tags([tag("course:1")])).or(Criterion::types(["open"]));
    let matching: Vec<_> = everything.iter().filter(|event| query().matches(&event.header())).collect();
    let reader = || store.all().read().filter(Filter::new().query(query()));
    let between: Vec<_> = positions(matching.iter().copied()).into_iter().filter(|at| *at > 20 && *at < 90).collect();
    assert!(between.len() > 20);
    for page in [1, 4, 1_000] {
        let bounded = || reader().after(p(20)).before(p(90)).page(page, 1 << 20);
        assert_eq!(positions(&bounded().await.expect("can be read")), between);
        assert_eq!(positions(&bounded().limit(5).await.expect("can be read")), between[..5], "a limit counts matches");
        let last: Vec<_> = between.iter().rev().take(5).copied().collect();
        assert_eq!(positions(&bounded().backward().limit(5).await.expect("can be read")), last);
    }
    let narrowed = |filter: Filter| {
        let expected: Vec<_> = matching.iter().copied().filter(|event| filter.matches(&event.header())).collect();
        assert!(!expected.is_empty() && expected.len() < matching.len(), "{filter:?}");
        (reader().filter(filter), positions(expected))
    };
    for filter in [
        Filter::new().category("a"),
        Filter::new().stream(id("b-1")),
        Filter::new().types(["opened"]),
        Filter::new().query(Criterion::tags([tag("student:1")])),
        Filter::new().after(p(30)).before(p(60)),
        Filter::new().since(at(500)).until(at(700)),
        Filter::new().versions([v(2), v(4), v(6)]),
    ] {
        let (reader, expected) = narrowed(filter);
        assert_eq!(positions(&reader.clone().await.expect("can be read")), expected);
        assert_eq!(reader.count().await.expect("can be counted"), expected.len() as u64);
    }
    let past = positions(&reader().as_of(p(50)).await.expect("can be read"));
    assert_eq!(past, positions(matching.iter().copied()).into_iter().filter(|at| *at <= 50).collect::<Vec<_>>());
}

pub async fn i2_events_are_counted(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.all().read().count().await.expect("can be counted"), 0);
    assert_eq!(stream(&store, "missing-1").read().count().await.expect("can be counted"), 0);
    for n in 0..30_u64 {
        let event = typed(["one", "two"][usize::try_from(n % 2).unwrap_or(0)], "x");
        write(&stream(&store, "a-1"), event.with_tags([tag(&format!("third:{}", n % 3))])).await;
    }
    let all = || store.all().read();
    let query = || all().filter(Filter::new().query(Criterion::tags([tag("third:1")])));
    for (reader, expected) in [
        (all(), 30),
        (stream(&store, "a-1").read(), 30),
        (query(), 10),
        (query().backward(), 10),
        (query().page(1, 1), 10),
        (query().after(p(10)).before(p(20)), 3),
        (query().limit(4), 4),
        (query().limit(0), 0),
        (query().limit(99), 10),
        (stream(&store, "a-1").read().after(v(28)), 2),
        (all().filter(Filter::new().types(["two"])), 15),
        (all().filter(Filter::new().query(Query::new())), 0),
    ] {
        assert_eq!(reader.clone().count().await.expect("can be counted"), expected, "{reader:?}");
    }
    refused!(all().after(v(1)).count().await, StoreError::WrongPlace { .. });
    store.close().await.expect("it can be closed");
    refused!(all().count().await, StoreError::Closed);
}

pub async fn i2_a_query_over_its_bounds_is_refused_before_anything_is_done(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    let criteria = |n| std::iter::repeat_n(Criterion::any(), n).collect::<Query>();
    let types = |n: usize| Query::from(Criterion::types((0..n).map(|n| n.to_string())));
    let tags = |n: usize| Query::from(Criterion::tags((0..n).map(|n| Tag::of("n", n).expect("it is short"))));
    for (query, expected) in [
        (criteria(129), InvalidQuery::TooManyCriteria { criteria: 129, limit: 128 }),
        (types(129), InvalidQuery::TooManyTypes { types: 129, limit: 128 }),
        (tags(33), InvalidQuery::TooManyTags { tags: 33, limit: 32 }),
    ] {
        let by = || Filter::new().types(["x"]).query(&query);
        refused!(store.all().read().filter(by()).await, StoreError::Query(error) if error == expected);
        refused!(store.all().read().filter(by()).count().await, StoreError::Query(error) if error == expected);
        refused!(store.all().watch().filter(by()).await, StoreError::Query(error) if error == expected);
        let append = Append::to(id("a-1"), ExpectedVersion::Any, event("x")).unless(&query, p(0));
        refused!(
            store.append(append).await,
            AppendError::Invalid(InvalidAppend::Query(error)) if error == expected
        );
    }
    let nameless = Query::from(Criterion::types([""]));
    refused!(store.all().read().filter(Filter::new().query(nameless)).await, StoreError::Query(InvalidQuery::Type(_)));
    assert!(!store.engine().notifier().is_watched(), "a watch that was refused is still counted");
    before.unchanged("a condition over its bounds").await;
    // At its bounds a query is answered and judged.
    write(&stream(&store, "a-1"), tagged("0", &["n:0"])).await;
    for (query, expected) in [(criteria(128), vec![1, 2]), (types(128), vec![2]), (tags(32), vec![])] {
        let read = store.all().read().filter(Filter::new().query(&query)).await.expect("can be read");
        assert_eq!(positions(&read), expected);
        append(&store, Append::default().unless(query, p(2))).await;
    }
}

/// One page covers a log of many times as many events as a page may examine, because only matches are examined.
pub async fn i2_the_cost_grows_with_what_matches_and_not_with_the_log(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let filler = |n: u64| {
        let tags = [tag(&format!("n:{}", n % 1_000)), tag("common:1")];
        typed("filled", "x").with_tags(tags)
    };
    let mut rare = Vec::new();
    for n in 0..3_u64 {
        let events: Vec<_> = (0..PAGE_SCAN as u64).map(filler).collect();
        write(&stream(&store, "filler-1"), events).await;
        rare.push(write(&stream(&store, &format!("rare-{n}")), tagged("rare", &["common:1", "rare:1"])).await.position);
    }
    let rare: Vec<_> = rare.into_iter().map(es_framework::Position::get).collect();
    for query in [
        Query::from(Criterion::tags([tag("rare:1")])),
        Criterion::tags([tag("common:1"), tag("rare:1")]).into(),
        Criterion::types(["rare"]).into(),
        Criterion::types(["rare", "never"]).tag(tag("common:1")).into(),
        Query::new().or(Criterion::types(["rare"])).or(Criterion::tags([tag("rare:1")])),
        Criterion::types(["filled", "rare"]).tag(tag("rare:1")).into(),
    ] {
        for backward in [false, true] {
            let read = a_page("@all", |read| {
                read.filter = Filter::new().query(&query);
                if backward {
                    read.direction = es_framework::engine::Direction::Backward;
                }
            });
            let page = store.engine().read(read).await.expect("can be read");
            let mut found = positions(&page.events);
            if backward {
                found.reverse();
            }
            assert_eq!((found, page.end), (rare.clone(), true), "by {query}, backward: {backward}");
        }
        assert_eq!(
            positions(&store.all().read().filter(Filter::new().query(&query)).await.expect("can be read")),
            rare
        );
    }
    let one = store.all().read().filter(Filter::new().query(Criterion::tags([tag("n:7")]))).await.expect("can be read");
    assert_eq!(one.len(), 30);
}

pub async fn i2_a_query_is_watched(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let query = || Query::from(Criterion::tags([tag("course:1"), tag("term:1")])).or(Criterion::types(["closed"]));
    let wanted =
        || vec![tagged("noted", &["term:1", "course:1"]), tagged("closed", &[]), tagged("closed", &["course:2"])];
    let others = || vec![tagged("noted", &["course:1"]), tagged("noted", &["term:1"]), tagged("noted", &[])];
    write(&stream(&store, "a-1"), [wanted(), others()].concat()).await;
    let watch = || store.all().watch().filter(Filter::new().query(query()));
    let (mut from_start, mut live) = (begin(watch().from_start()).await, begin(watch()).await);
    let mut of_stream = begin(stream(&store, "b-1").watch().filter(Filter::new().query(query()))).await;
    assert_eq!(positions(&take(&mut from_start, 3).await), [1, 2, 3], "history");
    // Once it has caught up, a watch is fed from memory.
    idle(&mut from_start).await;
    for round in 0..20 {
        let after = 6 + round * 6;
        write(&stream(&store, "b-1"), [others(), wanted()].concat()).await;
        for watch in [&mut from_start, &mut live, &mut of_stream] {
            assert_eq!(positions(&take(watch, 3).await), [after + 4, after + 5, after + 6]);
        }
        idle(&mut live).await;
    }
    let watched = positions(&take(&mut begin(watch().after(p(6))).await, 60).await);
    let read = store.all().read().after(p(6)).filter(Filter::new().query(query())).await.expect("can be read");
    assert_eq!(watched, positions(&read));
}

pub async fn i2_each_of_many_watchers_gets_the_events_of_its_own_tags(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let own = |n: u64| tag(&format!("own:{n}"));
    let second = |n: u64| tag(&format!("second:{n}"));
    let mut watchers = JoinSet::new();
    let mut ready = Vec::new();
    for n in 0..50 {
        let by = if n % 2 == 0 {
            Query::from(Criterion::tags([own(n)]))
        } else {
            Query::from(Criterion::tags([own(n), tag("odd:1")])).or(Criterion::tags([second(n), tag("even:1")]))
        };
        let (began, begun) = tokio::sync::oneshot::channel();
        ready.push(begun);
        let store = store.clone();
        watchers.spawn(async move {
            let mut watch = begin(store.all().watch().filter(Filter::new().query(by))).await;
            began.send(()).expect("it is awaited");
            let mut seen = Vec::new();
            while seen.len() < 4 {
                seen.push(next(&mut watch).await);
            }
            (n, texts(&seen))
        });
    }
    for begun in ready {
        begun.await.expect("the watch begins");
    }
    for round in 0..4_u64 {
        for n in (0..50).rev() {
            let tags = match round % 2 {
                0 => [tag("odd:1"), own(n)],
                _ => [tag("even:1"), if n % 2 == 0 { own(n) } else { second(n) }],
            };
            let event = event(format!("{n}/{round}")).with_tags(tags);
            write(&stream(&store, &format!("s-{}", n % 5)), event).await;
            write(&stream(&store, "noise-1"), numbered([n])).await;
        }
    }
    for (n, seen) in watchers.join_all().await {
        assert_eq!(seen, (0..4).map(|round| format!("{n}/{round}")).collect::<Vec<_>>());
    }
}
