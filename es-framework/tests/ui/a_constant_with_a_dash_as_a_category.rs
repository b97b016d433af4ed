use es_framework::{Aggregate, Event};

const CATEGORY: &str = "my-account";

#[derive(Event)]
#[es(name = "account.opened")]
struct Opened;

#[derive(Default, Clone, Aggregate)]
#[es(category = CATEGORY, event = Opened)]
struct Account;

fn main() {}
