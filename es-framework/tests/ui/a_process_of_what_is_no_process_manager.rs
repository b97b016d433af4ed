use es_framework::{Event, MemoryStore, Process};

#[derive(Default, Event)]
#[es(name = "transfer")]
struct Transfer;

fn main() {
    let _ = Process::<Transfer>::new(&MemoryStore::new());
}
