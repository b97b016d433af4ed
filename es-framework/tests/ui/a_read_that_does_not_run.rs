use es_framework::Store;

async fn run(store: Store) {
    let mut events = store.all().read().limit(1);
    while let Some(event) = events.next().await {}
}

fn main() {}
