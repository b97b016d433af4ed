use es_framework::{Aggregate, Event};

#[derive(Event)]
enum AccountEvent {}

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 10))]
struct Account;

fn main() {}
