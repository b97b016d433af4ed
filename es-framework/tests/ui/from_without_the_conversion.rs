use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened", version = 2, from(version = 1, type = String))]
    Opened { owner: String },
}

fn main() {}
