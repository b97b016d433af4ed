use es_framework::{Aggregate, Apply, Envelope, Event};

#[derive(Debug, Event)]
#[es(name = "deposited")]
struct Deposited;

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "account", event = Deposited)]
struct Account;

impl Apply for Account {
    fn apply(&mut self, _: &Deposited, _: Envelope<'_>) {}
}

use es_framework::Context;

struct Deposit;
struct Rates;
struct Limits;

#[es_framework::commands]
impl Account {
    fn deposit(&self, _: &Deposit, _: &Context<'_, Self>, _: &Rates, _: &Limits) -> Deposited {
        Deposited
    }
}

fn main() {}
