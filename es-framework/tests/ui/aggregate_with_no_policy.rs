use es_framework::{Aggregate, Event};

#[derive(Event)]
enum AccountEvent {}

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(version = 2))]
struct Account;

fn main() {}
