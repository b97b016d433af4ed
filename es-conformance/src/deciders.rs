//! I6, I7: decisions at the same time, dropped, kept, and made from memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use es_framework::{
    Append, Boundary, Decide, DecideContext, DecisionError, ErrorKind, Events, ExpectedVersion, FoldPanic, LoadError,
    Repository, States, Store,
};
use tokio::task::{JoinSet, yield_now};

use crate::bank::{Account, Deposit, DepositIf, Transfer, cents_of, deposit};
use crate::fixture::{Fixture, Shared};
use crate::meddling::Meddling;
use crate::panics::{No, Said, Text, Touchy};
use crate::school::{
    COURSES, CourseEvent, SchoolError, Subscribe, Taken, Timetable, Unsubscribe, open_course, subscribe,
};
use crate::support::{Recording, events_of, log, poll_once, stream, v, within};

/// The same store, whose appends and reads take a few polls: so decisions meet halfway on every engine.
fn slow(store: &Store) -> Store {
    async fn wait() {
        for _ in 0..3 {
            yield_now().await;
        }
    }
    let slow = Meddling::with(store).before_append(|append| async {
        wait().await;
        Ok(append)
    });
    let slow = slow.before_read(|read| async {
        wait().await;
        Ok(read)
    });
    slow.into_store()
}

/// Sixty-four students want the thirty seats of a course at the same time. Those who lose line up, so nobody fails by
/// conflicts.
pub async fn i6_many_deciders_never_overbook_and_every_seat_is_taken(fixture: &impl Fixture) {
    for is_slow in [false, true] {
        let inner = fixture.open().await;
        open_course(&inner, "db", 30).await;
        let store = if is_slow { slow(&inner) } else { inner.clone() };
        let mut deciders = JoinSet::new();
        for n in 0..64 {
            let store = store.clone();
            deciders.spawn(async move { store.decide(Subscribe::new("db", format!("s{n}"))).await });
        }
        let (mut subscribed, mut full) = (0, 0);
        while let Some(decided) = within("the deciders", deciders.join_next()).await {
            match decided.expect("no panic") {
                Ok(_) => subscribed += 1,
                Err(DecisionError::Rejected(SchoolError::Full { seats: 30 })) => full += 1,
                other => panic!("nobody loses by conflicts: {other:?}"),
            }
        }
        assert_eq!((subscribed, full), (30, 34));
        assert_eq!(log(&inner).await.len(), 31);
    }
}

/// Two processes decide on the same course at the same time.
pub async fn i6_deciders_of_several_handles_never_overbook(fixture: &impl Shared) {
    let ours = fixture.open().await;
    let theirs = fixture.second(&ours).await;
    open_course(&ours, "db", 20).await;
    let mut deciders = JoinSet::new();
    for n in 0..32 {
        let store = if n % 2 == 0 { ours.clone() } else { theirs.clone() };
        deciders.spawn(async move { store.decide(Subscribe::new("db", format!("s{n}"))).tries(200).await });
    }
    let mut subscribed = 0;
    while let Some(decided) = within("the deciders", deciders.join_next()).await {
        match decided.expect("no panic") {
            Ok(_) => subscribed += 1,
            Err(DecisionError::Rejected(SchoolError::Full { seats: 20 })) => {}
            other => panic!("nobody loses by conflicts: {other:?}"),
        }
    }
    assert_eq!(subscribed, 20);
    for store in [ours, theirs] {
        assert_eq!(store.view(Taken::of("db")).await.expect("it loads").students.len(), 20);
    }
}

/// The same over handles that share no memory, as those of several processes.
pub async fn i6_deciders_without_a_common_memory_never_overbook(fixture: &impl Fixture) {
    let store = fixture.open().await;
    open_course(&store, "db", 5).await;
    let mut deciders = JoinSet::new();
    for n in 0..12 {
        let apart = Store::from(store.engine());
        deciders.spawn(async move { apart.decide(Subscribe::new("db", format!("s{n}"))).tries(100).await });
    }
    let mut subscribed = 0;
    while let Some(decided) = within("the deciders", deciders.join_next()).await {
        match decided.expect("no panic") {
            Ok(_) => subscribed += 1,
            Err(DecisionError::Rejected(SchoolError::Full { seats: 5 })) => {}
            other => panic!("nobody loses by conflicts: {other:?}"),
        }
    }
    assert_eq!(subscribed, 5);
}

/// The student takes at most ten courses, however many decisions there are at once, over any number of courses.
pub async fn i6_a_rule_across_streams_holds_under_concurrency(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 0..20 {
        open_course(&store, &n.to_string(), 3).await;
    }
    let mut deciders = JoinSet::new();
    for n in 0..20 {
        for student in ["ann", "bob"] {
            let store = store.clone();
            deciders.spawn(async move { store.decide(Subscribe::new(n.to_string(), student)).tries(50).await });
        }
    }
    while let Some(decided) = within("the deciders", deciders.join_next()).await {
        match decided.expect("no panic") {
            Ok(_) | Err(DecisionError::Rejected(SchoolError::TooMany)) => {}
            other => panic!("nobody loses by conflicts: {other:?}"),
        }
    }
    for student in ["ann", "bob"] {
        assert_eq!(store.view(Timetable::of(student)).await.expect("it loads").courses.len(), COURSES);
    }
}

/// One decision takes a seat in a course, another one makes the course smaller; whatever their order, nobody sits on the
/// floor.
#[derive(Debug)]
struct Resize {
    seats: u32,
}

impl Decide for Resize {
    type Over = Taken;
    type Error = SchoolError;

    fn over(&self) -> Boundary<Self> {
        Taken::of("db")
    }

    fn decide(&self, taken: States<'_, Self>, _: &DecideContext) -> Result<Events, SchoolError> {
        if taken.students.len() > self.seats as usize {
            return Err(SchoolError::Full { seats: self.seats });
        }
        Ok(CourseEvent::Resized { course: "db".to_owned(), seats: self.seats }.into())
    }
}

/// Two decisions read what the other writes and write what the other reads (write skew). One of them always sees the
/// other.
pub async fn i6_write_skew_between_views_is_impossible(fixture: &impl Fixture) {
    for round in 0..10 {
        let store = fixture.open().await;
        open_course(&store, "db", 1).await;
        let apart = Store::from(store.engine());
        let taking = tokio::spawn(async move { store.decide(Subscribe::new("db", "ann")).await.map(|_| store) });
        let smaller = tokio::spawn(async move { apart.decide(Resize { seats: 0 }).await.map(|_| apart) });
        let (taking, smaller) = (taking.await.expect("no panic"), smaller.await.expect("no panic"));
        assert!(taking.is_ok() != smaller.is_ok(), "round {round}: {taking:?} {smaller:?}");
    }
}

/// Money moves between five accounts in all directions at once, commands run beside it, and none is lost.
pub async fn i7_transfers_at_the_same_time_conserve_money(fixture: &impl Fixture) {
    const ACCOUNTS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    for account in ACCOUNTS {
        deposit(&store, account, 1_000).await;
    }
    let mut movers = JoinSet::new();
    for n in 0..40_u64 {
        let (store, accounts) = (store.clone(), accounts.clone());
        movers.spawn(async move {
            let place = |n: u64| ACCOUNTS[usize::try_from(n % 5).expect("a small number")];
            let transfer = Transfer { from: place(n), to: place(n * 3 + 1), cents: n };
            match store.decide(transfer).tries(100).await {
                Ok(_) | Err(DecisionError::Rejected(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if n % 8 == 0 {
                accounts.execute(place(n), Deposit(1)).await.expect("it deposits");
            }
        });
    }
    while let Some(moved) = within("the transfers", movers.join_next()).await {
        moved.expect("no panic");
    }
    let mut total = 0;
    for account in ACCOUNTS {
        let cents = cents_of(&store, account).await;
        assert_eq!(accounts.load(account).await.expect("it loads").state.cents, cents);
        total += cents;
    }
    assert_eq!(total, 5_005);
}

/// A decision is dropped after each number of polls until it is done: it is whole or absent, and others go on.
pub async fn i6_a_decision_that_is_dropped_is_whole_or_absent(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    deposit(&inner, "a", 1_000).await;
    let store = slow(&inner);
    let transfer = || Box::pin(store.decide(Transfer { from: "a", to: "b", cents: 1 }));
    let (mut completed, mut dropped) = (0, 0);
    for polls in 0.. {
        // Every other one begins without anything in memory.
        let apart = slow(&inner);
        let mut one =
            if polls % 2 == 0 { transfer() } else { Box::pin(apart.decide(Transfer { from: "a", to: "b", cents: 1 })) };
        let mut is_done = false;
        for _ in 0..polls {
            if poll_once(one.as_mut()).await.is_some() {
                is_done = true;
                break;
            }
            yield_now().await;
        }
        drop(one);
        within("another decision", transfer()).await.expect("it transfers");
        if is_done {
            completed += 1;
        } else {
            dropped += 1;
        }
        if completed == 10 || polls == 100 {
            break;
        }
    }
    assert!(dropped >= 3, "{dropped} were dropped on the way");
    let (a, b) = (cents_of(&inner, "a").await, cents_of(&inner, "b").await);
    assert_eq!(a + b, 1_000);
    assert!((2 * completed + dropped..=2 * (completed + dropped)).contains(&b), "{b} of {completed} and {dropped}");
    assert_eq!(events_of(&stream(&inner, "account-b")).await.len() as u64, b);
}

/// Decisions that were polled any number of times and are kept block nobody, even those that line up behind them; and they
/// find their outcome when they are polled again.
pub async fn i6_kept_decisions_hold_up_nobody(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    open_course(&inner, "db", 1_000).await;
    let store = slow(&inner);
    let mut expected = 0;
    for polls in 1..16 {
        let mut kept: Vec<_> = (0..5)
            .map(|n| (false, Box::pin(store.decide(Subscribe::new("db", format!("k{polls}-{n}"))).tries(50))))
            .collect();
        for _ in 0..polls {
            for (is_done, one) in kept.iter_mut().filter(|(is_done, _)| !is_done) {
                if let Some(decided) = poll_once(one.as_mut()).await {
                    decided.expect("there is a seat");
                    *is_done = true;
                }
            }
            yield_now().await;
        }
        let mut others = JoinSet::new();
        for n in 0..8 {
            let store = store.clone();
            others.spawn(async move { store.decide(Subscribe::new("db", format!("o{polls}-{n}"))).tries(50).await });
        }
        while let Some(other) = within("the decisions of other tasks", others.join_next()).await {
            other.expect("no panic").expect("there is a seat");
        }
        for (is_done, one) in kept {
            if !is_done {
                within("a kept decision", one).await.expect("there is a seat");
            }
        }
        expected += 5 + 8;
        assert_eq!(store.view(Taken::of("db")).await.expect("it loads").students.len(), expected);
    }
}

/// Says a word to two aggregates.
#[derive(Debug)]
struct SayTo(&'static str, &'static str);

impl Decide for SayTo {
    type Over = (Touchy, Vec<Touchy>);
    type Error = No;

    fn over(&self) -> Boundary<Self> {
        ("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])
    }

    fn decide(&self, (a, others): States<'_, Self>, _: &DecideContext) -> Result<Events, No> {
        assert_ne!(self.0, "decide", "deciding does not like it");
        let said = |word: &str| Said(Text(word.to_owned()));
        Ok(others.iter().fold(Events::new().to(a, said(self.1)), |events, other| events.to(other, said(self.0))))
    }
}

/// A panic in `decide` goes to its caller and harms nobody else; an event on which `apply` panics is never written.
pub async fn i6_what_panics_is_never_written_and_harms_nobody(fixture: &impl Fixture) {
    let store = fixture.open().await;
    for n in 1..=3 {
        let other = store.clone();
        let panicked = tokio::spawn(async move { other.decide(SayTo("decide", "fine")).await }).await;
        assert!(panicked.expect_err("deciding panics").is_panic());
        let before = Recording::of(&store).await;
        for (word, code) in [("apply", "apply"), ("decode", "decoding")] {
            let error = store.decide(SayTo(word, "fine")).await.expect_err("it could never be loaded again");
            assert_eq!(error.kind(), ErrorKind::Caller);
            let DecisionError::Unfoldable(FoldPanic { code: found, stream, version, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!((found, stream.as_str(), version), (code, "touchy-b", v(n)));
        }
        before.unchanged("what cannot be folded").await;
        let decided = store.decide(SayTo("fine", "fine")).await.expect("it is said");
        assert_eq!((decided.events, decided.version_of("touchy-c")), (3, Some(v(n))));
    }
    // Another program writes what this one cannot fold.
    let bad = Said(Text("apply".into()));
    stream(&store, "touchy-b").write_events(&[bad], ExpectedVersion::Any).await.expect("it writes");
    for _ in 0..2 {
        let error = store.decide(SayTo("fine", "fine")).await.expect_err("it cannot be folded");
        let DecisionError::Load(LoadError::Panicked(panic)) = error else { panic!("{error:?}") };
        assert_eq!((panic.stream.as_str(), panic.version), ("touchy-b", v(4)));
    }
}

/// `apply` may depend on an event's position, which is unknown before it is written: then the error says that it was
/// written.
pub async fn i6_an_event_that_turns_out_unfoldable_is_said_to_be_written(fixture: &impl Fixture) {
    let store = fixture.open().await;
    store.decide(SayTo("fine", "fine")).await.expect("it is said");
    let others = crate::support::numbered(1..=6);
    crate::support::write(&stream(&store, "other-1"), others).await;
    let error = store.decide(SayTo("fine", "late")).await.expect_err("it turns out");
    assert_eq!(error.kind(), ErrorKind::Data);
    let DecisionError::WrittenUnfoldable { position, .. } = error else { panic!("{error:?}") };
    assert_eq!(log(&store).await.last().map(|event| event.position), Some(position));
}

/// How many pages were read, and how many events were on them.
#[derive(Debug, Default)]
struct Reads {
    pages: AtomicU64,
    events: AtomicU64,
}

impl Reads {
    fn of(store: &Store) -> (Arc<Self>, Store) {
        let reads = Arc::<Self>::default();
        let counted = Arc::clone(&reads);
        let store = Meddling::with(store).change_page(move |page| {
            counted.pages.fetch_add(1, Ordering::SeqCst);
            counted.events.fetch_add(page.events.len() as u64, Ordering::SeqCst);
            page
        });
        (reads, store.into_store())
    }

    /// The counts since the last call.
    fn taken(&self) -> (u64, u64) {
        (self.pages.swap(0, Ordering::SeqCst), self.events.swap(0, Ordering::SeqCst))
    }
}

/// After a conflict only the events that are new are read, and only by the state that the conflict is about; with the
/// states in memory nothing is read at all.
pub async fn i6_only_what_is_new_is_read_and_folded(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    open_course(&inner, "db", 90).await;
    for n in 0..50 {
        subscribe(&inner, "db", &format!("s{n}")).await;
    }
    let (reads, store) = Reads::of(&inner);
    store.decide(Subscribe::new("db", "ann")).await.expect("there is a seat");
    assert_eq!(reads.taken(), (3, 51), "the course, its fifty students, and no courses of hers");

    // Ann's courses are known to be unchanged, and so are the course and its students.
    store.decide(Unsubscribe { course: "db".into(), student: "ann".into() }).await.expect("she is there");
    assert_eq!(reads.taken(), (0, 0));

    // Her own event is new to the course's students; and the course is not known to be the same since.
    store.decide(Subscribe::new("db", "ann")).await.expect("there is a seat");
    assert_eq!(reads.taken(), (2, 1));

    // Another process is faster: its two events are read, and not the fifty before.
    subscribe(&inner, "db", "eva").await;
    subscribe(&inner, "db", "fay").await;
    store.decide(Subscribe::new("db", "bob")).await.expect("there is a seat");
    assert_eq!(reads.taken(), (3, 2), "his courses; the two students; and the course up to there");
    let taken = store.view(Taken::of("db")).await.expect("it loads");
    assert_eq!(taken.students.len(), 54);
    assert!(taken.seen.is_sorted());
    assert_eq!(*taken.students, *Store::from(inner.engine()).view(Taken::of("db")).await.expect("it loads").students);
}

/// The cache of the repository serves decisions, and decisions warm it: neither reads what the other has read.
pub async fn i6_decisions_and_commands_share_what_they_have_read(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    deposit(&inner, "a", 100).await;
    let (reads, store) = Reads::of(&inner);
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("b", Deposit(1)).await.expect("it deposits");
    accounts.execute("a", Deposit(1)).await.expect("it deposits");
    reads.taken();
    store.decide(Transfer { from: "a", to: "b", cents: 10 }).await.expect("there is enough");
    assert!(reads.taken().1 == 0, "no event was read again");
    store.decide(Transfer { from: "a", to: "b", cents: 10 }).await.expect("there is enough");
    assert_eq!(reads.taken(), (0, 0));
    let receipt = accounts.execute("a", Deposit(1)).await.expect("it deposits");
    assert_eq!((receipt.state.cents, receipt.version), (82, v(5)));
    assert_eq!(reads.taken(), (0, 0));
    assert_eq!(accounts.metrics().conflicts, 0);
}

/// A decision that is rejected by what memory holds is confirmed by the log; if memory was behind, it is made again.
pub async fn i6_a_rejection_from_memory_is_confirmed(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    open_course(&inner, "db", 1).await;
    let appends = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&appends);
    let counted = Meddling::with(&inner).before_append(move |append: Append| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(append) }
    });
    let store = counted.into_store();
    store.decide(Subscribe::new("db", "ann")).await.expect("there is a seat");
    let full = store.decide(Subscribe::new("db", "bob")).await;
    assert!(matches!(full, Err(DecisionError::Rejected(SchoolError::Full { .. }))), "{full:?}");
    assert_eq!(appends.load(Ordering::SeqCst), 2, "the rejection was confirmed by an append");

    // Somebody else gives the seat back, and memory does not know.
    let apart = Store::from(inner.engine());
    apart.decide(Unsubscribe { course: "db".into(), student: "ann".into() }).await.expect("she is there");
    store.decide(Subscribe::new("db", "bob")).await.expect("there is a seat after all");
    assert_eq!(appends.load(Ordering::SeqCst), 4, "the rejection was not confirmed, and the event was written");

    // A decision for nothing is confirmed as well.
    deposit(&inner, "other", 0).await;
    store.decide(DepositIf { other: "other" }).await.expect("there is nothing to do");
    deposit(&inner, "other", 5).await;
    assert_eq!(store.decide(DepositIf { other: "other" }).await.expect("now there is").events, 1);
}

/// What was read since the decision began needs no confirmation: a rejection of a first decision costs no append.
pub async fn i6_a_rejection_from_a_fresh_load_is_final(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    let appends = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&appends);
    let counted = Meddling::with(&inner).before_append(move |append: Append| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(append) }
    });
    let rejected = counted.into_store().decide(Subscribe::new("db", "ann")).await;
    assert!(matches!(rejected, Err(DecisionError::Rejected(SchoolError::NoCourse))), "{rejected:?}");
    assert_eq!(appends.load(Ordering::SeqCst), 0);
}
