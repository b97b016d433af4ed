//! What is looked at of a consumer, wherever its status comes from.

use std::time::Duration;

use es_framework::engine::Read;
use es_framework::{ConsumerSet, ConsumerState, Position, Running, Store, StoredStatus, StreamId, Timestamp};

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
    /// The number of events it has parked.
    pub parked: u64,
    /// When the oldest of them was parked, if that is known.
    pub oldest_parked: Option<Timestamp>,
    /// The position up to which its read model is built anew, while it is.
    pub rebuilt: Option<Position>,
}

impl ConsumerView {
    /// Creates a view of a consumer that has parked nothing.
    pub fn new(name: impl Into<String>, state: ConsumerState, position: Position) -> Self {
        Self { name: name.into(), state, position, parked: 0, oldest_parked: None, rebuilt: None }
    }

    /// Looks at a consumer of this process. Asks it for the oldest parked event only if it has parked any.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn of(consumer: &Running) -> Self {
        let status = consumer.status();
        let oldest_parked = if status.parked == 0 || status.state.is_over() {
            None
        } else {
            let parked = consumer.parked(None).await.unwrap_or_default();
            parked.iter().map(|event| event.parked).min()
        };
        let (parked, rebuilt) = (status.parked as u64, status.rebuilt);
        Self { parked, oldest_parked, rebuilt, ..Self::new(consumer.name().as_str(), status.state, status.position) }
    }

    /// Looks at every consumer of a set. One that could not start is failed, at position 0.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn of_set(consumers: &ConsumerSet) -> Vec<Self> {
        let mut views = Vec::new();
        for consumer in consumers.iter() {
            views.push(Self::of(consumer).await);
        }
        for (name, _) in consumers.failures() {
            if views.iter().all(|view| view.name != name) {
                views.push(Self::new(name, ConsumerState::Failed, Position::ZERO));
            }
        }
        views
    }

    /// Looks at the status in the store of a consumer that runs in another process, or that has died. One that died
    /// without writing its last status is in the state in which it was; that it is gone shows in its lag.
    pub fn stored(name: impl Into<String>, status: &StoredStatus) -> Self {
        Self { parked: status.parked, ..Self::new(name, status.state, status.position) }
    }

    /// The number of positions between it and the end of the log.
    pub(crate) fn missing(&self, store: &Store) -> u64 {
        store.head().get().saturating_sub(self.position.get())
    }

    /// How far it is behind in time: the age of the first event behind its position. So it grows for a consumer that is
    /// stuck, whatever the consumer itself believes.
    pub(crate) async fn lag(&self, store: &Store) -> Duration {
        if self.missing(store) == 0 {
            return Duration::ZERO;
        }
        let mut next = Read::new(StreamId::all());
        (next.after, next.events) = (self.position.get(), 1);
        // A log that cannot be read is reported as such.
        let page = store.engine().read(next).await.unwrap_or_default();
        page.events.first().map_or(Duration::ZERO, |event| store.now().since(event.time))
    }
}
