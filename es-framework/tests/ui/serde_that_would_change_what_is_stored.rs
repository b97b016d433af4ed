use es_framework::Event;

#[derive(Event)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "String")]
enum AccountEvent {
    #[es(name = "account.opened")]
    #[serde(rename = "opened", with = "elsewhere")]
    Opened { owner: String },
}

#[derive(Event)]
#[es(name = "account.closed")]
#[serde(transparent, into = "String")]
struct Closed(String);

fn main() {}
