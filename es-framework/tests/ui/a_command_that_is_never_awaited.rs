#![deny(unused_must_use)]

use es_framework::{Aggregate, Apply, Envelope, Event, Repository};

#[derive(Debug, Event)]
#[es(name = "deposited")]
struct Deposited;

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "account", event = Deposited)]
struct Account;

impl Apply for Account {
    fn apply(&mut self, _: &Deposited, _: Envelope<'_>) {}
}

struct Add;
struct Sub;

#[es_framework::commands]
impl Account {
    fn add(&self, _: &Add) -> Deposited {
        Deposited
    }
}

async fn run(accounts: Repository<Account>) {
    accounts.execute("alice", Add);
}

fn main() {}
