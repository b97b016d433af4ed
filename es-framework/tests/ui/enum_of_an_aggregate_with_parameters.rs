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

#[derive(serde::Serialize, serde::Deserialize, es_framework::Command)]
#[es(name = "account.deposit")]
struct Deposit;

struct Of<T>(T);

#[es_framework::commands(enum = AccountCommand)]
impl<T> Of<T> {}

fn main() {}
