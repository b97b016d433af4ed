//! I4: no false conflict and no missed one, however many write at once.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::collections::BTreeMap;
use std::sync::Arc;

use es_framework::{
    Append, AppendCondition, AppendError, Conflict, Criterion, ExpectedVersion, Filter, Position, Query, Store, Tag,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, Shared};
use crate::support::{
    append, event, failed, id, keyed, log, of_tags, p, positions, refused, registering, stream, tag, tagged, text_id,
    texts, typed, up_to, within, write,
};

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
        let won = race(64, &[&store], move |n| {
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
        let won = race(32, &[&store], move |n| {
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
    let won = race(400, &[&store], |n| {
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
    const TAGS: u64 = 30_000;
    let store = fixture.open().await;
    let own = |n: u64| Tag::of("own", n).expect("it is short");
    for first in (0..TAGS).step_by(1_000) {
        let events: Vec<_> = (first..first + 1_000).map(|n| event("x").with_tags([own(n)])).collect();
        write(&stream(&store, "bulk-1"), events).await;
    }
    for n in (0..TAGS).step_by(997) {
        let free = || Query::from(Criterion::tags([own(n)]));
        refused!(
            store.append(Append::default().unless(free(), p(n))).await,
            AppendError::Conflict { conflicts } if conflicts == [failed(free(), n, n + 1)]
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

pub async fn i4_what_another_handle_wrote_makes_a_condition_fail(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let names = || of_tags(&["name:ann"]);
    // Each writes in turn, so that each has just seen its own events and none of the other's.
    for round in 0..20_u64 {
        let (one, other) = if round % 2 == 0 { (&ours, &theirs) } else { (&theirs, &ours) };
        let seen = append(one, registering("user-1", "name:bob")).await.position;
        // A read shows what the other wrote, and says so, however late this handle notices it.
        let mut reading = other.all().read().filter(Filter::new().query(of_tags(&["name:bob"]))).stream();
        let mut last = None;
        while let Some(event) = reading.next().await {
            last = Some(event.expect("can be read").position);
        }
        assert_eq!((last, reading.head()), (Some(seen), Some(seen)));
        append(other, Append::default().unless(of_tags(&["name:bob"]), seen)).await;
        append(one, Append::default().unless(names(), seen)).await;
        let taken = append(other, registering("user-2", "name:ann").unless(names(), seen)).await.position;
        refused!(
            one.append(registering("user-3", "name:ann").unless(names(), seen)).await,
            AppendError::Conflict { conflicts } if conflicts == [failed(names(), seen.get(), taken.get())]
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
        let won = race(16, &[&ours, &theirs], move |n| {
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
async fn race(writers: u64, stores: &[&Store], request: impl Fn(u64) -> Append) -> Vec<u64> {
    let start = Arc::new(Barrier::new(usize::try_from(writers).expect("they are few")));
    let mut tasks = JoinSet::new();
    for (n, store) in (0..writers).zip(stores.iter().cycle()) {
        let (store, start, request) = (Store::clone(store), Arc::clone(&start), request(n));
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

fn number_of(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("it was written as a number")
}
