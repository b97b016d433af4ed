//! A1–A5, A7, A8 and A11: what one append does.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::time::Duration;

use es_framework::{Append, AppendError, Conflict, ErrorKind, ExpectedVersion, InvalidAppend, Outcome, Version};

use crate::fixture::{Fixture, Setup};
use crate::support::{
    ManualClock, Recording, append, at, event, events_of, exact, id, keyed, log, numbered, p, positions, refused,
    stream, texts, up_to, v, versions, write,
};

pub async fn a1_the_first_append_creates_the_stream_with_versions_from_1(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    let appended = write(&account, numbered(1..=3)).await;
    assert_eq!(appended.outcome, Outcome::Written);
    let events = events_of(&account).await;
    assert_eq!(versions(&events), [1, 2, 3]);
    assert_eq!(texts(&events), ["1", "2", "3"]);
    assert!(events.iter().all(|event| event.stream == "account-alice"), "events belong to their stream");
}

pub async fn a1_one_event_can_be_written_without_a_list(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    assert_eq!(write(&account, event("only")).await.version(), v(1));
    assert_eq!(texts(&events_of(&account).await), ["only"]);
}

pub async fn a1_versions_are_contiguous_over_appends_and_streams_do_not_mix(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (alice, bob) = (stream(&store, "account-alice"), stream(&store, "account-bob"));
    for round in 0..5 {
        assert_eq!(write(&alice, numbered([1, 2])).await.version(), v(round * 2 + 2));
        assert_eq!(write(&bob, numbered([7])).await.version(), v(round + 1));
    }
    assert_eq!(versions(&events_of(&alice).await), up_to(10));
    assert_eq!(versions(&events_of(&bob).await), up_to(5));
    assert_eq!(texts(&events_of(&bob).await), ["7"; 5]);
}

pub async fn a1_the_outcome_names_versions_position_and_time(fixture: &impl Fixture) {
    let clock = ManualClock::at(77);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    write(&stream(&store, "a-1"), numbered(1..=2)).await;
    clock.set(99);
    let both = Append::to(id("a-1"), ExpectedVersion::Any, numbered(3..=5)).and(
        id("b-1"),
        ExpectedVersion::NoStream,
        numbered([1]),
    );
    let appended = append(&store, both).await;
    let told: Vec<_> =
        appended.streams.iter().map(|part| (part.stream.as_str(), part.first, part.last, part.written)).collect();
    assert_eq!(told, [("a-1", v(3), v(5), 3), ("b-1", v(1), v(1), 1)]);
    assert_eq!(appended.streams.iter().map(|part| part.known).sum::<usize>(), 0);
    assert_eq!(appended.position, p(6), "the position is that of the last event");
    assert_eq!(appended.time, at(99));
    assert_eq!(appended.clock_behind, Duration::ZERO);
    assert_eq!(log(&store).await.last().map(|event| (event.position, event.time)), Some((p(6), at(99))));
}

pub async fn a1_the_positions_of_one_append_are_one_contiguous_block(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..10_u64 {
        let account = stream(&store, &format!("account-{writer}"));
        writers.spawn(async move {
            for append in 0..10 {
                let tag = writer * 100 + append;
                write(&account, numbered([tag; 5])).await;
            }
        });
    }
    writers.join_all().await;
    let events = log(&store).await;
    assert_eq!(positions(&events), up_to(500));
    for block in texts(&events).chunks(5) {
        assert!(block.iter().all(|tag| *tag == block[0]), "another append came in between: {block:?}");
    }
}

pub async fn a2_any_holds_for_every_stream(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    account.write(event("1"), ExpectedVersion::Any).await.expect("a missing stream");
    account.write(event("2"), ExpectedVersion::Any).await.expect("an existing stream");
}

pub async fn a2_no_stream_holds_for_a_missing_stream_only(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    account.write(event("1"), ExpectedVersion::NoStream).await.expect("a missing stream");
    refused!(account.write(event("2"), ExpectedVersion::NoStream).await, AppendError::Conflict { .. });
}

pub async fn a2_stream_exists_holds_for_an_existing_stream_only(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    refused!(account.write(event("1"), ExpectedVersion::StreamExists).await, AppendError::Conflict { .. });
    write(&account, event("1")).await;
    account.write(event("2"), ExpectedVersion::StreamExists).await.expect("an existing stream");
}

pub async fn a2_exact_holds_at_that_version_only(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    write(&account, numbered(1..=2)).await;
    for wrong in [0, 1, 3, 1_000_000] {
        refused!(account.write(event("x"), exact(wrong)).await, AppendError::Conflict { .. });
    }
    refused!(account.write(event("x"), Version::MAX).await, AppendError::Conflict { .. });
    assert_eq!(account.write(event("3"), v(2)).await.expect("the right version").version(), v(3));
}

pub async fn a2_exact_0_holds_for_a_missing_stream_only(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    refused!(account.write(event("x"), exact(1)).await, AppendError::Conflict { .. });
    account.write(event("1"), exact(0)).await.expect("a missing stream is at version 0");
    refused!(account.write(event("2"), exact(0)).await, AppendError::Conflict { .. });
}

pub async fn a2_a_conflict_names_stream_expected_and_actual_and_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    write(&account, numbered(1..=3)).await;
    let before = Recording::of(&store).await;
    for expected in [ExpectedVersion::NoStream, exact(0), exact(2), exact(4)] {
        let error = account.write(numbered([8, 9]), expected).await.expect_err("the stream is at version 3");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let AppendError::Conflict { conflicts } = error else { panic!("not a conflict: {error:?}") };
        assert_eq!(conflicts, [Conflict::stream(id("account-alice"), expected, v(3))]);
    }
    before.unchanged("a conflict").await;
}

pub async fn a3_an_append_that_fails_writes_none_of_its_events(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().limits(|limits| limits.payload_bytes = 100)).await;
    write(&stream(&store, "a-1"), numbered([1])).await;
    let before = Recording::of(&store).await;
    let conflict_at_the_end = Append::to(id("new-1"), ExpectedVersion::NoStream, numbered(1..=10)).and(
        id("a-1"),
        ExpectedVersion::NoStream,
        numbered([2]),
    );
    refused!(store.append(conflict_at_the_end).await, AppendError::Conflict { .. });
    let mut too_large_at_the_end = numbered(1..=10);
    too_large_at_the_end.push(event(vec![0; 101]));
    refused!(
        stream(&store, "new-1").write(too_large_at_the_end, ExpectedVersion::Any).await,
        AppendError::Invalid(InvalidAppend::PayloadTooLarge { .. }),
    );
    assert!(!stream(&store, "new-1").exists().await.expect("can be asked"), "a failed append made a stream");
    before.unchanged("a failed append").await;
}

pub async fn a3_an_append_that_fails_takes_no_other_down(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "taken-1"), numbered([1])).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..60_u64 {
        let store = store.clone();
        writers.spawn(async move {
            // Every third write is bound to fail, at the same time as the others.
            if n % 3 == 0 {
                let result = stream(&store, "taken-1").write(event("no"), ExpectedVersion::NoStream).await;
                refused!(result, AppendError::Conflict { .. });
            } else {
                let fresh = stream(&store, &format!("fresh-{n}"));
                fresh.write(numbered([n, n]), ExpectedVersion::NoStream).await.expect("nobody else writes it");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(positions(&log(&store).await), up_to(81), "40 writes of 2 events each, and the first");
    assert_eq!(versions(&events_of(&stream(&store, "taken-1")).await), [1]);
}

pub async fn a4_an_append_of_no_events_answers_the_current_version_and_writes_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    let missing = write(&account, Vec::new()).await;
    assert_eq!((missing.version(), missing.position), (v(0), p(0)));
    assert!(!account.exists().await.expect("can be asked"), "an append of no events made a stream");
    write(&account, numbered(1..=3)).await;
    write(&stream(&store, "other-1"), numbered([1])).await;
    let before = Recording::of(&store).await;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists, exact(3)] {
        let nothing = account.write(Vec::new(), expected).await.expect("the stream is at version 3");
        assert_eq!((nothing.outcome, nothing.version()), (Outcome::Written, v(3)));
        assert_eq!(nothing.streams[0].written, 0);
        assert_eq!(nothing.position, p(4), "the position is the head of the log");
    }
    let of_no_stream = append(&store, Append::default()).await;
    assert_eq!((of_no_stream.version(), of_no_stream.position), (v(0), p(4)));
    before.unchanged("an append of no events").await;
}

pub async fn a4_an_append_of_no_events_still_checks_the_expectation(fixture: &impl Fixture) {
    let account = stream(&fixture.open().await, "account-alice");
    refused!(account.write(Vec::new(), ExpectedVersion::StreamExists).await, AppendError::Conflict { .. });
    refused!(account.write(Vec::new(), exact(1)).await, AppendError::Conflict { .. });
    account.write(Vec::new(), ExpectedVersion::NoStream).await.expect("the stream is missing");
    write(&account, event("1")).await;
    refused!(account.write(Vec::new(), ExpectedVersion::NoStream).await, AppendError::Conflict { .. });
    refused!(account.write(Vec::new(), exact(2)).await, AppendError::Conflict { .. });
}

pub async fn a5_one_append_writes_several_streams_each_with_its_expectation(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered([1])).await;
    write(&stream(&store, "b-1"), numbered([1, 2])).await;
    let transfer = Append::to(id("a-1"), exact(1), numbered([10, 11]))
        .and(id("b-1"), ExpectedVersion::StreamExists, numbered([20]))
        .and(id("c-1"), ExpectedVersion::NoStream, numbered([30, 31]))
        .and(id("d-1"), ExpectedVersion::Any, numbered([40]));
    let appended = append(&store, transfer).await;
    let told: Vec<_> =
        appended.streams.iter().map(|part| (part.stream.as_str(), part.first.get(), part.last.get())).collect();
    assert_eq!(told, [("a-1", 2, 3), ("b-1", 3, 3), ("c-1", 1, 2), ("d-1", 1, 1)]);
    let all = log(&store).await;
    assert_eq!(texts(&all[3..]), ["10", "11", "20", "30", "31", "40"], "positions follow the order of the request");
    assert_eq!(positions(&all), up_to(9));
    let time = appended.time;
    assert!(all[3..].iter().all(|event| event.time == time), "one append has one time");
}

pub async fn a5_a_conflict_lists_every_stream_that_failed_and_writes_none(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "a-1"), numbered([1])).await;
    write(&stream(&store, "b-1"), numbered([1, 2])).await;
    let before = Recording::of(&store).await;
    let append = Append::to(id("a-1"), ExpectedVersion::NoStream, numbered([9]))
        .and(id("fine-1"), ExpectedVersion::Any, numbered([9]))
        .and(id("b-1"), exact(1), numbered([9]))
        .check(id("missing-1"), ExpectedVersion::StreamExists)
        .check(id("b-1-x"), ExpectedVersion::NoStream);
    let error = store.append(append).await.expect_err("three streams are not as expected");
    let AppendError::Conflict { conflicts } = error else { panic!("not a conflict: {error:?}") };
    assert_eq!(
        conflicts,
        [
            Conflict::stream(id("a-1"), ExpectedVersion::NoStream, v(1)),
            Conflict::stream(id("b-1"), exact(1), v(2)),
            Conflict::stream(id("missing-1"), ExpectedVersion::StreamExists, v(0)),
        ]
    );
    before.unchanged("a conflict over several streams").await;
}

pub async fn a5_a_stream_can_be_checked_without_being_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    write(&stream(&store, "bank"), numbered(1..=4)).await;
    let checked = Append::to(id("a-1"), ExpectedVersion::Any, numbered([1]))
        .check(id("bank"), exact(4))
        .check(id("closed"), ExpectedVersion::NoStream);
    let appended = append(&store, checked).await;
    let bank = &appended.streams[1];
    assert_eq!((bank.last, bank.written), (v(4), 0));
    assert_eq!(stream(&store, "bank").version().await.expect("can be asked"), v(4));
    assert!(!stream(&store, "closed").exists().await.expect("can be asked"), "a check made a stream");
}

pub async fn a5_a_stream_named_twice_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = Recording::of(&store).await;
    let twice = Append::to(id("a-1"), ExpectedVersion::Any, event("1")).check(id("a-1"), ExpectedVersion::Any);
    refused!(
        store.append(twice).await,
        AppendError::Invalid(InvalidAppend::StreamTwice { stream }) if stream == "a-1",
    );
    before.unchanged("an append that names a stream twice").await;
}

pub async fn a5_no_reader_sees_part_of_an_append(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..100 {
                let both = Append::to(id("a-1"), exact(n), numbered([n]));
                append(&store, both.and(id("b-1"), exact(n * 2), numbered([n, n]))).await;
            }
        }
    });
    loop {
        let over = writer.is_finished();
        let seen = log(&store).await;
        assert!(seen.len().is_multiple_of(3), "{} events were seen of appends of 3", seen.len());
        if over {
            assert_eq!(seen.len(), 300);
            break;
        }
    }
    writer.await.expect("the writer succeeds");
}

pub async fn a7_positions_have_no_gaps_whatever_failed_in_between(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    let with_id = || keyed("k", "1");
    for n in 0..5 {
        write(&account, numbered([n])).await;
        refused!(account.write(numbered(1..=3), ExpectedVersion::NoStream).await, AppendError::Conflict { .. });
        write(&account, with_id()).await;
        write(&account, Vec::new()).await;
        refused!(account.write(vec![with_id(), keyed("new", "2")], exact(0)).await, AppendError::PartlyKnown { .. },);
    }
    assert_eq!(positions(&log(&store).await), up_to(6));
}

pub async fn a7_nothing_new_appears_below_a_position_that_was_seen(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let handle = stream(&store, &format!("s-{writer}"));
        writers.spawn(async move {
            for n in 0..25 {
                write(&handle, numbered(vec![n; usize::try_from(n % 4 + 1).unwrap_or(1)])).await;
            }
        });
    }
    let mut followed = Vec::new();
    loop {
        let over = writers.is_empty();
        let after = followed.last().map_or(p(0), |event: &es_framework::StoredEvent| event.position);
        followed.extend(store.all().read().after(after).collect().await.expect("@all can be read"));
        if over {
            break;
        }
        while let Some(done) = writers.try_join_next() {
            done.expect("a writer succeeds");
        }
    }
    assert_eq!(followed, log(&store).await, "a reader that goes on after the last position misses nothing");
    assert_eq!(positions(&followed), up_to(followed.len() as u64));
}

pub async fn a8_one_append_has_one_time_from_the_clock_of_the_store(fixture: &impl Fixture) {
    let clock = ManualClock::at(500);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    assert_eq!(store.now(), at(500));
    write(&stream(&store, "a-1"), numbered(1..=50)).await;
    clock.set(600);
    write(&stream(&store, "a-1"), numbered([51])).await;
    let times: Vec<_> = log(&store).await.iter().map(|event| event.time).collect();
    assert!(times[..50].iter().all(|time| *time == at(500)), "one append has one time: {times:?}");
    assert_eq!(times[50], at(600));
}

pub async fn a8_a_clock_set_back_is_overruled_by_the_log_and_reported(fixture: &impl Fixture) {
    let clock = ManualClock::at(10_000);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let account = stream(&store, "a-1");
    assert_eq!(write(&account, event("1")).await.clock_behind, Duration::ZERO);
    clock.set(4_000);
    let behind = write(&stream(&store, "b-1"), event("2")).await;
    assert_eq!((behind.time, behind.clock_behind), (at(10_000), Duration::from_millis(6)));
    clock.set(10_001);
    let again = write(&account, event("3")).await;
    assert_eq!((again.time, again.clock_behind), (at(10_001), Duration::ZERO));
    let times: Vec<_> = log(&store).await.iter().map(|event| event.time.as_micros()).collect();
    assert_eq!(times, [10_000, 10_000, 10_001]);
}

pub async fn a8_a_clock_before_1970_is_no_reason_to_fail(fixture: &impl Fixture) {
    let store = fixture.open_with(Setup::default().clock(ManualClock::at(-5_000_000))).await;
    let appended = write(&stream(&store, "a-1"), event("1")).await;
    assert_eq!((appended.time, appended.clock_behind), (at(-5_000_000), Duration::ZERO));
    assert_eq!(log(&store).await[0].time, at(-5_000_000));
}

pub async fn a8_time_never_runs_backwards_in_position_order(fixture: &impl Fixture) {
    let clock = ManualClock::at(1_000);
    let store = fixture.open_with(Setup::default().clock(clock.clone())).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6_i64 {
        let (handle, clock) = (stream(&store, &format!("s-{writer}")), clock.clone());
        writers.spawn(async move {
            for n in 0..20 {
                clock.set(1_000 + (n * 37 + writer * 11) % 100);
                write(&handle, numbered([1])).await;
            }
        });
    }
    writers.join_all().await;
    let times: Vec<_> = log(&store).await.iter().map(|event| event.time).collect();
    assert_eq!(times.len(), 120);
    assert!(times.is_sorted(), "times run backwards: {times:?}");
}

pub async fn a11_a_handle_that_is_behind_is_judged_by_the_log(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (ours, theirs) = (stream(&store, "account-alice"), stream(&store, "account-alice"));
    write(&ours, event("1")).await;
    write(&theirs, event("2")).await;
    refused!(ours.write(event("3"), exact(1)).await, AppendError::Conflict { .. });
    assert_eq!(ours.version().await.expect("can be asked"), v(2));
    ours.write(event("3"), exact(2)).await.expect("the right version, though this handle wrote only version 1");
    assert_eq!(texts(&events_of(&theirs).await), ["1", "2", "3"]);
}
