use es_framework::Event;

#[derive(Event)]
#[es(name = "opened", codec = String)]
struct Opened;

fn main() {}
