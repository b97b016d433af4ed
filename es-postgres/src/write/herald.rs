//! Tells other processes that the log has grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use es_framework::{Position, StoreId};
use tokio::sync::Notify;

use crate::read::pool::Pool;
use crate::tables::log::channel;
use crate::tables::statements::Statements;

/// Where commits are announced: a task sends the newest position, one notification at a time.
///
/// It runs behind the commit and beside the writer. Inside the transaction a notification would hold a lock of the
/// whole cluster while the commit is flushed, and a full queue of notifications would fail appends. Behind it, only a
/// hint can be lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Herald {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    head: AtomicU64,
    changed: Notify,
}

impl Herald {
    /// Announces that the log has reached a position.
    pub(super) fn announce(&self, head: Position) {
        self.state.head.fetch_max(head.get(), Ordering::AcqRel);
        self.state.changed.notify_one();
    }

    /// Sends announcements until the task is ended.
    pub(super) async fn work(self, pool: Arc<Pool>, statements: Arc<Statements>, store: StoreId) {
        let channel = channel(store);
        let mut told = 0;
        loop {
            self.state.changed.notified().await;
            let head = self.state.head.load(Ordering::Acquire);
            if head <= told {
                continue;
            }
            let text = head.to_string();
            let (channel, text, statements) = (&channel, &text, &statements);
            let sent = pool
                .once(Instant::now(), move |session| async move {
                    session.query(&statements.notify, &[channel, text]).await
                })
                .await;
            match sent {
                Ok(_) => told = head,
                // It is a hint: those who wait for it poll, too.
                Err(failure) => tracing::debug!(?failure, "a commit could not be announced"),
            }
        }
    }
}
