use es_framework::{Event, Json};

#[derive(Event)]
#[es(name = "account.opened", codec = Json)]
struct Opened;

fn main() {}
