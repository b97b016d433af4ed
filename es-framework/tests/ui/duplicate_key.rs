use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened", version = 2, name = "account.started")]
    Opened { owner: String },
}

fn main() {}
