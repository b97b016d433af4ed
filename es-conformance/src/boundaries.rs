//! I6, I7: decisions over several aggregates and views.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use es_framework::{
    Append, Boundary, Conflict, Decide, DecideContext, Decided, DecisionError, Events, ExecuteError, ExpectedVersion,
    Provenance, Repository, States, Store,
};
use tokio::task::JoinSet;

use crate::bank::{Account, AccountEvent, BankError, Deposit};
use crate::fixture::Fixture;
use crate::meddling::Meddling;
use crate::school::{COURSES, Course, CourseEvent, SchoolError, Subscribe, Taken, Timetable, Unsubscribe};
use crate::support::{events_of, log, p, stream, v, within};

/// Opens a course.
async fn open_course(store: &Store, course: &str, seats: u32) {
    let opened = CourseEvent::Opened { course: course.to_owned(), seats };
    let stream = stream(store, &format!("course-{course}"));
    stream.write_events(&[opened], ExpectedVersion::Any).await.expect("it writes");
}

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
    let taken = store.view(Taken::of("db")).await.expect("it loads");
    assert_eq!((taken.students.as_slice(), taken.seen.as_slice()), (&["ann".to_owned()][..], &[2][..]));
}
