use es_framework::Aggregate;

#[derive(Default, Clone, Aggregate)]
#[es(category = "account", event = String)]
struct Account;

fn main() {}
