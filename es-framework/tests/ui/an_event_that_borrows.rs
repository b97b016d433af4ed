use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { owner: &'static str, keys: Option<Vec<&'static [u8]>> },
    #[es(name = "account.closed")]
    Closed(Box<&'static u64>),
}

fn main() {}
