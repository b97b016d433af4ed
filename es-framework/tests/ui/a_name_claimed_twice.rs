use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { owner: String },
    #[es(name = "account.started", alias = "account.opened")]
    Started,
}

fn main() {}
