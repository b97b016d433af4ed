use es_framework::Event;

const EMPTY: &str = "";

#[derive(Event)]
enum AccountEvent {
    #[es(name = EMPTY)]
    Opened,
    #[es(name = concat!("account", "\n"))]
    Closed,
}

fn main() {}
