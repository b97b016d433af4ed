//! What holds when several processes have one store open: everything else, too.
#![expect(missing_docs, reason = "a fact's name says what it checks")]

use bytes::Bytes;
use es_framework::{Append, AppendError, CellError, CellKey, ErrorKind, ExpectedVersion, Filter, Outcome, StoreError};
use tokio::task::JoinSet;

use crate::fixture::{Setup, Shared};
use crate::support::{
    ManualClock, append, at, begin, command, ends_closed, event, events_of, exact, id, keyed, log, next, numbered, p,
    positions, refused, stream, take, texts, up_to, v, versions, within, write,
};

pub async fn a2_the_writes_of_another_handle_are_judged(fixture: &impl Shared) {
    let ours = fixture.open().await;
    write(&stream(&ours, "a-1"), event("1")).await;
    let theirs = fixture.second(&ours).await;
    assert_eq!(write(&stream(&theirs, "a-1"), event("2")).await.version(), v(2));
    let account = stream(&ours, "a-1");
    refused!(account.write(event("x"), exact(1)).await, AppendError::Conflict { conflicts } if conflicts[0].actual_version() == Some((account.id(), v(2))));
    account.write(event("3"), exact(2)).await.expect("the right version, written by the other");
    stream(&theirs, "b-1").write(event("4"), ExpectedVersion::NoStream).await.expect("it is missing");
    refused!(stream(&ours, "b-1").write(event("x"), ExpectedVersion::NoStream).await, AppendError::Conflict { .. },);
    let (one, other) = (log(&ours).await, log(&theirs).await);
    assert_eq!((one.len(), &one), (4, &other));
}

pub async fn a7_positions_are_in_commit_order_over_all_handles(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = if writer % 2 == 0 { ours.clone() } else { theirs.clone() };
        writers.spawn(async move {
            for n in 0..25_u64 {
                write(&stream(&store, &format!("s-{writer}")), numbered([n, n])).await;
                // A read through either handle after a commit sees it.
            }
        });
    }
    let mut followed = Vec::new();
    let mut turn = 0;
    while followed.len() < 300 {
        turn += 1;
        let reader = if turn % 2 == 0 { &ours } else { &theirs };
        let after = followed.last().map_or(p(0), |event: &es_framework::StoredEvent| event.position);
        followed.extend(reader.all().read().after(after).collect().await.expect("can be read"));
        while let Some(done) = writers.try_join_next() {
            done.expect("a writer succeeds");
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(positions(&followed), up_to(300), "a reader that goes on after the last position misses nothing");
    assert_eq!(followed, log(&ours).await);
    for block in followed.chunks(2) {
        assert_eq!(block[0].stream, block[1].stream, "the positions of one append are one block");
    }
}

pub async fn a8_time_never_runs_backwards_over_all_handles(fixture: &impl Shared) {
    let ours = fixture.open_with(Setup::default().clock(ManualClock::at(i64::MAX / 2))).await;
    let theirs = fixture.second(&ours).await;
    write(&stream(&ours, "a-1"), event("1")).await;
    let appended = write(&stream(&theirs, "b-1"), event("2")).await;
    assert!(appended.time >= at(i64::MAX / 2), "another handle wrote an earlier time");
}

pub async fn a9_of_many_writers_of_one_version_one_wins_over_all_handles(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let mut writers = JoinSet::new();
    for n in 0..6 {
        let account = stream(if n % 2 == 0 { &ours } else { &theirs }, "a-1");
        writers.spawn(async move {
            let mut won = 0;
            for version in 0..30 {
                match account.write(event("x"), exact(version)).await {
                    Ok(_) => won += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                }
            }
            won
        });
    }
    let won: u64 = writers.join_all().await.into_iter().sum();
    assert_eq!(versions(&events_of(&stream(&ours, "a-1")).await), up_to(won), "a version was won twice or lost");
    assert!(won > 0);
}

pub async fn a9_writers_of_all_handles_that_expect_nothing_succeed(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let mut writers = JoinSet::new();
    for n in 0..20 {
        let account = stream(if n % 2 == 0 { &ours } else { &theirs }, "a-1");
        writers.spawn(async move {
            for _ in 0..10 {
                write(&account, event("x")).await;
            }
        });
    }
    within("the writers", writers.join_all()).await;
    for store in [ours, theirs] {
        assert_eq!(versions(&events_of(&stream(&store, "a-1")).await), up_to(200));
    }
}

pub async fn a12_a_command_of_another_handle_is_known(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let request = || Append::to(id("a-1"), exact(0), numbered([1])).command(command("key", "one"));
    let first = append(&ours, request()).await;
    let again = append(&theirs, request()).await;
    assert_eq!((again.outcome, &again.streams, again.time), (Outcome::AlreadyWritten, &first.streams, first.time));
    refused!(theirs.append(request().command(command("key", "two"))).await, AppendError::CommandKeyReused { .. },);
    let mut senders = JoinSet::new();
    for n in 0..12 {
        let store = if n % 2 == 0 { ours.clone() } else { theirs.clone() };
        senders.spawn(async move {
            let request = Append::to(id("b-1"), ExpectedVersion::Any, event("x")).command(command("many", "x"));
            append(&store, request).await.outcome
        });
    }
    let written = senders.join_all().await.into_iter().filter(|outcome| *outcome == Outcome::Written).count();
    assert_eq!((written, events_of(&stream(&ours, "b-1")).await.len()), (1, 1));
}

pub async fn b2_a_retry_through_another_handle_is_known(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let events = || vec![keyed("one", "1"), keyed("two", "2")];
    let first = write(&stream(&ours, "a-1"), events()).await;
    let again = stream(&theirs, "a-1").write(events(), exact(0)).await.expect("all is known");
    assert_eq!((again.outcome, again.version(), again.position), (Outcome::AlreadyWritten, v(2), first.position));
    refused!(
        stream(&theirs, "a-1").write(keyed("two", "other"), ExpectedVersion::Any).await,
        AppendError::IdReused { .. },
    );
    let appended = write(&stream(&theirs, "a-1"), vec![keyed("two", "2"), keyed("three", "3")]).await;
    assert_eq!((appended.streams[0].known, appended.version()), (1, v(3)));
    assert!(write(&stream(&ours, "a-1"), keyed("three", "3")).await.was_known());
}

pub async fn c1_reads_see_the_writes_of_another_handle_at_once(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    for n in 1..=50 {
        let (writer, reader) = if n % 2 == 0 { (&ours, &theirs) } else { (&theirs, &ours) };
        write(&stream(writer, "a-1"), numbered([n])).await;
        assert_eq!(stream(reader, "a-1").version().await.expect("can be asked"), v(n));
        let last = reader.all().read().backward().limit(1).collect().await.expect("can be read");
        assert_eq!(positions(&last), [n]);
        let by_type = reader.all().read().filter(Filter::new().types(["noted"])).collect().await.expect("can be read");
        assert_eq!(by_type.len() as u64, n, "a type that another handle was the first to write is found");
    }
}

pub async fn d3_the_writes_of_another_handle_are_noticed(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    write(&stream(&theirs, "a-1"), numbered([1])).await;
    let mut of_stream = begin(stream(&ours, "a-1").watch()).await;
    let mut of_all = begin(ours.all().watch()).await;
    let mut of_category = begin(ours.all().watch().filter(Filter::new().category("a"))).await;
    let mut of_their_own = begin(theirs.all().watch()).await;
    for n in 2..=10 {
        write(&stream(&theirs, "a-1"), numbered([n])).await;
        for watch in [&mut of_stream, &mut of_all, &mut of_category, &mut of_their_own] {
            assert_eq!(texts([&next(watch).await]), [n.to_string()]);
        }
    }
    write(&stream(&ours, "a-1"), numbered([11])).await;
    for watch in [&mut of_stream, &mut of_all, &mut of_category, &mut of_their_own] {
        assert_eq!(texts([&next(watch).await]), ["11"]);
    }
}

pub async fn d1_a_watch_begins_at_the_present_of_all_handles(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    for n in 1..=20 {
        // Just written by the other handle: ours may not have noticed yet, and must not report it as new.
        write(&stream(&theirs, "a-1"), numbered([n * 2])).await;
        let mut of_all = begin(ours.all().watch()).await;
        let mut of_stream = begin(stream(&ours, "a-1").watch()).await;
        write(&stream(&theirs, "a-1"), numbered([n * 2 + 1])).await;
        assert_eq!(texts([&next(&mut of_all).await]), [(n * 2 + 1).to_string()]);
        assert_eq!(texts([&next(&mut of_stream).await]), [(n * 2 + 1).to_string()]);
    }
}

pub async fn d1_no_gap_and_no_duplicate_while_several_handles_write(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let third = fixture.second(&ours).await;
    let stores = [ours, theirs, third];
    let mut watchers = JoinSet::new();
    for store in &stores {
        let store = store.clone();
        watchers.spawn(async move {
            let mut of_all = begin(store.all().watch().from_start()).await;
            let mut of_stream = begin(stream(&store, "s-1").watch().from_start()).await;
            assert_eq!(positions(&take(&mut of_all, 600).await), up_to(600));
            assert_eq!(versions(&take(&mut of_stream, 200).await), up_to(200));
        });
    }
    let mut writers = JoinSet::new();
    for (n, store) in stores.iter().enumerate() {
        let handle = stream(store, &format!("s-{n}"));
        writers.spawn(async move {
            for n in 0..100 {
                write(&handle, numbered([n, n])).await;
            }
        });
    }
    writers.join_all().await;
    within("the watchers", watchers.join_all()).await;
}

pub async fn d5_a_flood_by_another_handle_is_watched_whole(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let mut watch = begin(ours.all().watch()).await;
    write(&stream(&ours, "a-1"), event("x")).await;
    assert_eq!(next(&mut watch).await.position, p(1));
    for _ in 0..6 {
        write(&stream(&theirs, "flood-1"), vec![event("x"); 1_000]).await;
        write(&stream(&ours, "flood-1"), vec![event("x"); 1_000]).await;
    }
    assert_eq!(positions(&take(&mut watch, 12_000).await), (2..=12_001).collect::<Vec<_>>());
}

pub async fn e2_snapshots_are_shared_and_only_grow(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    write(&stream(&theirs, "a-1"), numbered(1..=10)).await;
    stream(&ours, "a-1").snapshot("sum", v(8), "eight").await.expect("the other handle wrote so far");
    stream(&theirs, "a-1").snapshot("sum", v(5), "five").await.expect("saving an older one is no error");
    for store in [ours, theirs] {
        let loaded = stream(&store, "a-1").load_snapshot("sum").await.expect("can be loaded").expect("was saved");
        assert_eq!((loaded.at, &loaded.state[..]), (8, &b"eight"[..]));
    }
}

pub async fn f1_all_handles_are_the_same_store(fixture: &impl Shared) {
    let ours = fixture.open().await;
    write(&stream(&ours, "a-1"), event("x")).await;
    let theirs = fixture.second(&ours).await;
    assert_eq!(ours.id(), theirs.id());
    assert_eq!(log(&ours).await, log(&theirs).await, "derived ids are the same too");
    assert_ne!(fixture.open().await.id(), ours.id());
}

pub async fn f1_a_cell_is_won_by_one_of_all_handles(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let lease = CellKey::new("lease").expect("valid");
    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert_eq!(ours.set_cell(&lease, 0, value("ours")).await.expect("it does not exist"), 1);
    refused!(theirs.set_cell(&lease, 0, value("theirs")).await, CellError::Changed { actual: 1, .. });
    let cell = theirs.cell(&lease).await.expect("can be read").expect("was set");
    assert_eq!((cell.revision, &cell.value[..]), (1, &b"ours"[..]));
    let mut setters = JoinSet::new();
    for n in 0..8 {
        let (store, lease) = (if n % 2 == 0 { ours.clone() } else { theirs.clone() }, lease.clone());
        setters.spawn(async move { store.set_cell(&lease, 1, value("x")).await.is_ok() });
    }
    assert_eq!(setters.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

pub async fn f3_closing_one_handle_leaves_the_others_open(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    let mut our_watch = begin(ours.all().watch()).await;
    let mut their_watch = begin(theirs.all().watch()).await;
    within("closing", ours.close()).await.expect("can be closed");
    ends_closed(&mut our_watch).await;
    refused!(ours.all().read().collect().await, StoreError::Closed);
    write(&stream(&theirs, "a-1"), event("still open")).await;
    assert_eq!(texts([&next(&mut their_watch).await]), ["still open"]);
    let again = fixture.second(&theirs).await;
    assert_eq!(texts(&log(&again).await), ["still open"]);
}
