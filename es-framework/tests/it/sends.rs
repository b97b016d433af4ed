//! Every future of the store can be spawned, and its handles can be shared.

use std::convert::Infallible;

use es_framework::{
    Append, Boundary, CellKey, CommandKey, Decide, DecideContext, Decision, Events, ExpectedVersion, Filter,
    ListStreams, MemoryStore, Reader, Reading, States, Store, Stream, Version, Watch, WatchBuilder,
};

fn is_send<T: Send + 'static>(_: impl FnOnce(&'static Store) -> T) {}
fn is_send_and_sync<T: Send + Sync + Clone + 'static>() {}
fn can_be_spawned<T: Send + Unpin + 'static>() {}

/// Decides on nothing, for nothing.
struct Nothing;

impl Decide for Nothing {
    type Over = ();
    type Error = Infallible;

    fn over(&self) -> Boundary<Self> {}

    fn decide(&self, (): States<'_, Self>, _: &DecideContext) -> Result<Events, Infallible> {
        Ok(Events::new())
    }
}

/// It compiles or does not.
#[test]
fn the_futures_of_the_store_are_send() {
    is_send(|store| store.append(Append::default()));
    is_send(|store| store.streams(ListStreams::default()));
    is_send(Store::close);
    is_send(|store| async { store.all().write(Vec::new(), ExpectedVersion::Any).await });
    is_send(|store| async { store.all().write(Vec::new(), Version::ZERO).await });
    is_send(|store| async { store.all().version().await });
    is_send(|store| async { store.all().metrics().await });
    is_send(|store| async { store.all().snapshot("sum", Version::ZERO, "state").await });
    is_send(|store| async { store.all().load_snapshot("sum".to_owned()).await });
    is_send(|store| store.all().read().filter(Filter::new()).collect());
    is_send(|store| async { store.all().read().stream().next_batch().await });
    is_send(|store| async { store.all().watch().from_start().await?.next().await.transpose() });
    is_send(|store| async {
        let key = CellKey::new("key")?;
        Ok::<_, es_framework::InvalidName>((
            store.cell(&key).await.is_ok(),
            store.set_cell(&key, 0, None).await.is_ok(),
        ))
    });
    is_send(|store| async {
        let key = CommandKey::new("key")?;
        Ok::<_, es_framework::InvalidName>(store.command(&key).await.is_ok())
    });
    is_send(|_: &'static Store| Store::from(MemoryStore::new()).decide(Nothing));
    is_send(|store| store.decide(Nothing));
    is_send_and_sync::<Store>();
    is_send_and_sync::<Stream>();
    is_send_and_sync::<Reader>();
    is_send_and_sync::<WatchBuilder>();
    can_be_spawned::<Reading>();
    can_be_spawned::<Watch>();
    can_be_spawned::<Decision<'static, Nothing>>();
}
