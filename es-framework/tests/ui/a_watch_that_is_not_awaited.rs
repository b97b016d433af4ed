use es_framework::Store;

async fn run(store: Store) {
    let mut watch = store.all().watch();
    while let Some(event) = watch.next().await {}
}

fn main() {}
