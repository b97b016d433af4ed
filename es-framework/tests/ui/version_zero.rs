use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened", version = 0)]
    Opened { owner: String },
}

fn main() {}
