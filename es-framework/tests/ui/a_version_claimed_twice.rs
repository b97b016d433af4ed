use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    #[es(name = "account.opened", version = 2, from(version = 2, type = String))]
    Opened { owner: String },
}

impl From<String> for AccountEvent {
    fn from(owner: String) -> Self {
        Self::Opened { owner }
    }
}

fn main() {}
