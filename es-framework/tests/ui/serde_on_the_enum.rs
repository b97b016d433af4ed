use es_framework::Event;

#[derive(Event)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AccountEvent {
    #[es(name = "account.opened")]
    #[serde(rename = "opened")]
    Opened { owner: String },
}

fn main() {}
