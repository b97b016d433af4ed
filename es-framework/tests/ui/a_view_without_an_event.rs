use es_framework::View;

#[derive(Debug, Default, Clone, View)]
#[es(tags(course))]
struct Seats;

fn main() {}
