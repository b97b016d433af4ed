use es_framework::{Aggregate, Event};

#[derive(Event)]
#[es(name = "account.opened")]
struct Opened;

#[derive(Default, Clone, serde::Serialize, serde::Deserialize, Aggregate)]
#[es(category = "account", event = Opened, snapshot(every = 100))]
struct Account {
    owner: &'static str,
}

fn main() {}
