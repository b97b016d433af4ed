//! The status of a consumer as it is stored, for other processes and for after its death.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::failure::{Category, Failure};
use super::sealed;
use super::status::{ConsumerState, Status};
use crate::log::{Position, Timestamp};

/// The status of a consumer as its runner wrote it last, in the cell `consumer/<name>/status`: at most once a second, and
/// whenever its state has changed. It can be read from every process, also after the runner has died: then
/// [`Self::written`] stays in the past.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredStatus {
    /// What it was doing.
    pub state: ConsumerState,
    /// The position it had reached.
    pub position: Position,
    /// The end of the log, as far as its process knew.
    pub head: Position,
    /// How far it was behind in time: see [`Status::behind`].
    pub behind: Duration,
    /// The number of events it handled per second, since the status was written before.
    pub rate: f64,
    /// The number of events it had handled since it started.
    pub events: u64,
    /// The last failure, whether it had recovered from it or not.
    pub last_failure: Option<Failure>,
    /// The number of parked events.
    pub parked: u64,
    /// Who held its lease, and which term it had; [`None`] without a lease.
    pub lease: Option<(String, u64)>,
    /// The token of the last wish that was carried out or refused, and why it was refused.
    pub acknowledged: Option<(String, Option<String>)>,
    /// When this was written, by the clock of its store.
    pub written: Timestamp,
}

/// The JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    state: String,
    position: u64,
    head: u64,
    /// An upper bound: positions are not dense.
    behind_positions: u64,
    behind_seconds: f64,
    events_per_second: f64,
    events: u64,
    failure: Option<FailureText>,
    parked: u64,
    owner: Option<String>,
    term: Option<u64>,
    acknowledged: Option<String>,
    refused: Option<String>,
    written: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailureText {
    category: String,
    error: String,
    position: Option<u64>,
    attempts: u32,
    time: i64,
}

impl StoredStatus {
    pub(super) fn of(status: &Status, rate: f64, now: Timestamp) -> Self {
        Self {
            state: status.state,
            position: status.position,
            head: status.head,
            behind: status.behind,
            rate,
            events: status.events,
            last_failure: status.last_failure.clone(),
            parked: status.parked as u64,
            lease: status.lease.as_ref().map(|(owner, term)| (owner.to_string(), *term)),
            acknowledged: status.acknowledged.clone().map(|token| (token, status.refused.clone())),
            written: now,
        }
    }

    fn text(&self) -> Text {
        let failure = self.last_failure.as_ref().map(|failure| FailureText {
            category: failure.category.as_str().to_owned(),
            error: failure.error.to_string(),
            position: failure.position.map(Position::get),
            attempts: failure.attempts,
            time: failure.time.as_micros(),
        });
        Text {
            state: self.state.as_str().to_owned(),
            position: self.position.get(),
            head: self.head.get(),
            behind_positions: self.head.get().saturating_sub(self.position.get()),
            behind_seconds: self.behind.as_secs_f64(),
            events_per_second: self.rate,
            events: self.events,
            failure,
            parked: self.parked,
            owner: self.lease.as_ref().map(|(owner, _)| owner.clone()),
            term: self.lease.as_ref().map(|(_, term)| *term),
            acknowledged: self.acknowledged.as_ref().map(|(token, _)| token.clone()),
            refused: self.acknowledged.as_ref().and_then(|(_, refused)| refused.clone()),
            written: self.written.as_micros(),
        }
    }

    /// The status as one JSON object, whose keys are stable: `state`, `position`, `head`, `behind_positions` (at most that
    /// many events; positions may have gaps), `behind_seconds`, `events_per_second`, `events`, `failure` (null, or
    /// `category`, `error`, `position`, `attempts`, `time`), `parked`, `owner`, `term`, `acknowledged`, `refused`,
    /// `written`. Times are microseconds since 1970, in UTC. A release may add keys.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.text()).unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Bytes {
        sealed::seal(&self.text())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text: Text = sealed::open(bytes)?;
        let last_failure = match text.failure {
            None => None,
            Some(failure) => Some(Failure {
                category: Category::ALL.into_iter().find(|known| known.as_str() == failure.category)?,
                error: failure.error.into(),
                position: failure.position.map(Position::new),
                attempts: failure.attempts,
                time: Timestamp::from_micros(failure.time),
            }),
        };
        Some(Self {
            state: ConsumerState::ALL.into_iter().find(|known| known.as_str() == text.state)?,
            position: Position::new(text.position),
            head: Position::new(text.head),
            behind: Duration::try_from_secs_f64(text.behind_seconds).ok()?,
            rate: text.events_per_second,
            events: text.events,
            last_failure,
            parked: text.parked,
            lease: text.owner.zip(text.term),
            acknowledged: text.acknowledged.map(|token| (token, text.refused)),
            written: Timestamp::from_micros(text.written),
        })
    }
}

/// What was written last, to tell whether something is new, and how many events a second were handled since.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWritten {
    last: Option<(Instant, Status)>,
}

impl LastWritten {
    /// As if this status were written.
    pub(super) fn now(status: &Status) -> Self {
        Self { last: Some((Instant::now(), status.clone())) }
    }

    /// Whether the consumer is in another state, or has acknowledged a wish: that is written soon.
    pub(super) fn is_outdated_by(&self, status: &Status) -> bool {
        self.last.as_ref().is_none_or(|(_, last)| {
            last.state != status.state || last.acknowledged != status.acknowledged || last.refused != status.refused
        })
    }

    /// Whether anything is new.
    pub(super) fn differs_from(&self, status: &Status) -> bool {
        let signature = |status: &Status| {
            let lease = status.lease.as_ref().map(|(_, term)| *term);
            let failure =
                status.last_failure.as_ref().map(|failure| (failure.time, failure.attempts, failure.position));
            (status.events, status.position, status.parked, lease, failure)
        };
        self.is_outdated_by(status) || self.last.as_ref().is_some_and(|(_, last)| signature(last) != signature(status))
    }

    pub(super) fn time(&self) -> Option<Instant> {
        self.last.as_ref().map(|(time, _)| *time)
    }

    /// The status is written now; returns the number of events a second since it was written before.
    pub(super) fn write(&mut self, status: &Status) -> f64 {
        let now = Instant::now();
        let before = self.last.replace((now, status.clone()));
        let Some((then, before)) = before else { return 0.0 };
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        let new = u32::try_from(status.events.saturating_sub(before.events)).unwrap_or(u32::MAX);
        f64::from(new) / seconds
    }
}
