//! Helpers shared by the tests.

use std::sync::atomic::{AtomicU32, Ordering};

use es_framework::CandidateEvent;
use es_postgres::{Builder, PostgresStore};

use crate::server;

/// A name for a schema that no other test uses.
pub(crate) fn new_schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("es test {} {}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Schemas that are dropped at the end of a test, if the server has to be left as it was.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    names: std::sync::Mutex<Vec<String>>,
}

impl Schemas {
    pub(crate) fn add(&self) -> String {
        let name = new_schema();
        self.names.lock().unwrap().push(name.clone());
        name
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        let names = std::mem::take(&mut *self.names.lock().unwrap());
        if names.is_empty() || !server::is_foreign() {
            return;
        }
        let drop_all = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", names.join("\", \""));
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(sql(server::shared().unwrap(), &drop_all));
        });
        done.join().unwrap();
    }
}

/// Runs plain SQL on a connection of its own.
pub(crate) async fn sql(url: &str, statements: &str) {
    let client = client(url).await;
    client.batch_execute(statements).await.unwrap();
}

/// A connection for plain SQL.
pub(crate) async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// How most tests open a store.
pub(crate) fn builder(schema: &str) -> Builder {
    PostgresStore::builder().schema(schema)
}

pub(crate) fn event(payload: &str) -> CandidateEvent {
    CandidateEvent::new("tested", payload.to_owned()).unwrap()
}
