use es_framework::Event;

const COURSE: &str = "course:";

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened {
    #[es(tag = COURSE)]
    course: String,
}

fn main() {}
