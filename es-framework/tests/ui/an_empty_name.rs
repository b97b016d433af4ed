use es_framework::Event;

#[derive(Event)]
#[es(name = "")]
struct Opened;

fn main() {}
