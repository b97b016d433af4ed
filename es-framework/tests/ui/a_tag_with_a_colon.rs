use es_framework::Event;

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened {
    #[es(tag = "course:id")]
    course: String,
}

fn main() {}
