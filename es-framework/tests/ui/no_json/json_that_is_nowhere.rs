use es_framework::Event;

#[derive(Event)]
#[es(name = "account.opened", codec = Json)]
struct Opened;

fn main() {}
