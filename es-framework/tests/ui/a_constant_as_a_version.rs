use es_framework::Event;

const VERSION: u32 = 2;

#[derive(Event)]
#[es(name = "account.opened", version = VERSION)]
struct Opened;

fn main() {}
