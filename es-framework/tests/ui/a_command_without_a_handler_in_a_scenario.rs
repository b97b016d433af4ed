use es_framework::{Aggregate, Apply, Envelope, Event, Scenario};

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

fn run(alice: Scenario<Account>) {
    let subtracted = alice.when(&Sub);
}

fn main() {}
