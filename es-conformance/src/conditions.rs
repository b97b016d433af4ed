//! I3 and I5: appends that depend on there being no event that matches a query, and their retries.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use es_framework::{
    Append, AppendError, CommandKey, Conflict, Criterion, ErrorKind, ExpectedVersion, Filter, InvalidAppend, Outcome,
    Position, Query, Tag,
};
use tokio::task::JoinSet;

use crate::fixture::{Durable, Fixture};
use crate::support::{
    Recording, append, command, event, exact, failed, id, keyed, log, numbered, of_tags, p, positions, refused,
    registering, stream, tag, tagged, text_id, typed, up_to, v, within, write,
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
        assert_eq!(conflicts, [failed(free(), after, position)]);
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
            failed(b.clone(), 0, 2),
            failed(opened, 1, 3),
        ]
    );
    // Expectations that hold do not help a condition that fails, and the other way round.
    let one = Append::to(id("a-1"), exact(2), event("x")).unless(b.clone(), p(1));
    refused!(store.append(one).await, AppendError::Conflict { conflicts } if conflicts == [failed(b, 1, 2)]);
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
        AppendError::Conflict { conflicts } if conflicts == [failed(Query::all(), 4, 5)]
    );
    // A query that matches no event holds always.
    append(&store, Append::to(id("a-1"), ExpectedVersion::Any, event("x")).unless(Query::new(), p(0))).await;
}

pub async fn i3_a_read_tells_up_to_where_it_has_seen_the_log(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let read = || store.all().read().filter(Filter::new().query(of_tags(&["a:1"])));
    for page in [1, 1_000] {
        write(&stream(&store, "a-1"), [vec![tagged("noted", &["a:1"]); 3], vec![event("x"); 2]].concat()).await;
        let head = store.head();
        let mut reading = read().page(page, 1 << 20).stream();
        assert_eq!(reading.head(), None, "nothing was read yet");
        reading.next().await.expect("there are events").expect("can be read");
        assert_eq!(reading.head(), Some(head));
        // What is written while a read runs comes after its head, and is not in it.
        let late = write(&stream(&store, "a-1"), tagged("noted", &["a:1"])).await.position;
        while let Some(event) = reading.next().await {
            assert!(event.expect("can be read").position <= head);
        }
        assert_eq!(reading.head(), Some(head));
        refused!(
            store.append(Append::default().unless(of_tags(&["a:1"]), head)).await,
            AppendError::Conflict { conflicts } if conflicts == [failed(of_tags(&["a:1"]), head.get(), late.get())]
        );
    }
    let mut of_stream = stream(&store, "a-1").read().stream();
    of_stream.next().await.expect("there are events").expect("can be read");
    assert_eq!(of_stream.head(), None, "a stream has a version");
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
        AppendError::Conflict { conflicts } if conflicts == [failed(of_tags(&["a:1"]), 0, 1)]
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
                assert_eq!(conflicts, [failed(query, after, position)]);
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
        AppendError::Conflict { conflicts } if conflicts == [failed(free(), 0, 1)]
    );
    append(&store, registering("user-3", "name:ann").unless(free(), p(1))).await;
    append(&store, registering("user-4", "name:cid").unless(of_tags(&["name:cid"]), p(0))).await;
    let store = fixture.reopen(store).await;
    refused!(
        store.append(Append::default().unless(free(), p(1))).await,
        AppendError::Conflict { conflicts } if conflicts == [failed(free(), 1, 3)]
    );
}
