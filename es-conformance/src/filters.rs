//! C3: filters return the same events on every engine.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{ExpectedVersion, Filter, Path, Position, Scalar, Store, StoredEvent, Timestamp};

use crate::fixture::{Fixture, Setup};
use crate::support::{
    ManualClock, Recording, append, at, event, id, log, metadata, numbered, p, positions, stream, typed, up_to, v,
    write,
};

/// Every stream, type and metadata that a careless query would mix up. One event per position, ten microseconds apart.
async fn a_log_of_lookalikes(fixture: &impl Fixture) -> Store {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let streams =
        ["account-alice", "account-bob", "accounts-x", "Account-alice", "account", "a%b-1", "axb-1", "a_b-1", "é-1"];
    let types = ["opened", "Opened", "opened.v2", "open", "o%ened", "opäned"];
    let metadata_of = [
        None,
        Some("{}"),
        Some(r#"{"n": 1, "t": "1", "who": {"name": "Ann", "tags": ["a"]}}"#),
        Some(r#"{"n": "1", "t": 1, "who": {"name": "ann"}}"#),
        Some(r#"{"n": 1.0, "b": true, "who": "Ann"}"#),
        Some(r#"{"n": null, "b": 1, "who.name": "Ann"}"#),
        Some(r#"{"n": 9007199254740993, "b": "true"}"#),
        Some(r#"{"huge": 1e400, "n": 0.5, "\u0074": "1", "$serde_json::private::Number": "2"}"#),
    ];
    for n in 0..126 {
        clock.set(i64::try_from(n).unwrap_or(0) * 10 + 10);
        let metadata = metadata_of[n % metadata_of.len()].map(metadata);
        let event = typed(types[n % types.len()], n.to_string()).with_metadata(metadata);
        write(&stream(&store, streams[n % streams.len()]), event).await;
    }
    store
}

fn filters() -> Vec<Filter> {
    let none: [&str; 0] = [];
    let filter = Filter::new;
    let clauses = vec![
        filter(),
        filter().stream(id("account-alice")),
        filter().streams([id("account-bob"), id("missing-1"), id("axb-1")]),
        filter().stream(id("a%b-1")),
        filter().stream(id("@all")),
        filter().category("account"),
        filter().categories(["accounts", "é", "nobody"]),
        filter().category("Account"),
        filter().category("a%b"),
        filter().category(""),
        filter().categories(none),
        filter().types(["opened"]),
        filter().types(["Opened", "open", "never"]),
        filter().types(["o%ened"]),
        filter().types(none),
        filter().stream_prefix("account"),
        filter().stream_prefix("account-"),
        filter().stream_prefix("a%"),
        filter().stream_prefix("a_"),
        filter().stream_prefix("A"),
        filter().stream_prefix("é"),
        filter().stream_prefix(""),
        filter().stream_prefix("\u{10ffff}"),
        filter().versions([v(1), v(3), v(99)]),
        filter().versions([]),
        filter().after(p(50)),
        filter().before(p(50)),
        filter().after(p(40)).before(p(44)),
        filter().after(Position::MAX),
        filter().before(p(0)),
        filter().since(at(500)),
        filter().since(at(501)),
        filter().until(at(500)),
        filter().until(at(499)),
        filter().since(at(500)).until(at(500)),
        filter().since(Timestamp::from_micros(i64::MAX)),
        filter().until(Timestamp::from_micros(i64::MIN)),
        filter().stream_like("account-%"),
        filter().stream_like("%ALICE"),
        filter().stream_like(r"a\%b-_"),
        filter().stream_like("a_b-1"),
        filter().stream_like("_-1"),
        filter().type_like("o%"),
        filter().type_like("op_ned"),
        filter().type_like(r"o\%ened"),
        filter().metadata_equals("n", 1),
        filter().metadata_equals("n", 1.0),
        filter().metadata_equals("n", "1"),
        filter().metadata_equals("n", ()),
        filter().metadata_equals("n", 9_007_199_254_740_993_i64),
        filter().metadata_equals("n", 9_007_199_254_740_992_i64),
        filter().metadata_equals("n", 0.5),
        filter().metadata_equals("huge", f64::INFINITY),
        filter().metadata_equals("$serde_json::private::Number", "2"),
        filter().metadata_equals("b", true),
        filter().metadata_equals("b", 1),
        filter().metadata_equals("missing", ()),
        filter().metadata_equals("who.name", "Ann"),
        filter().metadata_equals(Path::of_keys(["who.name"]), "Ann"),
        filter().metadata_in("t", [Scalar::from("1"), Scalar::from(1)]),
        filter().metadata_in("n", none),
        filter().metadata_like("who.name", "A%"),
        filter().metadata_like("n", "%"),
    ];
    // Every pair of a few different kinds, so that each clause is combined with each other one.
    let joined = [
        filter().category("account"),
        filter().streams([id("account-alice"), id("é-1")]),
        filter().types(["opened", "opäned"]),
        filter().stream_prefix("account"),
        filter().after(p(30)),
        filter().before(p(100)),
        filter().since(at(400)),
        filter().until(at(900)),
        filter().stream_like("%-_%"),
        filter().type_like("op%"),
        filter().metadata_equals("n", 1),
        filter().metadata_like("who.name", "_nn"),
        filter().versions([v(2), v(4), v(6)]),
    ];
    let pairs = joined
        .iter()
        .flat_map(|a| joined.iter().map(move |b| b.clauses().iter().cloned().fold(a.clone(), Filter::and)));
    clauses.into_iter().chain(pairs).collect()
}

/// Checks every filter, on `@all` and on streams, in both directions, against the log itself and the one evaluator.
pub async fn c3_every_filter_answers_what_the_evaluator_says(fixture: &impl Fixture) {
    let store = a_log_of_lookalikes(fixture).await;
    let everything = log(&store).await;
    let handles = ["@all", "account-alice", "a%b-1", "missing-1"].map(|name| stream(&store, name));
    let mut matched = 0;
    for filter in filters() {
        for handle in &handles {
            let of_stream = |event: &&StoredEvent| handle.id().is_all() || event.stream == *handle.id();
            let expected: Vec<_> =
                everything.iter().filter(of_stream).filter(|e| filter.matches(&e.header())).collect();
            matched += expected.len();
            let reader = handle.read().filter(filter.clone());
            let read = reader.clone().collect().await.expect("can be read");
            assert_eq!(positions(&read), positions(expected.iter().copied()), "{} by {filter:?}", handle.id());
            assert!(read.iter().eq(expected.iter().copied()), "the events are whole");
            let backward = reader.backward().page(3, 1 << 20).collect().await.expect("can be read");
            let reversed = positions(expected.iter().rev().copied());
            assert_eq!(positions(&backward), reversed, "{} backward in small pages by {filter:?}", handle.id());
        }
    }
    assert!(matched > 5_000, "the filters matched hardly anything, {matched} events, so nothing was tested");
}

pub async fn c3_a_filter_goes_with_bounds_and_limits(fixture: &impl Fixture) {
    let store = a_log_of_lookalikes(fixture).await;
    let of_account = |event: &StoredEvent| event.stream.category() == "account";
    let expected: Vec<_> =
        log(&store).await.iter().filter(|event| of_account(event)).map(|event| event.position.get()).collect();
    let reader = || store.all().read().filter(Filter::new().category("account"));
    let between: Vec<_> = expected.iter().copied().filter(|at| *at > 20 && *at < 90).collect();
    assert!(between.len() > 10);
    for page in [1, 4, 1_000] {
        let bounded = || reader().after(p(20)).before(p(90)).page(page, 1 << 20);
        assert_eq!(positions(&bounded().collect().await.expect("can be read")), between);
        assert_eq!(
            positions(&bounded().limit(5).collect().await.expect("can be read")),
            between[..5],
            "a limit counts matches"
        );
        let last: Vec<_> = between.iter().rev().take(5).copied().collect();
        assert_eq!(positions(&bounded().backward().limit(5).collect().await.expect("can be read")), last);
    }
}

pub async fn c3_two_filters_of_one_read_are_joined_by_and(fixture: &impl Fixture) {
    let store = a_log_of_lookalikes(fixture).await;
    let (category, opened) = (Filter::new().category("account"), Filter::new().types(["opened"]));
    let one_by_one = store.all().read().filter(category.clone()).filter(opened).collect().await.expect("can be read");
    let at_once = store.all().read().filter(category.types(["opened"])).collect().await.expect("can be read");
    assert!(!at_once.is_empty() && one_by_one == at_once);
    let none = Filter::new().types(["opened"]).types(["open"]);
    assert!(store.all().read().filter(none).collect().await.expect("can be read").is_empty(), "not joined by or");
}

/// The evaluator has tests of its own; these few results are written down, so that it and the engine cannot both be
/// wrong in the same way.
pub async fn c3_the_answers_are_those_of_the_contract(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for (name, event_type, json) in [
        ("account-1", "opened", r#"{"n": 1, "who": {"name": "Ann"}}"#),
        ("account-2", "closed", r#"{"n": "1"}"#),
        ("accounts-1", "opened", r#"{"n": true}"#),
        ("Account-1", "Opened", r#"{"n": 1.0}"#),
        ("account", "opened", "{}"),
        ("numbers", "counted", r#"{"half": 0.5, "huge": 1e400, "big": 18446744073709551616, "\u0069": -1e2}"#),
    ] {
        write(&stream(&store, name), typed(event_type, "x").with_metadata(metadata(json))).await;
    }
    write(&stream(&store, "account-1"), typed("closed", "x")).await;
    let filter = Filter::new;
    for (filter, expected) in [
        (filter().stream(id("account-1")), vec![1, 7]),
        (filter().category("account"), vec![1, 2, 5, 7]),
        (filter().stream_prefix("account-"), vec![1, 2, 7]),
        (filter().types(["opened"]), vec![1, 3, 5]),
        (filter().types(["opened"]).category("account"), vec![1, 5]),
        (filter().stream_like("account%"), vec![1, 2, 3, 5, 7]),
        (filter().stream_like("account-_"), vec![1, 2, 7]),
        (filter().type_like("%PENED"), vec![]),
        (filter().metadata_equals("n", 1), vec![1, 4]),
        (filter().metadata_equals("n", "1"), vec![2]),
        (filter().metadata_equals("n", true), vec![3]),
        (filter().metadata_equals("who.name", "Ann"), vec![1]),
        (filter().metadata_like("who.name", "ann"), vec![]),
        (filter().metadata_in("n", [Scalar::from("1"), Scalar::from(true)]), vec![2, 3]),
        (filter().after(p(2)).before(p(5)), vec![3, 4]),
        (filter().versions([v(2)]), vec![7]),
        (filter().metadata_equals("half", 0.5), vec![6]),
        (filter().metadata_equals("big", 18_446_744_073_709_551_616.0), vec![6]),
        (filter().metadata_equals("i", -100), vec![6]),
        (filter().metadata_equals("huge", f64::INFINITY), vec![]),
        (filter().stream_like("account%").metadata_equals("n", "1").types(["closed"]), vec![2]),
    ] {
        let events = store.all().read().filter(filter.clone()).collect().await.expect("can be read");
        assert_eq!(positions(&events), expected, "{filter:?}");
    }
}

pub async fn c3_time_bounds_include_every_event_of_that_time(fixture: &impl Fixture) {
    let clock = ManualClock::at(0);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    for time in [100, 200, 200, 300] {
        clock.set(time);
        let both = es_framework::Append::to(id("a-1"), ExpectedVersion::Any, numbered([1]));
        append(&store, both.and(id("b-1"), ExpectedVersion::Any, numbered([1]))).await;
    }
    for (filter, expected) in [
        (Filter::new().since(at(200)), (3..=8).collect()),
        (Filter::new().until(at(200)), up_to(6)),
        (Filter::new().since(at(200)).until(at(200)), (3..=6).collect()),
        (Filter::new().since(at(201)).until(at(299)), vec![]),
    ] {
        let events = store.all().read().filter(filter.clone()).collect().await.expect("can be read");
        assert_eq!(positions(&events), expected, "{filter:?}");
    }
}

pub async fn c3_a_long_list_of_values_is_no_reason_to_fail(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    before.unchanged("nothing").await;
    write(&stream(&store, "a-70000"), event("x")).await;
    // More values than any database accepts as parameters of one query.
    let many = || (0..=70_000).map(|n| format!("a-{n}"));
    let by_stream = Filter::new().streams(many().map(|name| id(&name)));
    let by_type = Filter::new().types(many().chain(["noted".to_owned()]));
    let by_category = Filter::new().categories(many().chain(["a".to_owned()]));
    for filter in [by_stream, by_type.clone().category("a"), by_category] {
        let events = store.all().read().filter(filter).collect().await.expect("can be read");
        assert_eq!(positions(&events), [2]);
    }
}
