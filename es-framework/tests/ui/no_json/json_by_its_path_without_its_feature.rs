use es_framework::Event;

#[derive(Event)]
#[es(name = "account.opened", codec = es_framework::Json)]
struct Opened;

fn main() {}
