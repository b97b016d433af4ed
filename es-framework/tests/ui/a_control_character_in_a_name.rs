use es_framework::Event;

#[derive(Event)]
#[es(name = "account\nopened")]
struct Opened;

fn main() {}
