//! What nobody reports, and has to be looked at: positions, states, sizes.

use std::path::Path;

use es_framework::{ConsumerState, Store};

use crate::consumer::ConsumerView;
use crate::table;
use crate::telemetry::{Telemetry, number};

impl Telemetry {
    /// Sets the gauges of the store and of its consumers. Call it every few seconds, or before each scrape: reports come
    /// only from consumers that work, and a consumer that is stuck or dead is seen here.
    ///
    /// ```
    /// # use es_framework::{MemoryStore, Running, Store};
    /// # use es_telemetry::{ConsumerView, Telemetry};
    /// async fn every_few_seconds(telemetry: &Telemetry, store: &Store, balances: &Running) {
    ///     telemetry.sample(store, &[ConsumerView::of(balances).await]).await;
    /// }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, some of the gauges have their new values.
    pub async fn sample(&self, store: &Store, consumers: &[ConsumerView]) {
        self.set(table::STORE_POSITION, &[], number(store.head().get()));
        for consumer in consumers {
            let name = [consumer.name.as_str()];
            self.set(table::CONSUMER_POSITION, &name, number(consumer.position.get()));
            self.set(table::CONSUMER_LAG_EVENTS, &name, number(consumer.missing(store)));
            self.set(table::CONSUMER_LAG_SECONDS, &name, consumer.lag(store).await.as_secs_f64());
            self.set(table::CONSUMER_PARKED, &name, number(consumer.parked));
            let oldest = consumer.oldest_parked.map_or(0.0, |time| store.now().since(time).as_secs_f64());
            self.set(table::CONSUMER_PARKED_OLDEST, &name, oldest);
            let head = number(store.head().get()).max(1.0);
            let rebuilt = consumer.rebuilt.map_or(1.0, |position| number(position.get()) / head);
            self.set(table::REBUILD_PROGRESS, &name, rebuilt);
            for state in ConsumerState::ALL {
                let is_in_it = if state == consumer.state { 1.0 } else { 0.0 };
                self.set(table::CONSUMER_STATE, &[&consumer.name, state.as_str()], is_in_it);
            }
        }
    }

    /// Sets the gauges of the files of an SQLite store: the database, and the write-ahead log next to it. A file that
    /// is not there has no bytes.
    pub fn sample_files(&self, database: impl AsRef<Path>) {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let database = database.as_ref();
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        self.set(table::STORE_BYTES, &[], number(bytes(database)));
        self.set(table::WAL_BYTES, &[], number(bytes(Path::new(&wal))));
    }
}
