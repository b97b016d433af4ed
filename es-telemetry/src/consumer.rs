//! What is looked at of a consumer, wherever its status comes from.

use std::time::Duration;

use es_framework::{ConsumerState, Position, Running, Store, Timestamp};

/// A consumer at one moment, for [`health`](crate::health()) and [`Telemetry::sample`](crate::Telemetry::sample).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerView {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: ConsumerState,
    /// The position it has reached.
    pub position: Position,
    /// How far it is behind in time, as far as it knows; zero if it has caught up.
    pub behind: Duration,
    /// The number of events it has parked.
    pub parked: u64,
    /// When the oldest of them was parked, if that is known.
    pub oldest_parked: Option<Timestamp>,
    /// When this was written; [`None`] if it is the present.
    pub written: Option<Timestamp>,
}

impl ConsumerView {
    /// Creates a view of a consumer that has parked nothing and is not behind.
    pub fn new(name: impl Into<String>, state: ConsumerState, position: Position) -> Self {
        let (name, behind) = (name.into(), Duration::ZERO);
        Self { name, state, position, behind, parked: 0, oldest_parked: None, written: None }
    }

    /// Looks at a consumer of this process. Asks it for the oldest parked event only if it has parked any.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn of(consumer: &Running) -> Self {
        let status = consumer.status();
        let oldest_parked = if status.parked == 0 {
            None
        } else {
            // One that has ended answers nothing.
            let parked = consumer.parked(None).await.unwrap_or_default();
            parked.iter().map(|event| event.parked).min()
        };
        let parked = status.parked as u64;
        Self { parked, oldest_parked, ..Self::new(consumer.name().as_str(), status.state, status.position) }
    }

    /// The number of positions between it and the end of the log.
    pub(crate) fn missing(&self, store: &Store) -> u64 {
        store.head().get().saturating_sub(self.position.get())
    }

    /// How far it is behind in time. A status that was written a while ago, and is not at the end of the log, is of a
    /// process that is gone or stuck: one that runs writes it again within a second.
    pub(crate) fn lag(&self, store: &Store) -> Duration {
        if self.missing(store) == 0 {
            return Duration::ZERO;
        }
        let silent = self.written.map_or(Duration::ZERO, |written| store.now().since(written));
        self.behind.max(silent)
    }
}
