//! I6, I7: decisions over several aggregates and views.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use es_framework::{
    AppendError, Boundary, Conflict, Decide, DecideContext, DecisionError, ErrorKind, Events, EventsError,
    ExpectedVersion, InvalidName, LoadError, Outcome, Provenance, Repository, States, Store,
};

use crate::bank::{Account, AccountEvent, BankError, Deposit, DepositIf, Transfer, cents_of, deposit};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::school::{CourseEvent, EnrolmentEvent, SchoolError, Subscribe, Taken, open_course, subscribe};
use crate::support::{Recording, at, events_of, p, stream, v, within, write};

/// A decision reads an aggregate and two views, and its event goes to the stream that it names.
pub async fn i6_a_decision_reads_aggregates_and_views_and_its_event_names_its_stream(fixture: &impl Fixture) {
    let store = fixture.open().await;
    open_course(&store, "db", 1).await;
    let decided = store.decide(Subscribe::new("db", "ann")).await.expect("there is a seat");
    assert_eq!((decided.position, decided.events, decided.was_known), (p(2), 1, false));
    assert_eq!(decided.version_of("enrolment-ann"), Some(v(1)));
    assert_eq!(decided.version_of("course-db"), Some(v(1)), "it was read");
    let events = events_of(&stream(&store, "enrolment-ann")).await;
    assert_eq!(events[0].tags, ["course:db", "student:ann"]);
    assert_eq!(decided.time, events[0].time);

    let full = store.decide(Subscribe::new("db", "bob")).await;
    assert!(matches!(full, Err(DecisionError::Rejected(SchoolError::Full { seats: 1 }))), "{full:?}");
    let missing = store.decide(Subscribe::new("os", "bob")).await;
    assert!(matches!(missing, Err(DecisionError::Rejected(SchoolError::NoCourse))), "{missing:?}");
}

/// A view is the state of every event that its query finds, of old names too, and of no other.
pub async fn i6_a_view_is_folded_from_what_its_query_finds(fixture: &impl Fixture) {
    let store = fixture.open().await;
    assert!(store.view(Taken::of("db")).await.expect("it loads").students.is_empty());
    open_course(&store, "db", 9).await;
    subscribe(&store, "db", "ann").await;
    subscribe(&store, "os", "ann").await;
    let old = es_framework::Event::encode(&Subscribe::new("db", "bob").event()).expect("it encodes");
    let event_type = es_framework::EventType::new("enrolment.joined", 1, "bincode").expect("a valid type");
    let joined =
        es_framework::CandidateEvent::of_type(event_type, old.payload().clone()).with_tags(old.tags().to_vec());
    write(&stream(&store, "elsewhere"), joined).await;
    let taken = store.view(Taken::of("db")).await.expect("it loads");
    assert_eq!((taken.students.join(" ").as_str(), taken.seen.as_slice()), ("ann bob", &[2, 4][..]));
    subscribe(&store, "db", "cid").await;
    let taken = store.view(Taken::of("db")).await.expect("it loads");
    assert_eq!((taken.students.join(" ").as_str(), taken.seen.as_slice()), ("ann bob cid", &[2, 4, 5][..]));
    assert!(taken.as_of() >= p(5));
    let refused = store.view(Taken::of("")).await;
    assert!(matches!(refused, Err(LoadError::Name(InvalidName::NotATag { .. }))), "{refused:?}");
}

/// An aggregate that was only read is checked and not written: if it changes meanwhile, the decision is made again.
pub async fn i7_an_aggregate_that_was_only_read_is_checked(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    deposit(&inner, "other", 1).await;
    let (appends, racing) = (Arc::new(AtomicUsize::new(0)), inner.clone());
    let count = Arc::clone(&appends);
    let store = Meddling::with(&inner).before_append(move |append| {
        let (is_first, racing) = (count.fetch_add(1, Ordering::SeqCst) == 0, racing.clone());
        async move {
            if is_first {
                let empties = AccountEvent::Withdrawn { cents: 1 };
                let stream = stream(&racing, "account-other");
                stream.write_events(&[empties], ExpectedVersion::Any).await.expect("it writes");
            }
            assert_eq!(append.streams.len(), 2);
            Ok(append)
        }
    });
    let decided = store.into_store().decide(DepositIf { other: "other" }).await.expect("there is nothing to do");
    assert_eq!(decided.events, 0);
    assert_eq!(appends.load(Ordering::SeqCst), 2);
    assert_eq!(events_of(&stream(&inner, "account-mine")).await.len(), 0);
    assert_eq!(events_of(&stream(&inner, "account-other")).await.len(), 2, "nothing was written to it");
}

/// A decision over two aggregates writes both or none, each at exactly the version it has read.
pub async fn i7_a_decision_over_two_aggregates_writes_all_or_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "a", 100).await;
    let decided = store.decide(Transfer { from: "a", to: "b", cents: 70 }).await.expect("there is enough");
    assert_eq!((decided.events, decided.position), (2, p(3)));
    assert_eq!(decided.version_of("account-a"), Some(v(2)));
    assert_eq!(decided.version_of("account-b"), Some(v(1)));
    let before = Recording::of(&store).await;
    let rejected = store.decide(Transfer { from: "a", to: "b", cents: 70 }).await.expect_err("there are only 30");
    assert_eq!(rejected.rejection(), Some(&BankError::TooLittle { cents: 30 }));
    assert_eq!(rejected.kind(), ErrorKind::Caller);
    before.unchanged("a rejected decision").await;
    assert_eq!((cents_of(&store, "a").await, cents_of(&store, "b").await), (30, 70));
}

/// An aggregate that is named twice is one: both sides see the same state, and the events of both are written to its
/// stream in their order.
pub async fn i7_an_aggregate_named_twice_is_one(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "a", 100).await;
    for version in [3, 5] {
        let decided = store.decide(Transfer { from: "a", to: "a", cents: 60 }).await.expect("there is enough");
        assert_eq!((decided.events, decided.streams.len()), (2, 1));
        assert_eq!(decided.version_of("account-a"), Some(v(version)));
        assert_eq!(cents_of(&store, "a").await, 100);
    }
    let names: Vec<_> =
        events_of(&stream(&store, "account-a")).await.iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names[1..3], ["account.withdrawn", "account.deposited"]);
    let accounts = Repository::<Account>::new(&store);
    assert_eq!(accounts.execute("a", Deposit(1)).await.expect("it deposits").state.seen.len(), 6);
}

/// All states are as of one position, whatever was written between reading the first and the last.
pub async fn i6_all_states_are_as_of_one_position(fixture: &impl Fixture) {
    /// Checks that it sees the same number of events of the course and of its students.
    #[derive(Debug)]
    struct Look;

    impl Decide for Look {
        type Over = (Taken, Account, Taken);
        type Error = SchoolError;

        fn over(&self) -> Boundary<Self> {
            (Taken::of("db"), "a".to_owned(), Taken::of("db"))
        }

        fn decide(
            &self,
            (before, account, after): States<'_, Self>,
            context: &DecideContext,
        ) -> Result<Events, SchoolError> {
            assert_eq!(before.seen, after.seen);
            let newest = account.seen.last().map_or(0, |(_, position, _)| *position);
            assert!(before.seen.iter().all(|seen| *seen <= context.position().get()));
            // Each deposit was written right after a student came.
            assert_eq!(before.seen.iter().filter(|seen| **seen < newest).count(), account.seen.len());
            Ok(Events::new())
        }
    }

    let inner = fixture.open().await;
    let racing = inner.clone();
    let count = Arc::new(AtomicUsize::new(0));
    let store = Meddling::with(&inner).before_read(move |read| {
        let (n, racing) = (count.fetch_add(1, Ordering::SeqCst), racing.clone());
        async move {
            if n < 6 {
                subscribe(&racing, "db", &format!("s{n}")).await;
                deposit(&racing, "a", 1).await;
            }
            Ok(read)
        }
    });
    let store = store.into_store();
    let decided = within("the decision", store.decide(Look)).await.expect("it only looks");
    assert_eq!(decided.events, 0);
    within("the decision", store.decide(Look)).await.expect("it only looks");
}

/// Decided again under its key, a decision returns its first outcome, although its own events match what it reads.
pub async fn i5_a_key_repeated_returns_the_first_outcome(fixture: &impl Fixture) {
    let store = fixture.open().await;
    open_course(&store, "db", 1).await;
    let ann = || store.decide(Subscribe::new("db", "ann")).key("form-1");
    let first = ann().await.expect("there is a seat");
    subscribe(&store, "os", "ann").await;
    let before = Recording::of(&store).await;
    for apart in [store.clone(), Store::from(store.engine())] {
        // From memory it would be rejected: she is there already, and the course is full.
        let again = apart.decide(Subscribe::new("db", "ann")).key("form-1").await.expect("it is known");
        assert!(again.was_known);
        assert_eq!((again.position, again.time, again.events), (first.position, first.time, first.events));
        assert_eq!(again.version_of("enrolment-ann"), first.version_of("enrolment-ann"));
    }
    before.unchanged("a known decision").await;
    let reused = store.decide(Subscribe::new("db", "bob")).key("form-1").await;
    assert!(
        matches!(reused, Err(DecisionError::Append(AppendError::CommandKeyReused { .. }))),
        "another decision under the key: {reused:?}"
    );
    let record = store.command(&"form-1".try_into().expect("a key")).await.expect("it reads").expect("it is recorded");
    assert_eq!(record.command.name.as_deref(), Some("school.subscribe"));
    assert_eq!(record.appended.outcome, Outcome::Written);
}

/// Rejections are not remembered, and the log says which decision wrote an event.
pub async fn i6_provenance_travels_and_rejections_are_not_remembered(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let rejected = store.decide(Subscribe::new("db", "ann")).key("form-1").await;
    assert!(matches!(rejected, Err(DecisionError::Rejected(SchoolError::NoCourse))), "{rejected:?}");
    open_course(&store, "db", 1).await;
    let decided = store
        .decide(Subscribe::new("db", "ann"))
        .key("form-1")
        .provenance(Provenance::new().actor("the office"))
        .await
        .expect("now there is one");
    assert!(!decided.was_known);
    let events = events_of(&stream(&store, "enrolment-ann")).await;
    let metadata = events[0].metadata.as_ref().expect("it has metadata").as_str();
    assert!(metadata.contains("the office") && metadata.contains("school.subscribe"), "{metadata}");
}

/// The number of tries is bounded, and what was lost by is named.
pub async fn i6_tries_are_bounded_and_a_conflict_says_what_changed(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    open_course(&inner, "db", 90).await;
    let racing = inner.clone();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let store = Meddling::with(&inner).before_append(move |append| {
        let (n, racing) = (counted.fetch_add(1, Ordering::SeqCst), racing.clone());
        async move {
            subscribe(&racing, "db", &format!("s{n}")).await;
            Ok(append)
        }
    });
    let store = store.into_store();
    for (decision, tries) in
        [(store.decide(Subscribe::new("db", "ann")), 10), (store.decide(Subscribe::new("db", "ann")).tries(2), 2)]
    {
        let lost = decision.await.expect_err("others are faster each time");
        assert_eq!(lost.kind(), ErrorKind::Conflict);
        let DecisionError::Conflict { tries: tried, conflicts } = lost else { panic!("{lost:?}") };
        assert_eq!(tried, tries);
        let [Conflict::Condition { query, after, position }] = conflicts.as_slice() else { panic!("{conflicts:?}") };
        assert_eq!(query, Taken::of("db").query().expect("a valid query"));
        assert!(position > after);
    }
    assert_eq!(count.load(Ordering::SeqCst), 12);
}

/// No false conflict: what does not match the query of a view does not disturb a decision.
pub async fn i4_an_event_that_does_not_match_is_no_conflict(fixture: &impl Fixture) {
    let inner = fixture.open().await;
    open_course(&inner, "db", 90).await;
    let racing = inner.clone();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let store = Meddling::with(&inner).before_append(move |append| {
        counted.fetch_add(1, Ordering::SeqCst);
        let racing = racing.clone();
        async move {
            subscribe(&racing, "os", "bob").await;
            open_course(&racing, "os", 5).await;
            Ok(append)
        }
    });
    store.into_store().decide(Subscribe::new("db", "ann")).await.expect("nothing of it changed");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// A caller can insist on a version of an aggregate, whether the decision reads it or not.
pub async fn i6_a_decision_can_insist_on_a_version(fixture: &impl Fixture) {
    let store = fixture.open().await;
    deposit(&store, "a", 100).await;
    let transfer = || store.decide(Transfer { from: "a", to: "b", cents: 1 });
    transfer()
        .expecting::<Account>("a", v(1))
        .expecting::<Account>("b", ExpectedVersion::NoStream)
        .await
        .expect("so it is");
    for stale in [
        transfer().expecting::<Account>("a", v(1)),
        transfer().expecting::<Account>("c", ExpectedVersion::StreamExists),
    ] {
        let refused = stale.await;
        assert!(
            matches!(&refused, Err(DecisionError::Conflict { conflicts, .. }) if conflicts.len() == 1),
            "{refused:?}"
        );
    }
    // Memory is behind the log, and what the sender has seen is not.
    deposit(&Store::from(store.engine()), "a", 1).await;
    transfer().expecting::<Account>("a", v(3)).await.expect("so it is");
    assert_eq!(cents_of(&store, "b").await, 2);
}

/// An event that does not fit its stream, or names none, is refused before anything is written.
pub async fn i6_an_event_in_the_wrong_stream_is_refused(fixture: &impl Fixture) {
    /// Gives events to the wrong streams.
    #[derive(Debug)]
    struct Wrong(u8);

    impl Decide for Wrong {
        type Over = Account;
        type Error = BankError;

        fn over(&self) -> Boundary<Self> {
            "a".to_owned()
        }

        fn decide(&self, account: States<'_, Self>, context: &DecideContext) -> Result<Events, BankError> {
            assert_eq!((account.id().as_str(), account.exists(), context.now()), ("a", false, at(7)));
            let opened = CourseEvent::Opened { course: "db".to_owned(), seats: 1 };
            let subscribed =
                |student: &str| EnrolmentEvent::Subscribed { course: "db".to_owned(), student: student.to_owned() };
            Ok(match self.0 {
                0 => Events::new().to_stream(&crate::support::id("course-os"), opened),
                1 => Events::new()
                    .to_stream(&crate::support::id("account-a"), AccountEvent::Opened { owner: "a".into() })
                    .and(opened)
                    .to_stream(&crate::support::id("account-a"), Alien),
                2 => subscribed("").into(),
                3 => subscribed(&"x".repeat(300)).into(),
                _ => Events::new(),
            })
        }
    }

    /// An event that accounts do not know.
    #[derive(Debug, es_framework::Event)]
    #[es(name = "alien.landed")]
    struct Alien;

    let setup = crate::fixture::Setup {
        clock: Arc::new(crate::support::ManualClock::at(7)),
        ..crate::fixture::Setup::default()
    };
    let store = fixture.open_with(setup).await;
    let before = Recording::of(&store).await;
    let other = store.decide(Wrong(0)).await;
    assert!(matches!(other, Err(DecisionError::Events(EventsError::OtherStream { .. }))), "{other:?}");
    let alien = store.decide(Wrong(1)).await;
    assert!(matches!(alien, Err(DecisionError::Unreadable(_))), "{alien:?}");
    let empty = store.decide(Wrong(2)).await;
    assert!(matches!(empty, Err(DecisionError::Events(EventsError::Encode(_)))), "{empty:?}");
    let long = store.decide(Wrong(3)).await;
    assert!(matches!(long, Err(DecisionError::Events(EventsError::Encode(_)))), "{long:?}");
    assert_eq!(store.decide(Wrong(4)).await.expect("there is nothing to do").events, 0);
    before.unchanged("an event in the wrong stream").await;
}
