use es_framework::Event;

#[derive(Event)]
union Either {
    number: u32,
    float: f32,
}

fn main() {}
