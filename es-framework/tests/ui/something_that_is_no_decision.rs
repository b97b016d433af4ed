#![allow(unused_imports, unused_variables)]

use es_framework::{Aggregate, Apply, Boundary, Decide, DecideContext, Envelope, Event, Events, States, Store};

#[derive(Debug, Event)]
#[es(name = "account.deposited")]
struct Deposited;

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "account", event = Deposited)]
struct Account;

impl Apply for Account {
    fn apply(&mut self, _: &Deposited, _: Envelope<'_>) {}
}

struct Deposit;

async fn run(store: Store) {
    let decided = store.decide(Deposit).await;
}

fn main() {}
