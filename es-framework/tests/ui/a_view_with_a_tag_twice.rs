use es_framework::{Event, View};

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened;

#[derive(Debug, Default, Clone, View)]
#[es(event = Opened, tags(course, course: u8), tags())]
struct Seats;

fn main() {}
