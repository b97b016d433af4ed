use es_framework::{Actions, Aggregate, Apply, Command, Envelope, Event};
use serde::Serialize;

#[derive(Event)]
#[es(name = "received")]
struct Received;

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = Received)]
struct Account;

impl Apply for Account {
    fn apply(&mut self, _: &Received, _: Envelope<'_>) {}
}

#[derive(Serialize, Command)]
#[es(name = "receive")]
struct Receive;

fn handle(actions: &mut Actions) {
    actions.execute::<Account, _>("bob", Receive);
}

fn main() {}
