use es_framework::{Aggregate, Event};

#[derive(Event)]
#[es(codek = Json)]
enum AccountEvent {
    #[es(name = "", version = 0, colour = "red")]
    Opened { owner: String },
    Deposited { cents: u64 },
    #[es(name = "account.closed")]
    Closed,
    #[es(name = "account.closed")]
    Ended,
    #[es(name = 7)]
    Wrong,
    #[es(name = "account.odd", from(version = 1, typ = u8))]
    Odd,
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "my-account", event = AccountEvent, snapshot(every = 0, version = 0), snapshots)]
struct Account;

/// The fallback keeps these quiet.
fn names<A: Aggregate<Event = AccountEvent>>() -> Vec<&'static str> {
    A::Event::names()
}

fn main() {
    names::<Account>();
}
