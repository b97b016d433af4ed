//! A school: courses with seats, students with a limit, and the rules between them.

use es_framework::{
    Aggregate, Apply, Boundary, Command, Decide, DecideContext, Envelope, Event, Events, ExpectedVersion, States,
    Store, View,
};
use serde::Serialize;

use crate::support::stream;

/// The maximum number of courses a student takes.
pub const COURSES: usize = 10;

/// What happens to courses.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(stream = "course-{course}")]
pub enum CourseEvent {
    /// It was opened.
    #[es(name = "course.opened")]
    Opened {
        /// The course.
        #[es(tag)]
        course: String,
        /// Its seats.
        seats: u32,
    },
    /// Its seats were changed.
    #[es(name = "course.resized")]
    Resized {
        /// The course.
        #[es(tag)]
        course: String,
        /// Its seats.
        seats: u32,
    },
}

/// What happens between courses and students.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(stream = "enrolment-{student}")]
pub enum EnrolmentEvent {
    /// A student got a seat. Once `enrolment.joined`.
    #[es(name = "enrolment.subscribed", alias = "enrolment.joined")]
    Subscribed {
        /// The course.
        #[es(tag)]
        course: String,
        /// The student.
        #[es(tag)]
        student: String,
    },
    /// A student left.
    #[es(name = "enrolment.unsubscribed")]
    Unsubscribed {
        /// The course.
        #[es(tag)]
        course: String,
        /// The student.
        #[es(tag)]
        student: String,
    },
}

/// A course.
#[derive(Debug, Default, Clone, PartialEq, Eq, Aggregate)]
#[es(category = "course", event = CourseEvent)]
pub struct Course {
    /// Its seats.
    pub seats: u32,
}

impl Apply for Course {
    fn apply(&mut self, event: &CourseEvent, _: Envelope<'_>) {
        let (CourseEvent::Opened { seats, .. } | CourseEvent::Resized { seats, .. }) = event;
        self.seats = *seats;
    }
}

/// The students of a course.
#[derive(Debug, Default, Clone, PartialEq, Eq, View)]
#[es(event = EnrolmentEvent, tags(course))]
pub struct Taken {
    /// In the order in which they came.
    pub students: Vec<String>,
    /// The positions of the events.
    pub seen: Vec<u64>,
}

impl Apply for Taken {
    fn apply(&mut self, event: &EnrolmentEvent, at: Envelope<'_>) {
        match event {
            EnrolmentEvent::Subscribed { student, .. } => self.students.push(student.clone()),
            EnrolmentEvent::Unsubscribed { student, .. } => self.students.retain(|other| other != student),
        }
        self.seen.push(at.position().get());
    }
}

/// The courses of a student.
#[derive(Debug, Default, Clone, PartialEq, Eq, View)]
#[es(event = EnrolmentEvent, tags(student))]
pub struct Timetable {
    /// In the order in which they were subscribed to.
    pub courses: Vec<String>,
}

impl Apply for Timetable {
    fn apply(&mut self, event: &EnrolmentEvent, _: Envelope<'_>) {
        match event {
            EnrolmentEvent::Subscribed { course, .. } => self.courses.push(course.clone()),
            EnrolmentEvent::Unsubscribed { course, .. } => self.courses.retain(|other| other != course),
        }
    }
}

/// Opens a course.
pub async fn open_course(store: &Store, course: &str, seats: u32) {
    let opened = CourseEvent::Opened { course: course.to_owned(), seats };
    let stream = stream(store, &format!("course-{course}"));
    stream.write_events(&[opened], ExpectedVersion::Any).await.expect("it writes");
}

/// Subscribes a student without asking.
pub async fn subscribe(store: &Store, course: &str, student: &str) {
    let subscribed = Subscribe::new(course, student).event();
    let stream = stream(store, &format!("enrolment-{student}"));
    stream.write_events(&[subscribed], ExpectedVersion::Any).await.expect("it writes");
}

/// Why the school says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchoolError {
    /// There is no such course.
    #[error("there is no such course")]
    NoCourse,
    /// All seats are taken.
    #[error("all {seats} seats are taken")]
    Full {
        /// The seats.
        seats: u32,
    },
    /// The student is there already.
    #[error("the student is there already")]
    Already,
    /// The student is not there.
    #[error("the student is not there")]
    NotThere,
    /// The student has too many courses.
    #[error("the student has {COURSES} courses")]
    TooMany,
}

/// Gives a student a seat.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.subscribe")]
pub struct Subscribe {
    /// The course.
    pub course: String,
    /// The student.
    pub student: String,
}

impl Subscribe {
    /// Creates the command.
    pub fn new(course: impl Into<String>, student: impl Into<String>) -> Self {
        Self { course: course.into(), student: student.into() }
    }

    /// The event that follows.
    pub fn event(&self) -> EnrolmentEvent {
        EnrolmentEvent::Subscribed { course: self.course.clone(), student: self.student.clone() }
    }
}

impl Decide for Subscribe {
    type Over = (Course, Taken, Timetable);
    type Error = SchoolError;

    fn over(&self) -> Boundary<Self> {
        (self.course.clone(), Taken::of(&self.course), Timetable::of(&self.student))
    }

    fn decide(&self, (course, taken, timetable): States<'_, Self>, _: &DecideContext) -> Result<Events, SchoolError> {
        if !course.exists() {
            return Err(SchoolError::NoCourse);
        }
        if taken.students.contains(&self.student) {
            return Err(SchoolError::Already);
        }
        if taken.students.len() >= course.seats as usize {
            return Err(SchoolError::Full { seats: course.seats });
        }
        if timetable.courses.len() >= COURSES {
            return Err(SchoolError::TooMany);
        }
        Ok(self.event().into())
    }
}

/// Gives a seat back.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.unsubscribe")]
pub struct Unsubscribe {
    /// The course.
    pub course: String,
    /// The student.
    pub student: String,
}

impl Decide for Unsubscribe {
    type Over = Timetable;
    type Error = SchoolError;

    fn over(&self) -> Boundary<Self> {
        Timetable::of(&self.student)
    }

    fn decide(&self, timetable: States<'_, Self>, _: &DecideContext) -> Result<Events, SchoolError> {
        if !timetable.courses.contains(&self.course) {
            return Err(SchoolError::NotThere);
        }
        Ok(EnrolmentEvent::Unsubscribed { course: self.course.clone(), student: self.student.clone() }.into())
    }
}
