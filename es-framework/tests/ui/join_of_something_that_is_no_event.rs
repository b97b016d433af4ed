use es_framework::Event;

#[derive(Event)]
#[es(join)]
enum BankEvent {
    Text(String),
}

fn main() {}
