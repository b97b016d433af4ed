//! Checks the rules of the school against the log, event by event, without any of the code that decided.

use std::collections::{BTreeMap, BTreeSet};

use es_framework::{Event, Store};

use super::BoxError;
use super::school::{CourseEvent, InvoiceIssued, MOST_COURSES, StudentEvent};

/// Everything that the school writes.
#[derive(Debug, Event)]
#[es(join)]
enum SchoolEvent {
    Course(CourseEvent),
    Student(StudentEvent),
    Invoice(InvoiceIssued),
}

/// What the log shows.
#[derive(Debug, Default)]
pub(crate) struct Audited {
    seats: BTreeMap<String, usize>,
    students: BTreeMap<String, BTreeSet<String>>,
    names: BTreeSet<String>,
    pub(crate) invoices: u64,
    pub(crate) events: u64,
    pub(crate) full: usize,
    pub(crate) busiest: usize,
}

/// Replays the log. Each rule must hold after each event.
pub(crate) async fn audit(store: &Store) -> Result<Audited, BoxError> {
    let mut audited = Audited::default();
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut events = store.all().read_as::<SchoolEvent>().stream();
    while let Some(event) = events.next().await {
        let event = event?;
        audited.events += 1;
        let broken = |rule: &str| Err(format!("position {}: {rule}: {:?}", event.position(), event.event()).into());
        match event.event() {
            SchoolEvent::Course(CourseEvent::Opened { course, seats }) => {
                audited.seats.insert(course.clone(), *seats);
            }
            SchoolEvent::Student(StudentEvent::Registered { student, name }) => {
                if !audited.names.insert(name.clone()) {
                    return broken("a user name is unique");
                }
                if audited.students.insert(student.clone(), BTreeSet::new()).is_some() {
                    return broken("a student is registered once");
                }
            }
            SchoolEvent::Student(StudentEvent::Subscribed { student, course }) => {
                let Some(courses) = audited.students.get_mut(student) else { return broken("a student is registered") };
                if !courses.insert(course.clone()) {
                    return broken("a student takes a course once");
                }
                if courses.len() > MOST_COURSES {
                    return broken("a student takes a limited number of courses");
                }
                audited.busiest = audited.busiest.max(courses.len());
                let taken = taken.entry(course.clone()).or_default();
                *taken += 1;
                if audited.seats.get(course).is_none_or(|seats| *taken > *seats) {
                    return broken("a course has a limited number of seats");
                }
            }
            SchoolEvent::Student(StudentEvent::Unsubscribed { student, course }) => {
                if !audited.students.get_mut(student).is_some_and(|courses| courses.remove(course)) {
                    return broken("a student leaves a course that the student takes");
                }
                *taken.entry(course.clone()).or_default() -= 1;
            }
            SchoolEvent::Invoice(InvoiceIssued { number, .. }) => {
                audited.invoices += 1;
                if *number != audited.invoices {
                    return broken("invoices are numbered without gaps");
                }
            }
        }
    }
    audited.full = audited.seats.iter().filter(|(course, seats)| taken.get(*course) == Some(seats)).count();
    Ok(audited)
}

impl Audited {
    /// The number of students.
    pub(crate) fn students(&self) -> usize {
        self.students.len()
    }
}
