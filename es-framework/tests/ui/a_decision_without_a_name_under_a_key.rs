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

#[derive(serde::Serialize)]
struct Deposit;

impl Decide for Deposit {
    type Over = Account;
    type Error = std::fmt::Error;

    fn over(&self) -> Boundary<Self> {
        "alice".to_owned()
    }

    fn decide(&self, account: States<'_, Self>, _: &DecideContext) -> Result<Events, Self::Error> {
        Ok(Events::new().to(account, Deposited))
    }
}

async fn run(store: Store) {
    let decided = store.decide(Deposit).key("form-1").await;
}

fn main() {}
