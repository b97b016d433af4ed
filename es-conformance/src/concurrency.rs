//! A9–A10: many concurrent writers, and writes that nobody waits for.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use std::collections::BTreeMap;

use es_framework::{Append, AppendError, ErrorKind, ExpectedVersion};
use tokio::task::JoinSet;

use crate::fixture::Fixture;
use crate::support::{
    append, event, events_of, exact, id, log, numbered, poll_once, poll_once_and_drop, positions, stream, texts, up_to,
    v, versions, within, write,
};

pub async fn a9_twenty_writers_of_one_stream_that_expect_nothing_all_succeed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    let mut writers = JoinSet::new();
    for writer in 0..20_u64 {
        let account = account.clone();
        writers.spawn(async move {
            let mut written = Vec::new();
            for n in 0..10 {
                let tag = writer * 1_000 + n;
                let appended = write(&account, numbered([tag])).await;
                // What was acknowledged can be read immediately.
                let read = account.read().after(v(appended.version().get() - 1)).limit(1).collect().await;
                assert_eq!(texts(&read.expect("the stream can be read")), [tag.to_string()]);
                written.push((appended.version().get(), tag.to_string()));
            }
            written
        });
    }
    let mut acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();
    let events = events_of(&account).await;
    let read: Vec<_> = versions(&events).into_iter().zip(texts(&events)).collect();
    assert_eq!(read, acknowledged, "what is read is what was acknowledged");
    assert_eq!(versions(&events), up_to(200));
}

pub async fn a9_of_many_writers_of_one_version_exactly_one_wins(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    for version in 0..20 {
        let mut writers = JoinSet::new();
        for writer in 0..8_u64 {
            let account = account.clone();
            writers.spawn(async move {
                match account.write(numbered([writer]), exact(version)).await {
                    Ok(_) => Some(writer),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        None
                    }
                }
            });
        }
        let winners: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "of version {}", version + 1);
        let events = events_of(&account).await;
        assert_eq!(events.len() as u64, version + 1);
        assert_eq!(texts(events.last()), [winners[0].to_string()], "the winner's event is the one that is stored");
    }
}

pub async fn a9_writers_that_try_again_after_a_conflict_all_succeed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let account = stream(&store, "account-alice");
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let account = account.clone();
        writers.spawn(async move {
            for _ in 0..5 {
                loop {
                    let version = account.version().await.expect("can be asked");
                    match account.write(event((version.get() + 1).to_string()), version).await {
                        Ok(_) => break,
                        Err(AppendError::Conflict { conflicts }) => {
                            let (_, actual) = conflicts[0].actual_version().expect("only a stream is expected");
                            assert!(actual > version, "a conflict where there was none");
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    writers.join_all().await;
    let events = events_of(&account).await;
    assert_eq!(versions(&events), up_to(40));
    assert_eq!(texts(&events), up_to(40).iter().map(u64::to_string).collect::<Vec<_>>(), "nobody decided on old data");
}

pub async fn a9_writers_of_different_streams_do_not_disturb_each_other(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for writer in 0..20_u64 {
        let own = stream(&store, &format!("own-{writer}"));
        writers.spawn(async move {
            for n in 0..10 {
                own.write(numbered([n]), exact(n)).await.expect("nobody else writes this stream");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(positions(&log(&store).await), up_to(200));
    for writer in 0..20 {
        assert_eq!(
            texts(&events_of(&stream(&store, &format!("own-{writer}"))).await),
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
        );
    }
}

pub async fn a9_one_atomic_transfer_at_a_time_holds_over_two_streams(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for _ in 0..6 {
        let store = store.clone();
        writers.spawn(async move {
            let mut won = 0_u64;
            for _ in 0..20 {
                let version = stream(&store, "a-1").version().await.expect("can be asked");
                let both =
                    Append::to(id("a-1"), version.into(), numbered([1])).and(id("b-1"), version.into(), numbered([1]));
                match store.append(both).await {
                    Ok(_) => won += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
            won
        });
    }
    let won = writers.join_all().await.into_iter().sum::<u64>();
    assert!(won >= 20, "somebody always wins, but only {won} did");
    for half in ["a-1", "b-1"] {
        assert_eq!(versions(&events_of(&stream(&store, half)).await), up_to(won), "of {half}");
    }
}

pub async fn a9_a_caller_that_would_rather_fail_is_served_or_told_overloaded(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for n in 0..500_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let one = Append::to(id("a-1"), ExpectedVersion::Any, numbered([n])).fail_when_full();
            match store.append(one).await {
                Ok(_) => 1,
                Err(AppendError::Overloaded) => 0,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let written = writers.join_all().await.into_iter().sum::<u64>();
    assert_eq!(versions(&events_of(&stream(&store, "a-1")).await), up_to(written));
}

pub async fn a9_more_writers_than_the_queue_holds_wait_and_succeed(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut writers = JoinSet::new();
    for n in 0..5_000_u64 {
        let store = store.clone();
        writers.spawn(async move {
            append(&store, Append::to(id("a-1"), ExpectedVersion::Any, numbered([n]))).await;
        });
    }
    within("5,000 writers at once", writers.join_all()).await;
    assert_eq!(stream(&store, "a-1").version().await.expect("can be asked"), v(5_000));
}

/// A service keeps a few large writes in a list, polls each once and comes back to them much later. Whatever they are
/// waiting for, they block nobody else, and they are done when it comes back.
pub async fn a9_writes_that_nobody_polls_keep_nothing_from_others(fixture: &impl Fixture) {
    let store = fixture.open().await;
    // More bytes than may be queued by default.
    let mut kept: Vec<_> = (0..6)
        .map(|n| {
            let kept = stream(&store, &format!("kept-{n}"));
            let large = event(vec![b'x'; 15 << 20]);
            Box::pin(
                async move { kept.write(large, ExpectedVersion::NoStream).await.map(|appended| appended.version()) },
            )
        })
        .collect();
    let mut answered = Vec::new();
    for write in &mut kept {
        answered.push(poll_once(write.as_mut()).await);
    }
    let mut others = JoinSet::new();
    for writer in 0..4 {
        let other = stream(&store, &format!("other-{writer}"));
        others.spawn(async move {
            for n in 0..50 {
                write(&other, numbered([n])).await;
            }
        });
    }
    while let Some(other) = within("other writes beside those that nobody polls", others.join_next()).await {
        other.expect("a writer does not panic");
    }
    for (write, answered) in kept.into_iter().zip(answered) {
        let answer = match answered {
            Some(answer) => answer,
            None => within("a write that was kept", write).await,
        };
        assert_eq!(answer.expect("it is written"), v(1));
    }
    store.close().await.expect("a store that is idle can be closed");
}

pub async fn a10_a_dropped_write_is_whole_or_absent(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 0..100_u64 {
        let both = Append::to(id("a-1"), ExpectedVersion::Any, numbered([n, n])).and(
            id(&format!("b-{n}")),
            ExpectedVersion::NoStream,
            numbered([n]),
        );
        if n % 2 == 0 {
            poll_once_and_drop(store.append(both)).await;
        } else {
            // Dropped without ever having been polled: it never started.
            drop(store.append(both));
        }
    }
    // Later writes succeed: no transaction was left open. 64 at once, so that every writer thread there may be is
    // exercised.
    let mut writers = JoinSet::new();
    for n in 0..64 {
        let store = store.clone();
        writers.spawn(async move { write(&stream(&store, &format!("later-{n}")), event("later")).await });
    }
    within("writes after dropped ones", writers.join_all()).await;
    let mut counts = BTreeMap::<String, usize>::new();
    for event in log(&store).await.iter().filter(|event| event.stream.category() != "later") {
        *counts.entry(texts([event]).remove(0)).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 3), "half of an append was written: {counts:?}");
    let never_started = |tag: &str| tag.parse::<u64>().is_ok_and(|n| n % 2 == 1);
    assert!(!counts.keys().any(|tag| never_started(tag)), "a write that was never polled was written: {counts:?}");
}

pub async fn a10_a_task_that_is_aborted_leaves_the_store_usable(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for round in 0..20_u64 {
        let mut writers = JoinSet::new();
        for n in 0..8_u64 {
            let store = store.clone();
            writers.spawn(async move {
                loop {
                    write(&stream(&store, &format!("s-{n}")), numbered([round, round])).await;
                    // An engine that never waits would never yield.
                    tokio::task::yield_now().await;
                }
            });
        }
        tokio::task::yield_now().await;
        write(&stream(&store, "between-1"), event("between")).await;
        writers.shutdown().await;
    }
    let account = stream(&store, "account-alice");
    within("a write after aborted ones", account.write(event("1"), exact(0))).await.expect("nobody else writes it");
    for n in 0..8 {
        let events = events_of(&stream(&store, &format!("s-{n}"))).await;
        assert!(events.len().is_multiple_of(2), "half of an append was written to s-{n}");
        assert_eq!(versions(&events), up_to(events.len() as u64));
    }
}
