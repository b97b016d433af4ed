use es_framework::Event;

#[derive(Event)]
#[es = "opened"]
struct Opened;

fn main() {}
