use es_framework::Event;

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened {
    #[es(tag, tag = "course")]
    course: String,
}

fn main() {}
