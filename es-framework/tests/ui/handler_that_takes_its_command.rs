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

struct Deposit;

#[es_framework::commands]
impl Account {
    fn deposit(&self, _: Deposit) -> Deposited {
        Deposited
    }
}

fn main() {}
