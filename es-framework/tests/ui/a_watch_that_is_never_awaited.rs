#![deny(unused_must_use)]

use es_framework::{Event, Store};

#[derive(Event)]
#[es(name = "deposited")]
struct Deposited;

async fn run(store: Store) {
    store.all().watch();
    store.watch_as::<Deposited>();
}

fn main() {}
