use es_framework::Event;

const NUMBER: u8 = 7;

#[derive(Event)]
#[es(name = NUMBER)]
struct Opened;

fn main() {}
