use es_framework::Event;

#[derive(Event)]
#[es(name = "course.opened", stream = "course-{course:04}")]
struct Opened {
    course: u8,
}

fn main() {}
