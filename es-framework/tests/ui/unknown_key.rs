use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(nmae = "account.opened")]
    Opened { owner: String },
}

fn main() {}
