use es_framework::Event;

#[derive(Event)]
enum AccountEvent {
    Opened { owner: String },
}

fn main() {}
