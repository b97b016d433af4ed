use es_framework::{Aggregate, Event};

#[derive(Event)]
enum AccountEvent {}

#[derive(Default, Clone, Aggregate)]
#[es(category = "bank-account", event = AccountEvent)]
struct Account;

fn main() {}
