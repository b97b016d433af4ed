use es_framework::Event;

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened(u8);

#[derive(Event)]
#[es(join, stream = "all")]
enum CourseEvent {
    Opened(#[es(tag = "course")] Opened),
}

fn main() {}
