//! Whether a process is alive, and ready to serve.

use std::fmt;
use std::time::Duration;

use es_framework::engine::Read;
use es_framework::{ConsumerState, ErrorKind, Store, StreamId};
use serde_json::{Value, json};

use crate::consumer::ConsumerView;

/// How bad it may be before a process is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// How far a consumer may be behind in time; one minute by default.
    pub lag: Duration,
    /// How many positions a consumer may be behind; 100,000 by default.
    pub missing: u64,
    /// How many events a consumer may have parked; none by default.
    pub parked: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { lag: Duration::from_secs(60), missing: 100_000, parked: 0 }
    }
}

impl Bounds {
    /// Sets how far a consumer may be behind in time.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// Sets how many positions a consumer may be behind.
    #[must_use]
    pub fn missing(mut self, positions: u64) -> Self {
        self.missing = positions;
        self
    }

    /// Sets how many events a consumer may have parked.
    #[must_use]
    pub fn parked(mut self, events: u64) -> Self {
        self.parked = events;
        self
    }
}

/// Why a process is not ready. The text names consumers and numbers only, no errors and no events: probes are often
/// open to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The store cannot be read.
    Store {
        /// What could be done about it.
        kind: ErrorKind,
    },
    /// A consumer is in a state in which it processes nothing.
    Consumer {
        /// The consumer.
        name: String,
        /// Its state.
        state: ConsumerState,
    },
    /// A consumer is too far behind in time.
    Late {
        /// The consumer.
        name: String,
        /// How far it is behind.
        lag: Duration,
        /// How far it may be.
        bound: Duration,
    },
    /// A consumer is too many positions behind.
    Missing {
        /// The consumer.
        name: String,
        /// How many it is behind.
        positions: u64,
        /// How many it may be.
        bound: u64,
    },
    /// A consumer has parked too many events.
    Parked {
        /// The consumer.
        name: String,
        /// How many it has parked.
        events: u64,
        /// How many it may have.
        bound: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { kind: ErrorKind::Closed } => f.write_str("the store is closed"),
            Self::Store { kind } => write!(f, "the store cannot be read ({kind:?})"),
            Self::Consumer { name, state } => write!(f, "{name} is {state}"),
            Self::Late { name, lag, bound } => {
                write!(f, "{name} is {} s behind, and may be {} s", lag.as_secs(), bound.as_secs())
            }
            Self::Missing { name, positions, bound } => {
                write!(f, "{name} is {positions} positions behind, and may be {bound}")
            }
            Self::Parked { name, events, bound } => {
                write!(f, "{name} has parked {events} events, and may have {bound}")
            }
        }
    }
}

/// The health of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether the process can go on. If not, starting it again helps: its store is closed or fails.
    pub live: bool,
    /// Whether it can serve: the store can be read, and every consumer is within its bounds.
    pub ready: bool,
    /// Why it is not.
    pub reasons: Vec<Reason>,
}

impl Health {
    /// As a JSON object with the keys `live`, `ready` and `reasons`, a list of texts.
    pub fn to_json(&self) -> Value {
        let reasons: Vec<_> = self.reasons.iter().map(ToString::to_string).collect();
        json!({"live": self.live, "ready": self.ready, "reasons": reasons})
    }
}

/// Judges the health of a process by its store and its consumers.
///
/// A consumer that has failed makes a process not ready, but not dead: started again, it would fail at the same event.
/// One that stands by for another process is fine.
///
/// ```
/// use es_framework::{ConsumerState, MemoryStore, Position};
/// use es_telemetry::{Bounds, ConsumerView, health};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store = MemoryStore::new();
/// let failed = ConsumerView::new("balances", ConsumerState::Failed, Position::ZERO);
/// let health = health(&store, &[failed], &Bounds::default()).await;
/// assert!(health.live && !health.ready);
/// assert_eq!(health.reasons[0].to_string(), "balances is failed");
/// # }
/// ```
///
/// With axum, two routes:
///
/// ```
/// # mod axum { pub mod http { pub struct StatusCode; impl StatusCode { pub const OK: u16 = 200;
/// #     pub const SERVICE_UNAVAILABLE: u16 = 503; } } pub struct Json<T>(pub T); }
/// use axum::Json;
/// use axum::http::StatusCode;
/// use es_framework::{Running, Store};
/// use es_telemetry::{Bounds, ConsumerView, health};
///
/// async fn readyz(store: Store, balances: Running) -> (u16, Json<serde_json::Value>) {
///     let health = health(&store, &[ConsumerView::of(&balances).await], &Bounds::default()).await;
///     let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
///     (status, Json(health.to_json())) // `/livez` is the same with `health.live`
/// }
/// ```
///
/// # Cancel safety
///
/// Dropping the future has no effect.
pub async fn health(store: &Store, consumers: &[ConsumerView], bounds: &Bounds) -> Health {
    let mut reasons = Vec::new();
    let mut head_only = Read::new(StreamId::all());
    head_only.events = 0;
    let readable = store.engine().read(head_only).await;
    let mut live = true;
    if let Err(error) = readable {
        let kind = error.kind();
        live = !matches!(kind, ErrorKind::Closed | ErrorKind::Internal);
        reasons.push(Reason::Store { kind });
    }
    for consumer in consumers {
        judge(store, consumer, bounds, &mut reasons).await;
    }
    Health { live, ready: reasons.is_empty(), reasons }
}

async fn judge(store: &Store, consumer: &ConsumerView, bounds: &Bounds, reasons: &mut Vec<Reason>) {
    let (name, state) = (consumer.name.clone(), consumer.state);
    if state.is_over() || matches!(state, ConsumerState::Waiting | ConsumerState::Paused) {
        reasons.push(Reason::Consumer { name, state });
        return;
    }
    if state != ConsumerState::StandingBy {
        let (lag, positions) = (consumer.lag(store).await, consumer.missing(store));
        if lag > bounds.lag {
            reasons.push(Reason::Late { name: name.clone(), lag, bound: bounds.lag });
        }
        if positions > bounds.missing {
            reasons.push(Reason::Missing { name: name.clone(), positions, bound: bounds.missing });
        }
    }
    if consumer.parked > bounds.parked {
        reasons.push(Reason::Parked { name, events: consumer.parked, bound: bounds.parked });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use es_framework::testing::ManualClock;
    use es_framework::{CandidateEvent, ConsumerState, ExpectedVersion, Limits, MemoryStore, Position};

    use super::*;

    async fn reasons(store: &Store, consumer: &ConsumerView) -> Vec<String> {
        let health = health(store, std::slice::from_ref(consumer), &Bounds::default()).await;
        assert_eq!(health.ready, health.reasons.is_empty());
        health.reasons.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn each_bound_is_judged_and_recovers() {
        let clock = ManualClock::new();
        let store: Store = MemoryStore::with(Limits::default(), Arc::new(clock.clone())).into();
        for _ in 0..2 {
            let event = CandidateEvent::new("x", "").unwrap();
            store.open_stream("a-1").unwrap().write(event, ExpectedVersion::Any).await.unwrap();
        }
        let good = ConsumerView::new("c", ConsumerState::Live, Position::new(2));
        assert!(reasons(&store, &good).await.is_empty());
        let bad = [
            (ConsumerView { state: ConsumerState::Failed, ..good.clone() }, "c is failed"),
            (ConsumerView { state: ConsumerState::Stopped, ..good.clone() }, "c is stopped"),
            (ConsumerView { state: ConsumerState::Waiting, ..good.clone() }, "c is waiting"),
            (ConsumerView { state: ConsumerState::Paused, ..good.clone() }, "c is paused"),
            (ConsumerView { parked: 2, ..good.clone() }, "c has parked 2 events, and may have 0"),
        ];
        for (consumer, why) in bad {
            assert_eq!(reasons(&store, &consumer).await, [why]);
        }
        let behind = ConsumerView { position: Position::new(1), ..good.clone() };
        assert!(reasons(&store, &behind).await.is_empty(), "the event that is missing is new");
        clock.advance(Duration::from_secs(61));
        assert_eq!(reasons(&store, &behind).await, ["c is 61 s behind, and may be 60 s"]);
        assert!(reasons(&store, &good).await.is_empty(), "one that has nothing to do is not behind");
        let far = Bounds::default().missing(0).lag(Duration::from_secs(90));
        let health = health(&store, std::slice::from_ref(&behind), &far).await;
        assert_eq!(health.to_json()["reasons"][0], "c is 1 positions behind, and may be 0");
        let stands_by = ConsumerView { state: ConsumerState::StandingBy, ..behind };
        assert!(reasons(&store, &stands_by).await.is_empty(), "it leaves the work to another process");
    }

    #[tokio::test]
    async fn a_process_whose_store_is_closed_is_dead() {
        let store: Store = MemoryStore::new().into();
        assert!(health(&store, &[], &Bounds::default()).await.live);
        store.close().await.unwrap();
        let health = health(&store, &[], &Bounds::default()).await;
        assert!(!health.live && !health.ready);
        assert_eq!(health.reasons[0].to_string(), "the store is closed");
    }
}
