use es_framework::Aggregate;

#[derive(Default, Clone, Aggregate)]
struct Account;

fn main() {}
