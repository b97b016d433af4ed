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

impl Decide for Deposit {
    type Over = (Account, Account, Account, Account, Account, Account, Account, Account, Account);
    type Error = std::fmt::Error;

    fn over(&self) -> Boundary<Self> {
        todo!()
    }

    fn decide(&self, _: States<'_, Self>, _: &DecideContext) -> Result<Events, Self::Error> {
        Ok(Events::new())
    }
}

fn main() {}
