//! I3–I5: appends that depend on there being no event that matches a query.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{
    Append, AppendCondition, AppendError, CommandKey, Conflict, Criterion, ErrorKind, ExpectedVersion, Filter,
    InvalidAppend, Outcome, Position, Query, Store, Tag,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fixture::{Durable, Fixture, Shared};
use crate::support::{
    Recording, append, command, event, exact, id, keyed, log, numbered, p, positions, refused, stream, tag, tagged,
    text_id, texts, typed, up_to, v, within, write,
};

pub async fn i3_a_condition_that_holds_is_no_obstacle(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let free = || of_tags(&["name:ann"]);
    let appended = append(&store, registering("user-1", "name:ann").unless(free(), p(0))).await;
    assert_eq!((appended.outcome, appended.position, appended.version()), (Outcome::Written, p(1), v(1)));
    assert_eq!(log(&store).await[0].tags, ["name:ann"]);
    // What the caller has seen is no conflict.
    append(&store, registering("user-1", "name:ann").unless(free(), p(1))).await;
    append(&store, registering("user-2", "name:bob").unless(of_tags(&["name:bob"]), p(0))).await;
    assert_eq!(positions(&log(&store).await), up_to(3));
}

pub async fn i3_a_conflict_names_the_query_and_the_first_matching_position_and_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for name in ["ann", "bob", "ann", "ann"] {
        append(&store, registering("user-1", &format!("name:{name}"))).await;
    }
    let before = Recording::of(&store).await;
    let free = || of_tags(&["name:ann"]);
    for (after, position) in [(0, 1), (1, 3), (2, 3), (3, 4)] {
        let error = store.append(registering("user-2", "name:ann").unless(free(), p(after))).await;
        let error = error.expect_err("the name is taken");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let AppendError::Conflict { conflicts } = error else { panic!("not a conflict: {error:?}") };
        assert_eq!(conflicts, [conflict(free(), after, position)]);
    }
    before.unchanged("a condition that failed").await;
}

pub async fn i3_conditions_stand_beside_expectations_and_every_one_that_fails_is_listed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), vec![tagged("opened", &["a:1"]), tagged("moved", &["a:1", "b:1"])]).await;
    write(&stream(&store, "b-1"), tagged("opened", &["c:1"])).await;
    let before = Recording::of(&store).await;
    let request = |expected: ExpectedVersion| {
        Append::to(id("a-1"), expected, event("x"))
            .check(id("b-1"), exact(1))
            .check(id("c-1"), ExpectedVersion::StreamExists)
            .unless(of_tags(&["b:1"]), p(0))
            .unless(of_tags(&["never:1"]), p(0))
            .unless(Criterion::types(["opened"]), p(1))
            .unless(of_tags(&["b:1"]), p(2))
    };
    let error = store.append(request(exact(1))).await.expect_err("much is not as expected");
    let AppendError::Conflict { conflicts } = error else { panic!("not a conflict: {error:?}") };
    let (b, opened) = (of_tags(&["b:1"]), Criterion::types(["opened"]).into());
    assert_eq!(
        conflicts,
        [
            Conflict::stream(id("a-1"), exact(1), v(2)),
            Conflict::stream(id("c-1"), ExpectedVersion::StreamExists, v(0)),
            conflict(b.clone(), 0, 2),
            conflict(opened, 1, 3),
        ]
    );
    // Expectations that hold do not help a condition that fails, and the other way round.
    let one = Append::to(id("a-1"), exact(2), event("x")).unless(b.clone(), p(1));
    refused!(store.append(one).await, AppendError::Conflict { conflicts } if conflicts == [conflict(b, 1, 2)]);
    let other = Append::to(id("a-1"), exact(1), event("x")).unless(of_tags(&["b:1"]), p(2));
    refused!(store.append(other).await, AppendError::Conflict { conflicts } if conflicts.len() == 1);
    before.unchanged("expectations and conditions that failed").await;
    append(&store, Append::to(id("a-1"), exact(2), event("x")).unless(of_tags(&["b:1"]), p(2))).await;
}

pub async fn i3_a_condition_is_judged_after_0_at_the_head_and_beyond_it(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let any =
        |after| Append::to(id("a-1"), ExpectedVersion::Any, tagged("noted", &["a:1"])).unless(Query::all(), after);
    append(&store, any(p(0))).await;
    refused!(store.append(any(p(0))).await, AppendError::Conflict { .. });
    append(&store, any(p(1))).await;
    for after in [p(3), p(1_000), Position::MAX] {
        append(&store, any(after)).await;
    }
    let head = store.head();
    assert_eq!(head, p(5));
    refused!(
        store.append(any(p(4))).await,
        AppendError::Conflict { conflicts } if conflicts == [conflict(Query::all(), 4, 5)]
    );
    // A query that matches no event holds always.
    append(&store, Append::to(id("a-1"), ExpectedVersion::Any, event("x")).unless(Query::new(), p(0))).await;
}

pub async fn i3_an_append_without_events_only_checks(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), tagged("noted", &["a:1"])).await;
    let before = Recording::of(&store).await;
    let confirmed = append(&store, Append::default().unless(of_tags(&["a:1"]), p(1))).await;
    assert_eq!((confirmed.outcome, confirmed.position), (Outcome::Written, p(1)));
    assert!(confirmed.streams.is_empty());
    let checked = Append::default().check(id("a-1"), exact(1)).unless(of_tags(&["b:1"]), p(0));
    assert_eq!(append(&store, checked).await.version(), v(1));
    refused!(
        store.append(Append::default().unless(of_tags(&["a:1"]), p(0))).await,
        AppendError::Conflict { conflicts } if conflicts == [conflict(of_tags(&["a:1"]), 0, 1)]
    );
    let empty = Append::to(id("b-1"), ExpectedVersion::Any, Vec::new()).unless(of_tags(&["a:1"]), p(0));
    refused!(store.append(empty).await, AppendError::Conflict { .. });
    before.unchanged("an append without events").await;
}

/// Every kind of query that finds something makes a condition fail, as far back as it looks; every kind that does not
/// lets the append pass.
pub async fn i3_every_kind_of_query_is_judged(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "s-1"), typed("one", "1").with_tags([tag("x:1")])).await;
    write(&stream(&store, "s-2"), typed("two", "2").with_tags([tag("a:1"), tag("b:1")])).await;
    write(&stream(&store, "s-1"), typed("three", "3").with_tags([tag("a:1"), tag("c:1")])).await;
    let types = |names: &[&'static str]| Criterion::types(names.iter().copied());
    let tags = |texts: &[&str]| Criterion::tags(texts.iter().map(|text| tag(text)));
    let before = Recording::of(&store).await;
    let cases: Vec<(Query, u64, Option<u64>)> = vec![
        (Query::all(), 0, Some(1)),
        (Query::all(), 1, Some(2)),
        (Query::all(), 3, None),
        (types(&["one"]).into(), 0, Some(1)),
        (types(&["one"]).into(), 1, None),
        (types(&["two"]).into(), 1, Some(2)),
        (types(&["three", "one"]).into(), 0, Some(1)),
        (types(&["three", "one"]).into(), 1, Some(3)),
        (types(&["never", "On", "one "]).into(), 0, None),
        (tags(&["x:1"]).into(), 0, Some(1)),
        (tags(&["x:1"]).into(), 1, None),
        (tags(&["a:1"]).into(), 0, Some(2)),
        (tags(&["a:1"]).into(), 2, Some(3)),
        (tags(&["a:1", "b:1"]).into(), 0, Some(2)),
        (tags(&["b:1", "a:1"]).into(), 2, None),
        (tags(&["b:1", "c:1"]).into(), 0, None),
        (tags(&["y:1"]).into(), 0, None),
        (types(&["one"]).tag(tag("x:1")).into(), 0, Some(1)),
        (types(&["one"]).tag(tag("a:1")).into(), 0, None),
        (types(&["two"]).tag(tag("x:1")).into(), 0, None),
        (types(&["two", "three"]).tag(tag("a:1")).into(), 0, Some(2)),
        (types(&["one", "three"]).tag(tag("a:1")).into(), 0, Some(3)),
        (types(&["two", "three"]).tag(tag("a:1")).tag(tag("c:1")).into(), 0, Some(3)),
        (Query::from(tags(&["b:1"])).or(tags(&["c:1"])), 0, Some(2)),
        (Query::from(tags(&["c:1"])).or(tags(&["b:1"])), 0, Some(2)),
        (Query::from(tags(&["x:1"])).or(tags(&["y:1"])), 0, Some(1)),
        (Query::from(tags(&["y:1"])).or(types(&["three"])), 0, Some(3)),
        (Query::from(types(&["two"]).tag(tag("b:1"))).or(types(&["three"]).tag(tag("c:1"))), 2, Some(3)),
        (Query::from(types(&["two"]).tag(tag("c:1"))).or(types(&["three"]).tag(tag("b:1"))), 0, None),
        (Query::from(Criterion::any()).or(tags(&["y:1"])), 2, Some(3)),
        (Query::new(), 0, None),
    ];
    for (query, after, position) in cases {
        let answer = store.append(Append::default().unless(&query, p(after))).await;
        match (position, answer) {
            (None, Ok(appended)) => assert_eq!(appended.position, p(3), "{query} after {after}"),
            (Some(position), Err(AppendError::Conflict { conflicts })) => {
                assert_eq!(conflicts, [conflict(query, after, position)]);
            }
            (_, answer) => panic!("{query} after {after}: {answer:?}"),
        }
    }
    before.unchanged("conditions that were only checked").await;
}

pub async fn i3_a_condition_guards_all_streams_of_an_append(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "log-1"), tagged("noted", &["a:1"])).await;
    let before = Recording::of(&store).await;
    let several = |after| {
        let mut append = Append::default().unless(of_tags(&["a:1"]), after);
        for n in 0..5 {
            append = append.and(id(&format!("s-{n}")), ExpectedVersion::NoStream, numbered([n, n]));
        }
        append
    };
    refused!(store.append(several(p(0))).await, AppendError::Conflict { .. });
    before.unchanged("a condition over several streams").await;
    let appended = append(&store, several(p(1))).await;
    assert_eq!((appended.streams.len(), appended.position), (5, p(12)), "the recording wrote one");
}

pub async fn i3_what_is_wrong_with_a_condition_is_said_before_what_is_unexpected(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), tagged("noted", &["a:1"])).await;
    let before = Recording::of(&store).await;
    let mut many = Append::to(id("a-1"), exact(7), event("x"));
    for _ in 0..65 {
        many = many.unless(Query::all(), p(0));
    }
    refused!(
        store.append(many).await,
        AppendError::Invalid(InvalidAppend::TooManyConditions { conditions: 65, limit: 64 })
    );
    let mut most = Append::to(id("a-1"), exact(7), event("x"));
    for _ in 0..64 {
        most = most.unless(Query::all(), p(0));
    }
    refused!(store.append(most).await, AppendError::Conflict { conflicts } if conflicts.len() == 65);
    before.unchanged("an append with too many conditions").await;
}

/// One append that fails takes no other down that is committed with it, and is not seen by those after it.
pub async fn i3_a_failed_condition_takes_no_other_down(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "taken-1"), tagged("noted", &["taken:1"])).await;
    let mut writers = JoinSet::new();
    for n in 0..300_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let own = Tag::of("own", n / 3).expect("it is short");
            let request = Append::to(id(&format!("s-{}", n % 7)), ExpectedVersion::Any, event("x").with_tags([own]));
            match n % 3 {
                0 => store.append(request.unless(of_tags(&["taken:1"]), p(0))).await.map_err(|_| n),
                1 => store.append(request.unless(of_tags(&["taken:1"]), p(1))).await.map_err(|_| n),
                _ => store.append(request).await.map_err(|_| n),
            }
        });
    }
    let answers = within("300 writers", writers.join_all()).await;
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err().copied()).collect();
    assert!(failed.len() == 100 && failed.iter().all(|n| n % 3 == 0), "{failed:?}");
    assert_eq!(positions(&log(&store).await), up_to(201));
}

pub async fn i4_an_event_that_does_not_match_makes_no_condition_fail(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let guarded = || {
        Query::from(Criterion::types(["enrolled", "left"]).tag(tag("course:1")).tag(tag("term:1")))
            .or(Criterion::types(["course.closed"]).tag(tag("course:1")))
    };
    let matching = || typed("enrolled", "x").with_tags([tag("term:1"), tag("course:1"), tag("student:1")]);
    write(&stream(&store, "a-1"), matching()).await;
    let seen = store.head();
    let others: [(&str, &[&str]); 13] = [
        ("enrolled", &["course:1"]),
        ("enrolled", &["term:1"]),
        ("enrolled", &[]),
        ("enrolled", &["course:11", "term:1"]),
        ("enrolled", &["course:1", "term:11"]),
        ("enrolled", &["Course:1", "term:1"]),
        ("enrolled.v2", &["course:1", "term:1"]),
        ("Enrolled", &["course:1", "term:1"]),
        ("enrol", &["course:1", "term:1"]),
        ("course.closed", &["course:2"]),
        ("course.closed", &["term:1"]),
        ("course.close", &["course:1"]),
        ("viewed", &["course:1", "term:1", "student:1"]),
    ];
    for (event_type, tags) in others {
        // In the same stream, and in one append, so that the tags of two events are next to each other.
        let both = vec![tagged(event_type, tags), tagged("viewed", &["course:1"]), tagged("enrolled", &["term:1"])];
        write(&stream(&store, "a-1"), both).await;
        append(&store, Append::default().unless(guarded(), seen)).await;
    }
    let append_one = Append::to(id("a-1"), ExpectedVersion::Any, event("x")).unless(guarded(), seen);
    append(&store, append_one).await;
    // And one that does, does.
    write(&stream(&store, "other-1"), matching()).await;
    refused!(store.append(Append::default().unless(guarded(), seen)).await, AppendError::Conflict { .. });
}

pub async fn i4_of_64_writers_under_one_condition_exactly_one_wins(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for round in 0..20_u64 {
        let won = race(64, &[store.clone()], move |n| {
            let tags = [Tag::of("round", round).expect("it is short"), Tag::of("writer", n).expect("it is short")];
            let condition = Criterion::tags([&tags[0]]);
            let request = Append::to(id(&format!("s-{n}")), ExpectedVersion::Any, event("x").with_tags(tags));
            request.unless(condition, p(0))
        })
        .await;
        assert_eq!(won.len(), 1, "round {round}");
    }
    assert_eq!(positions(&log(&store).await), up_to(20));
}

/// Writers whose conditions overlap without being equal: one looks at the type, one at a tag, one at two tags, one at
/// everything. Each event matches all of them.
pub async fn i4_of_writers_under_overlapping_conditions_exactly_one_wins(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for round in 0..20_u64 {
        let head = store.head();
        let won = race(32, &[store.clone()], move |n| {
            let event_type = format!("round-{round}");
            let (a, b) = (Tag::of("a", round).expect("it is short"), Tag::of("b", round).expect("it is short"));
            let event = typed(&event_type, "x").with_tags([a.clone(), b.clone()]);
            let request = Append::to(id(&format!("s-{n}")), ExpectedVersion::Any, event);
            match n % 5 {
                0 => request.unless(Criterion::types([event_type]), p(0)),
                1 => request.unless(Criterion::tags([a]), p(0)),
                2 => request.unless(Criterion::tags([b, a]), head),
                3 => request.unless(Query::from(Criterion::types([event_type]).tag(b)).or(Criterion::tags([a])), p(0)),
                _ => request.unless(Query::all(), head),
            }
        })
        .await;
        assert_eq!(won.len(), 1, "round {round}");
    }
}

pub async fn i4_writers_under_disjoint_conditions_do_not_disturb_each_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for writer in 0..64_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let own = Tag::of("own", writer).expect("it is short");
            let mut seen = Position::ZERO;
            for n in 0..10 {
                let event = event(n.to_string()).with_tags([tag("common:1"), own.clone()]);
                let request = Append::to(id(&format!("s-{}", writer % 3)), ExpectedVersion::Any, event);
                let condition = Criterion::types(["noted"]).tag(&own);
                seen = append(&store, request.unless(condition, seen)).await.position;
            }
        });
    }
    within("64 writers", writers.join_all()).await;
    assert_eq!(positions(&log(&store).await), up_to(640));
}

/// Appends of one open group are judged one after the other: what the first wrote, the second sees.
pub async fn i4_of_many_that_take_the_same_few_names_at_once_each_name_has_one_owner(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let won = race(400, &[store.clone()], |n| {
        let name = Tag::of("name", n % 20).expect("it is short");
        let request =
            Append::to(id(&format!("user-{n}")), ExpectedVersion::NoStream, event("x").with_tags([name.clone()]));
        request.unless(Criterion::tags([name]), p(0))
    })
    .await;
    let names: std::collections::BTreeSet<_> = won.iter().map(|n| n % 20).collect();
    assert_eq!((won.len(), names.len()), (20, 20));
    assert_eq!(positions(&log(&store).await), up_to(20), "those that lost used no position");
}

/// A gap-free number for each invoice: whoever loses counts again.
pub async fn i4_those_that_lose_try_again_and_no_number_is_given_twice(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for writer in 0..8_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let issued = || Query::from(Criterion::types(["invoice.issued"]));
            for _ in 0..10 {
                loop {
                    let last = store.all().read().backward().limit(1).filter(Filter::new().query(issued()));
                    let last = last.await.expect("can be read");
                    let (number, seen) =
                        last.first().map_or((0, p(0)), |event| (number_of(&event.payload), event.position));
                    let invoice = typed("invoice.issued", (number + 1).to_string());
                    let request = Append::to(id(&format!("invoice-{writer}")), ExpectedVersion::Any, invoice);
                    match store.append(request.unless(issued(), seen)).await {
                        Ok(_) => break,
                        Err(AppendError::Conflict { conflicts }) => {
                            let [Conflict::Condition { position, .. }] = conflicts[..] else { panic!("{conflicts:?}") };
                            assert!(position > seen, "a conflict where there was none");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    within("8 writers", writers.join_all()).await;
    let numbers: Vec<_> = texts(&log(&store).await).iter().map(|text| number_of(text.as_bytes())).collect();
    assert_eq!(numbers, up_to(80));
}

/// More tags than anybody would keep in memory, and conditions on the oldest of them.
pub async fn i4_a_tag_written_long_ago_is_not_forgotten(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let own = |n: u64| Tag::of("own", n).expect("it is short");
    const TAGS: u64 = 30_000;
    for first in (0..TAGS).step_by(1_000) {
        let events: Vec<_> = (first..first + 1_000).map(|n| event("x").with_tags([own(n)])).collect();
        write(&stream(&store, "bulk-1"), events).await;
    }
    for n in (0..TAGS).step_by(997) {
        let free = || Query::from(Criterion::tags([own(n)]));
        refused!(
            store.append(Append::default().unless(free(), p(n))).await,
            AppendError::Conflict { conflicts } if conflicts == [conflict(free(), n, n + 1)]
        );
        append(&store, Append::default().unless(free(), p(n + 1))).await;
    }
    append(&store, Append::default().unless(Criterion::tags([own(TAGS)]), p(0))).await;
}

/// An append that fails halfway leaves nothing behind that a condition would see.
pub async fn i4_what_was_not_written_is_not_seen(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), vec![keyed("one", "1")]).await;
    for round in 0..10_u64 {
        let round = Tag::of("round", round).expect("it is short");
        let tagged = |event_id: &'static str| keyed(event_id, "other").with_tags([round.clone()]);
        // Its second event has the id of one with another content, so the first is not written either.
        let fails =
            Append::to(id("b-1"), ExpectedVersion::Any, event("x").with_id(text_id("new")).with_tags([round.clone()]))
                .and(id("a-1"), ExpectedVersion::Any, tagged("one"));
        let holds = Append::default().unless(Criterion::tags([&round]), p(0));
        let (failed, held) = tokio::join!(store.append(fails), store.append(holds.clone()));
        refused!(failed, AppendError::IdReused { .. });
        held.expect("no event has the tag");
        append(&store, holds).await;
    }
    assert_eq!(log(&store).await.len(), 1);
}

pub async fn i5_a_retry_by_ids_is_known_although_its_own_events_match(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let request = || {
        let events =
            vec![keyed("one", "1").with_tags([tag("name:ann")]), keyed("two", "2").with_tags([tag("name:ann")])];
        let several = Append::to(id("user-1"), ExpectedVersion::NoStream, events).unless(of_tags(&["name:ann"]), p(0));
        several.and(id("names"), ExpectedVersion::Any, keyed("one", "3")).unless(Query::all(), p(0))
    };
    let first = append(&store, request()).await;
    for _ in 0..3 {
        let again = append(&store, request()).await;
        assert_eq!((again.outcome, again.position), (Outcome::AlreadyWritten, first.position));
        assert_eq!(again.streams.iter().map(|part| part.known).collect::<Vec<_>>(), [2, 1]);
    }
    // The same events under other ids are new, and meet the condition.
    let other = Append::to(id("user-2"), ExpectedVersion::NoStream, keyed("three", "1").with_tags([tag("name:ann")]));
    refused!(store.append(other.unless(of_tags(&["name:ann"]), p(0))).await, AppendError::Conflict { .. });
    assert_eq!(log(&store).await.len(), 3);
}

pub async fn i5_a_retry_by_key_is_known_although_its_own_events_match(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let request = |key: &str, what: &str| {
        registering("user-1", "name:ann").unless(of_tags(&["name:ann"]), p(0)).command(command(key, what))
    };
    let first = append(&store, request("k", "register")).await;
    let again = append(&store, request("k", "register")).await;
    assert_eq!((again.outcome, again.position), (Outcome::AlreadyWritten, first.position));
    // Another command under the same key is refused, and another key is another command.
    refused!(store.append(request("k", "else")).await, AppendError::CommandKeyReused { .. });
    refused!(store.append(request("l", "register")).await, AppendError::Conflict { .. });
    let key = CommandKey::new("l").expect("it is valid");
    assert!(store.command(&key).await.expect("can be read").is_none(), "a command that failed is not remembered");
    assert_eq!(log(&store).await.len(), 1);
}

pub async fn i5_a_confirmed_decision_is_remembered_by_its_key(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let nothing = || Append::default().unless(of_tags(&["name:ann"]), p(0)).command(command("k", "nothing to do"));
    assert_eq!(append(&store, nothing()).await.outcome, Outcome::Written);
    append(&store, registering("user-1", "name:ann")).await;
    let again = append(&store, nothing()).await;
    assert_eq!((again.outcome, again.position), (Outcome::AlreadyWritten, p(0)), "what it was at first");
}

pub async fn i5_ids_are_judged_before_conditions(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "a-1");
    write(&account, vec![keyed("one", "1").with_tags([tag("a:1")]), keyed("two", "2")]).await;
    let before = Recording::of(&store).await;
    let request = |expected, events: Vec<_>| Append::to(id("a-1"), expected, events).unless(of_tags(&["a:1"]), p(0));
    let other_content = request(ExpectedVersion::Any, vec![keyed("one", "x")]);
    refused!(store.append(other_content).await, AppendError::IdReused { .. });
    let in_part = request(exact(2), vec![keyed("two", "2"), keyed("three", "3")]);
    refused!(store.append(in_part).await, AppendError::PartlyKnown { known: 1, new: 1 });
    // Known in part where that may be a retry: the rest is new, so the condition is judged.
    let rest = request(ExpectedVersion::Any, vec![keyed("two", "2"), keyed("three", "3")]);
    refused!(store.append(rest).await, AppendError::Conflict { .. });
    // Known as a whole, with a command that is not yet remembered: it is from now on.
    let known = request(exact(9), vec![keyed("two", "2")]).command(command("k", "x"));
    assert_eq!(append(&store, known).await.outcome, Outcome::AlreadyWritten);
    let key = CommandKey::new("k").expect("it is valid");
    assert!(store.command(&key).await.expect("can be read").is_some());
    before.unchanged("appends whose ids were known").await;
}

pub async fn i5_of_one_conditional_write_sent_by_many_at_once_one_is_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for round in 0..10_u64 {
        let mut writers = JoinSet::new();
        for n in 0..32_u64 {
            let store = store.clone();
            writers.spawn(async move {
                let name = Tag::of("name", round).expect("it is short");
                let by_id = n % 2 == 0;
                let written = event("x").with_tags([name.clone()]);
                let written = if by_id { written.with_id(text_id("only")) } else { written };
                let of = id(&format!("user-{round}-{by_id}"));
                let request = Append::to(of, ExpectedVersion::NoStream, written).unless(Criterion::tags([name]), p(0));
                store.append(if by_id { request } else { request.command(command(&format!("k-{round}"), "x")) }).await
            });
        }
        // Two requests, each sent sixteen times: the one that was first is known to all of its senders, the other fails.
        let answers = within("32 writers", writers.join_all()).await;
        let (ok, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let written = ok.iter().flatten().filter(|appended| appended.outcome == Outcome::Written).count();
        assert_eq!((ok.len(), written, failed.len()), (16, 1, 16), "round {round}");
        assert!(failed.iter().flatten().next().is_none());
    }
    assert_eq!(positions(&log(&store).await), up_to(10));
}

pub async fn i3_after_reopening_conditions_are_judged_as_before(fixture: &impl Durable) {
    let store = fixture.open().await;
    append(&store, registering("user-1", "name:ann")).await;
    append(&store, registering("user-2", "name:bob")).await;
    let store = fixture.reopen(store).await;
    let free = || of_tags(&["name:ann"]);
    refused!(
        store.append(registering("user-3", "name:ann").unless(free(), p(0))).await,
        AppendError::Conflict { conflicts } if conflicts == [conflict(free(), 0, 1)]
    );
    append(&store, registering("user-3", "name:ann").unless(free(), p(1))).await;
    append(&store, registering("user-4", "name:cid").unless(of_tags(&["name:cid"]), p(0))).await;
    let store = fixture.reopen(store).await;
    refused!(
        store.append(Append::default().unless(free(), p(1))).await,
        AppendError::Conflict { conflicts } if conflicts == [conflict(free(), 1, 3)]
    );
}

pub async fn i4_what_another_handle_wrote_makes_a_condition_fail(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let names = || of_tags(&["name:ann"]);
    // Each writes in turn, so that each has just seen its own events and none of the other's.
    for round in 0..20_u64 {
        let (one, other) = if round % 2 == 0 { (&ours, &theirs) } else { (&theirs, &ours) };
        let seen = append(one, registering("user-1", "name:bob")).await.position;
        append(one, Append::default().unless(names(), seen)).await;
        let taken = append(other, registering("user-2", "name:ann").unless(names(), seen)).await.position;
        refused!(
            one.append(registering("user-3", "name:ann").unless(names(), seen)).await,
            AppendError::Conflict { conflicts } if conflicts == [conflict(names(), seen.get(), taken.get())]
        );
        // No false conflict: what the other wrote does not match.
        let bob = Append::default().unless(of_tags(&["name:bob"]), seen);
        append(one, bob.clone()).await;
        append(other, bob).await;
        append(one, Append::default().unless(names(), taken)).await;
    }
}

pub async fn i4_of_writers_of_all_handles_under_one_condition_one_wins(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    for round in 0..20_u64 {
        let won = race(16, &[ours.clone(), theirs.clone()], move |n| {
            let name = Tag::of("round", round).expect("it is short");
            let request = Append::to(id(&format!("s-{n}")), ExpectedVersion::Any, event("x").with_tags([name.clone()]));
            request.unless(Criterion::tags([name]), p(0))
        })
        .await;
        assert_eq!(won.len(), 1, "round {round}");
    }
    assert_eq!(positions(&log(&ours).await), up_to(20));
}

/// Random appends of all handles at once, and then an audit: the log is replayed, and each condition judged as of the
/// position where its append was written. None was violated, and none failed without an event that matches.
pub async fn i4_an_audit_of_the_log_of_all_handles_finds_no_violation(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    audit(&[ours, theirs], 12, 25).await;
}

/// The same for one handle.
pub async fn i4_an_audit_of_the_log_finds_no_violation(fixture: &impl Fixture) {
    let store = fixture.open().await;
    audit(&[store], 64, 25).await;
}

async fn audit(stores: &[Store], writers: u64, appends: u64) {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = stores[usize::try_from(writer).unwrap_or(0) % stores.len()].clone();
        tasks.spawn(async move {
            // A generator of its own, so that a failure can be repeated as far as a schedule can.
            let mut state = writer * 7_919 + 17;
            let mut random = move |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let mut done = Vec::new();
            for _ in 0..appends {
                let mut any_tag = |name: &str, of: u64| Tag::of(name, random(of)).expect("it is short");
                let (course, student) = (any_tag("course", 4), any_tag("student", 6));
                let event_type = ["joined", "left", "closed"][usize::try_from(random(3)).unwrap_or(0)];
                let query = match random(4) {
                    0 => Query::from(Criterion::tags([&course, &student])),
                    1 => Criterion::types(["closed"]).tag(&course).into(),
                    2 => Query::from(Criterion::types(["left", "closed"]).tag(&student)).or(Criterion::tags([&course])),
                    _ => Criterion::types([event_type]).into(),
                };
                // What a caller has seen: a head that is read now, or one from a little earlier.
                let head = store.all().metrics().await.expect("can be read").position;
                let after = p(head.get().saturating_sub(random(3)));
                if random(2) == 0 {
                    tokio::task::yield_now().await;
                }
                let event = typed(event_type, "x").with_tags([course, student]);
                let events = if random(8) == 0 { Vec::new() } else { vec![event.clone(), event] };
                let request = Append::to(id(&format!("s-{}", random(5))), ExpectedVersion::Any, events.clone());
                let answer = store.append(request.unless(&query, after)).await;
                done.push((AppendCondition::new(query, after), events.len() as u64, answer));
            }
            done
        });
    }
    let done: Vec<_> = within("the writers of an audit", tasks.join_all()).await.into_iter().flatten().collect();
    let events = log(&stores[0]).await;
    let first_match = |condition: &AppendCondition, upto: Position| {
        let within = events.iter().filter(|event| event.position > condition.after && event.position <= upto);
        within.filter(|event| condition.query.matches(&event.header())).map(|event| event.position).next()
    };
    let (mut written, mut failed) = (0, 0);
    for (condition, count, answer) in &done {
        match answer {
            Ok(appended) => {
                written += count;
                let before = p(appended.position.get() - count);
                assert_eq!(first_match(condition, before), None, "{condition:?} was violated before {before}");
            }
            Err(AppendError::Conflict { conflicts }) => {
                failed += 1;
                let [Conflict::Condition { position, .. }] = conflicts[..] else { panic!("{conflicts:?}") };
                assert_eq!(first_match(condition, Position::MAX), Some(position), "{condition:?} failed by another");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(events.len() as u64, written);
    let least = done.len() / 20;
    assert!(failed > least && done.len() - failed > least, "{failed} of {} failed: nothing was tested", done.len());
}

/// Sends as many appends at once, over these handles in turn, and returns the numbers of those that were written; the
/// others failed by their conditions alone.
async fn race(writers: u64, stores: &[Store], request: impl Fn(u64) -> Append) -> Vec<u64> {
    let start = Arc::new(Barrier::new(usize::try_from(writers).expect("they are few")));
    let mut tasks = JoinSet::new();
    for (n, store) in (0..writers).zip(stores.iter().cycle()) {
        let (store, start, request) = (store.clone(), Arc::clone(&start), request(n));
        tasks.spawn(async move {
            start.wait().await;
            (n, store.append(request).await)
        });
    }
    let mut won = Vec::new();
    let mut told = BTreeMap::<Position, u64>::new();
    for (n, answer) in within("appends that were sent at once", tasks.join_all()).await {
        match answer {
            Ok(_) => won.push(n),
            Err(AppendError::Conflict { conflicts }) => {
                let [Conflict::Condition { position, .. }] = conflicts[..] else { panic!("{conflicts:?}") };
                *told.entry(position).or_default() += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(told.len() <= won.len(), "they failed by {told:?}, but only {won:?} were written");
    won
}

fn conflict(query: Query, after: u64, position: u64) -> Conflict {
    Conflict::Condition { query, after: p(after), position: p(position) }
}

/// A query for events with all of these tags.
fn of_tags(texts: &[&str]) -> Query {
    Criterion::tags(texts.iter().map(|text| tag(text))).into()
}

/// An append of one event with a tag.
fn registering(user: &str, name: &str) -> Append {
    Append::to(id(user), ExpectedVersion::Any, tagged("registered", &[name]))
}

fn number_of(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("it was written as a number")
}
