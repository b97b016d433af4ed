use es_framework::Event;

const OPENED: &str = "account.opened";

#[derive(Event)]
enum AccountEvent {
    #[es(name = OPENED)]
    Opened,
    #[es(name = "account.opened")]
    Closed,
}

#[derive(Event)]
enum CardEvent {
    #[es(name = OPENED)]
    Opened,
    #[es(name = "card.closed", alias = OPENED)]
    Closed,
}

fn main() {}
