use es_framework::Event;

#[derive(serde::Serialize, serde::Deserialize)]
struct CourseId(String);

#[derive(Event)]
#[es(name = "course.opened")]
struct Opened {
    #[es(tag)]
    course: CourseId,
}

fn main() {}
