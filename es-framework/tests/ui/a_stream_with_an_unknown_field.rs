use es_framework::Event;

#[derive(Event)]
#[es(stream = "course-{course}")]
enum CourseEvent {
    #[es(name = "course.opened")]
    Opened { course: String },
    #[es(name = "course.closed")]
    Closed { id: String, by: String },
}

fn main() {}
