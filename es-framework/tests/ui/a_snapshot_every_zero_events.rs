use es_framework::{Aggregate, Event};

const EVERY: u64 = 0;

#[derive(Event)]
#[es(name = "account.opened")]
struct Opened;

#[derive(Default, Clone, serde::Serialize, serde::Deserialize, Aggregate)]
#[es(category = "account", event = Opened, snapshot(every = EVERY))]
struct Account;

fn main() {}
