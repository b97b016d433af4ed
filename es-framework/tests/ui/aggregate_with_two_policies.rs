use es_framework::{Aggregate, Event, Progress};

#[derive(Event)]
enum AccountEvent {}

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 10, when = due))]
struct Account;

fn due(_: &Account, _: Progress) -> bool {
    true
}

fn main() {}
