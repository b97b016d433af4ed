use es_framework::Event;

#[derive(Event)]
#[es(name = "opened")]
struct Opened {
    #[es(name = "owner")]
    owner: String,
}

fn main() {}
