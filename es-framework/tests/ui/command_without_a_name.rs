use es_framework::Command;

#[derive(Command)]
struct Deposit {
    cents: u64,
}

fn main() {}
