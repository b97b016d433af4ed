use es_framework::Event;

#[derive(Event)]
#[es(name = "course.opened", stream = "course-{course}")]
struct Opened {
    course: Option<u8>,
}

fn main() {}
