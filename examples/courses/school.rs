//! The school: its events, what is folded from them, and its decisions.

use es_framework::{Aggregate, Apply, Boundary, Command, Decide, DecideContext, Envelope, Event, Events, States, View};
use serde::Serialize;

/// The maximum number of courses a student takes.
pub(crate) const MOST_COURSES: usize = 10;

/// What one course costs.
pub(crate) const FEE: u64 = 4_900;

/// What happens to courses. Each event names its stream, and can be found by the course.
#[derive(Debug, Clone, PartialEq, Event)]
#[es(stream = "course-{course}")]
pub(crate) enum CourseEvent {
    #[es(name = "course.opened")]
    Opened {
        #[es(tag)]
        course: String,
        seats: usize,
    },
}

/// What happens to students. Some of it is about a course or a user name as well, and can be found by these too.
#[derive(Debug, Clone, PartialEq, Event)]
#[es(stream = "student-{student}")]
pub(crate) enum StudentEvent {
    #[es(name = "student.registered")]
    Registered {
        #[es(tag)]
        student: String,
        #[es(tag = "username")]
        name: String,
    },
    #[es(name = "student.subscribed")]
    Subscribed {
        #[es(tag)]
        student: String,
        #[es(tag)]
        course: String,
    },
    #[es(name = "student.unsubscribed")]
    Unsubscribed {
        #[es(tag)]
        student: String,
        #[es(tag)]
        course: String,
    },
}

/// An invoice. All of them are in one stream, which is what makes their numbers gap-free.
#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "invoice.issued")]
pub(crate) struct InvoiceIssued {
    pub(crate) number: u64,
    #[es(tag)]
    pub(crate) student: String,
    pub(crate) cents: u64,
}

/// A course: the state of one stream.
#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "course", event = CourseEvent)]
pub(crate) struct Course {
    seats: usize,
}

impl Apply for Course {
    fn apply(&mut self, event: &CourseEvent, _: Envelope<'_>) {
        let CourseEvent::Opened { seats, .. } = event;
        self.seats = *seats;
    }
}

/// A student, also the state of one stream.
#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "student", event = StudentEvent)]
pub(crate) struct Student {
    is_registered: bool,
    courses: Vec<String>,
}

impl Apply for Student {
    fn apply(&mut self, event: &StudentEvent, _: Envelope<'_>) {
        match event {
            StudentEvent::Registered { .. } => self.is_registered = true,
            StudentEvent::Subscribed { course, .. } => self.courses.push(course.clone()),
            StudentEvent::Unsubscribed { course, .. } => self.courses.retain(|other| other != course),
        }
    }
}

/// How many seats of a course are taken: a state across the streams of all students.
#[derive(Debug, Default, Clone, View)]
#[es(event = StudentEvent, tags(course))]
pub(crate) struct Taken {
    pub(crate) seats: usize,
}

impl Apply for Taken {
    fn apply(&mut self, event: &StudentEvent, _: Envelope<'_>) {
        match event {
            StudentEvent::Registered { .. } => {}
            StudentEvent::Subscribed { .. } => self.seats += 1,
            StudentEvent::Unsubscribed { .. } => self.seats -= 1,
        }
    }
}

/// Whether a user name is taken.
#[derive(Debug, Default, Clone, View)]
#[es(event = StudentEvent, tags(username))]
pub(crate) struct UserName {
    is_taken: bool,
}

impl Apply for UserName {
    fn apply(&mut self, _: &StudentEvent, _: Envelope<'_>) {
        self.is_taken = true;
    }
}

/// The invoices of a year: the state of the one stream that they share.
#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "invoices", event = InvoiceIssued)]
pub(crate) struct Invoices {
    last: u64,
}

impl Apply for Invoices {
    fn apply(&mut self, event: &InvoiceIssued, _: Envelope<'_>) {
        self.last = event.number;
    }
}

/// Why the school says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the user name is taken")]
    NameTaken,
    #[error("the student is registered already")]
    Registered,
    #[error("the student is not registered")]
    NotRegistered,
    #[error("the course is full")]
    Full,
    #[error("the student takes this course already")]
    Subscribed,
    #[error("the student does not take this course")]
    NotSubscribed,
    #[error("the student takes {MOST_COURSES} courses")]
    TooMany,
    #[error("the student owes nothing")]
    NothingOwed,
}

/// Registers a student under a user name that nobody else has.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.register")]
pub(crate) struct Register {
    pub(crate) student: String,
    pub(crate) name: String,
}

impl Decide for Register {
    type Over = (Student, UserName);
    type Error = Refused;

    fn over(&self) -> Boundary<Self> {
        (self.student.clone(), UserName::of(&self.name))
    }

    fn decide(&self, (student, name): States<'_, Self>, _: &DecideContext) -> Result<Events, Refused> {
        if student.is_registered {
            return Err(Refused::Registered);
        }
        if name.is_taken {
            return Err(Refused::NameTaken);
        }
        Ok(StudentEvent::Registered { student: self.student.clone(), name: self.name.clone() }.into())
    }
}

/// Gives a student a seat: one rule of the course, one of the student, one of both.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.subscribe")]
pub(crate) struct Subscribe {
    pub(crate) student: String,
    pub(crate) course: String,
}

impl Decide for Subscribe {
    type Over = (Course, Taken, Student);
    type Error = Refused;

    fn over(&self) -> Boundary<Self> {
        (self.course.clone(), Taken::of(&self.course), self.student.clone())
    }

    fn decide(&self, (course, taken, student): States<'_, Self>, _: &DecideContext) -> Result<Events, Refused> {
        if !student.is_registered {
            return Err(Refused::NotRegistered);
        }
        if student.courses.contains(&self.course) {
            return Err(Refused::Subscribed);
        }
        if student.courses.len() >= MOST_COURSES {
            return Err(Refused::TooMany);
        }
        if taken.seats >= course.seats {
            return Err(Refused::Full);
        }
        Ok(StudentEvent::Subscribed { student: self.student.clone(), course: self.course.clone() }.into())
    }
}

/// Gives a seat back. Nothing but the student is needed to decide that.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.unsubscribe")]
pub(crate) struct Unsubscribe {
    pub(crate) student: String,
    pub(crate) course: String,
}

impl Decide for Unsubscribe {
    type Over = Student;
    type Error = Refused;

    fn over(&self) -> Boundary<Self> {
        self.student.clone()
    }

    fn decide(&self, student: States<'_, Self>, _: &DecideContext) -> Result<Events, Refused> {
        if !student.courses.contains(&self.course) {
            return Err(Refused::NotSubscribed);
        }
        Ok(StudentEvent::Unsubscribed { student: self.student.clone(), course: self.course.clone() }.into())
    }
}

/// Issues an invoice for the courses that a student takes, under the number that follows the last.
#[derive(Debug, Clone, Serialize, Command)]
#[es(name = "school.invoice")]
pub(crate) struct Invoice {
    pub(crate) year: u32,
    pub(crate) student: String,
}

impl Decide for Invoice {
    type Over = (Invoices, Student);
    type Error = Refused;

    fn over(&self) -> Boundary<Self> {
        (self.year.to_string(), self.student.clone())
    }

    fn decide(&self, (invoices, student): States<'_, Self>, _: &DecideContext) -> Result<Events, Refused> {
        if student.courses.is_empty() {
            return Err(Refused::NothingOwed);
        }
        let cents = FEE * student.courses.len() as u64;
        let issued = InvoiceIssued { number: invoices.last + 1, student: self.student.clone(), cents };
        Ok(Events::new().to(invoices, issued))
    }
}
