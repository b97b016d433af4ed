use es_framework::Event;

#[derive(serde::Serialize, serde::Deserialize)]
struct Owner<'a> {
    #[serde(borrow)]
    name: &'a str,
}

#[derive(Event)]
#[es(name = "account.opened")]
struct Opened {
    text: std::borrow::Cow<'static, str>,
    owner: Owner<'static>,
}

fn main() {}
