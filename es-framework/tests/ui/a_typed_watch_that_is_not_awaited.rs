use es_framework::{Event, Store};

#[derive(Event)]
#[es(name = "deposited")]
struct Deposited;

async fn run(store: Store) {
    let mut watch = store.watch_as::<Deposited>();
    while let Some(event) = watch.next().await {}
}

fn main() {}
