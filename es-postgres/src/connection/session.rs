//! One connection, and the statements that were prepared on it.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Statement};

use crate::connection::errors::{self, Failure};

/// How long a connection that is no longer used may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The parameters of a statement.
pub(crate) type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// A statement that is executed often, and the types of its parameters.
#[derive(Debug)]
pub(crate) struct Sql {
    key: usize,
    pub(crate) text: String,
    types: Vec<Type>,
}

impl Sql {
    pub(crate) fn new(text: String, types: &[Type]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self { key: NEXT.fetch_add(1, Ordering::Relaxed), text, types: types.to_vec() }
    }
}

/// A connection. Several tasks may share it: their statements are sent one behind the other without waiting for
/// answers.
///
/// A statement is sent when the future that runs it is first polled, and takes effect even if that future is dropped.
/// Its answer must then be taken: the driver holds up everybody behind an answer that nobody takes. So statements run
/// in tasks of the store, never in a caller's future.
pub(crate) struct Session {
    client: Client,
    prepared: Mutex<HashMap<usize, Statement>>,
    /// Whether statements may be prepared: behind a pooler the next one may run on another connection.
    prepares: bool,
    driver: JoinHandle<()>,
}

impl Session {
    /// Starts to drive a connection. `heard` is notified of each notification, and when the connection ends.
    pub(crate) fn start<S, T>(
        client: Client,
        connection: Connection<S, T>,
        prepares: bool,
        heard: Option<Arc<Notify>>,
    ) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let driver = tokio::spawn(drive(connection, heard));
        Self { client, prepared: Mutex::default(), prepares, driver }
    }

    /// Whether the connection has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.client.is_closed()
    }

    /// Prepares statements, so that a pipeline that begins with them is sent in order.
    pub(crate) async fn prepare(&self, statements: &[&Sql]) -> Result<(), Failure> {
        if self.prepares {
            for sql in statements {
                self.statement(sql).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement that is executed often.
    pub(crate) async fn query(&self, sql: &Sql, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        if !self.prepares {
            return self.once(&sql.text, &sql.types, params).await;
        }
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, params).await?)
    }

    /// Runs a statement that is planned for these parameters and not kept.
    pub(crate) async fn once(&self, sql: &str, types: &[Type], params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let typed: Vec<_> = params.iter().copied().zip(types.iter().cloned()).collect();
        Ok(self.client.query_typed(sql, &typed).await?)
    }

    /// Runs statements without parameters or results.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    async fn statement(&self, sql: &Sql) -> Result<Statement, Failure> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&sql.key).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare_typed(&sql.text, &sql.types).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.key, statement.clone());
        Ok(statement)
    }

    /// Waits for `work`, which uses this connection, and gives the connection up if it takes too long: what is on its
    /// way to the server may still arrive there.
    pub(crate) async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        if let Ok(done) = timeout(patience, work).await {
            return done;
        }
        self.driver.abort();
        Err(errors::silent())
    }

    /// Ends the connection once everything that was sent is answered.
    pub(crate) async fn end(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        if timeout(GOODBYE, &mut driver).await.is_err() {
            driver.abort();
        }
    }
}

async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<Arc<Notify>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!("{}: {}", notice.severity(), notice.message()),
            Some(Ok(AsyncMessage::Notification(_))) => {
                if let Some(heard) = &heard {
                    heard.notify_one();
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                // Whoever waits for an answer gets an error, too.
                tracing::debug!(error = errors::with_cause(&error), "a connection ended");
                break;
            }
            None => break,
        }
    }
    if let Some(heard) = heard {
        heard.notify_one();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
