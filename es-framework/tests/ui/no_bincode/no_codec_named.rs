use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.closed")]
    Closed,
}

fn main() {}
