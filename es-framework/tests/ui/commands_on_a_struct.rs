#[es_framework::commands]
struct Deposit;

fn main() {}
