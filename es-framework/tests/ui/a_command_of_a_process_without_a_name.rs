use es_framework::{Actions, Aggregate, Apply, Envelope, Event, commands};

#[derive(Event)]
#[es(name = "received")]
struct Received;

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = Received)]
struct Account;

impl Apply for Account {
    fn apply(&mut self, _: &Received, _: Envelope<'_>) {}
}

struct Receive;

#[commands]
impl Account {
    fn receive(&self, _: &Receive) -> Received {
        Received
    }
}

fn handle(actions: &mut Actions) {
    actions.execute::<Account, _>("bob", Receive);
}

fn main() {}
