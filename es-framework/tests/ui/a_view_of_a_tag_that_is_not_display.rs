use es_framework::{Event, View};

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened;

struct CourseId;

#[derive(Debug, Default, Clone, View)]
#[es(event = Opened, tags(course: CourseId))]
struct Seats;

fn main() {}
