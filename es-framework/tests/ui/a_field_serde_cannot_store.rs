use es_framework::Event;

struct Secret;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { secret: Secret },
}

fn main() {}
