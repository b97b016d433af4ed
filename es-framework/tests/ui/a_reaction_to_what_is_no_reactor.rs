use es_framework::{MemoryStore, Reaction};

struct Letters;

fn main() {
    let _ = Reaction::new(&MemoryStore::new(), Letters);
}
