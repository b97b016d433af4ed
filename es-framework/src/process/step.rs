//! Steps: what a process's stream consists of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::actions::OpenTimeout;
use super::error::ProcessError;
use super::manager::ProcessManager;
use super::rejection::Rejected;
use super::schedule::Scheduled;
use crate::domain::{Envelope, Provenance, decode_event};
use crate::log::{Fingerprint, InvalidMetadata, Metadata, StoredEvent, Timestamp, Version};

/// A step that was written: the state after it, and what belongs to it.
#[derive(Debug)]
pub(super) struct Step<P> {
    pub(super) state: P,
    pub(super) record: StepRecord,
    pub(super) stored: StoredEvent,
}

/// What is kept of a step beside the state: the entry `process` of its metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StepRecord {
    pub(super) cause: Cause,
    /// The position of the last event that the instance has handled.
    pub(super) event: u64,
    /// The number of commands of the step.
    pub(super) commands: u32,
    /// Identifies the commands, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    /// The timeouts that are open after the step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) timeouts: BTreeMap<String, OpenTimeout>,
    pub(super) completed: bool,
}

/// What led to a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    Event { position: u64 },
    Timeout { name: String, due: i64, set: u64 },
    Rejected(Rejected),
}

/// The metadata of a step, as far as it is read here.
#[derive(Deserialize)]
struct Entries {
    process: StepRecord,
}

impl<P: ProcessManager> Step<P> {
    pub(super) fn decode(stored: StoredEvent) -> Result<Self, ProcessError> {
        let not_a_step = || ProcessError::NotAStep { stream: stored.stream.clone(), version: stored.version };
        let metadata = stored.metadata.as_ref().map_or("", Metadata::as_str);
        let Entries { process: record } = serde_json::from_str(metadata).map_err(|_| not_a_step())?;
        let state = decode_event::<P>(&stored)?;
        Ok(Self { state, record, stored })
    }

    pub(super) fn version(&self) -> Version {
        self.stored.version
    }

    /// The provenance of its commands: their events are caused by the step.
    pub(super) fn provenance(&self) -> Provenance {
        Provenance::caused_by(Envelope::of(&self.stored)).actor(P::NAME)
    }

    /// The first of its open timeouts, if it was due before this time.
    pub(super) fn overdue_at(&self, time: Timestamp) -> Option<Scheduled> {
        let first = self.record.timeouts.iter().min_by_key(|(_, open)| (open.due, open.set));
        let (name, open) = first.filter(|(_, open)| open.due < time.as_micros())?;
        Some(Scheduled { stream: self.stored.stream.clone(), name: name.clone(), due: open.due, set: open.set })
    }
}

impl StepRecord {
    /// The metadata of the step.
    pub(super) fn to_metadata(&self, provenance: Provenance) -> Result<Option<Metadata>, InvalidMetadata> {
        let record = serde_json::to_value(self).map_err(|source| InvalidMetadata::NotSerializable { source })?;
        provenance.with("process", record).to_metadata()
    }
}

/// Identifies the commands of a step.
pub(super) fn identity_of(commands: &[(crate::log::StreamId, Fingerprint)]) -> Option<String> {
    if commands.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for (stream, fingerprint) in commands {
        bytes.extend_from_slice(stream.as_str().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&fingerprint.to_bytes());
    }
    Some(Fingerprint::of(&bytes).to_string())
}

/// The beginning of the keys of a step's commands.
pub(super) fn key_base(stream: &str, cause: &Cause) -> String {
    let stream = escaped(stream);
    match cause {
        Cause::Event { position } => format!("{stream}/{position}"),
        Cause::Timeout { name, set, .. } => format!("{stream}/{}@{set}", escaped(name)),
        Cause::Rejected(rejected) => rejected.key.to_string(),
    }
}

/// The key of command `n` of a step.
pub(super) fn key_text(base: &str, n: usize) -> String {
    /// What is left of a key that is too long.
    const KEPT: usize = 200;
    let text = format!("{base}/{n}");
    if text.len() <= crate::log::MAX_NAME_BYTES {
        return text;
    }
    let kept = (0..=KEPT).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    format!("{kept}#{}", Fingerprint::of(text.as_bytes()))
}

/// The text with `%`, `/` and `@` written as in a URL.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F").replace('@', "%40")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::CommandKey;

    fn rejected(key: &str) -> Cause {
        let (key, stream) = (CommandKey::new(key).unwrap(), crate::log::StreamId::new("account-bob").unwrap());
        Cause::Rejected(Rejected { command: "receive".into(), stream, key, reason: "closed".into() })
    }

    /// The store remembers keys of this form.
    #[test]
    fn the_form_of_a_key_never_changes() {
        let event = Cause::Event { position: 42 };
        assert_eq!(key_text(&key_base("transfer-17", &event), 0), "transfer-17/42/0");
        assert_eq!(key_text(&key_base("transfer-a/b@c%", &event), 3), "transfer-a%2Fb%40c%25/42/3");
        let timeout = Cause::Timeout { name: "too late".into(), due: 5, set: 2 };
        assert_eq!(key_text(&key_base("transfer-17", &timeout), 1), "transfer-17/too late@2/1");
        assert_eq!(key_text(&key_base("transfer-17", &rejected("transfer-17/42/0")), 1), "transfer-17/42/0/1");
    }

    #[test]
    fn a_long_key_ends_in_a_fingerprint_of_all_of_it() {
        let base = |last: char| key_base(&format!("transfer-{}{last}", "ü".repeat(120)), &Cause::Event { position: 1 });
        let (one, other) = (key_text(&base('a'), 0), key_text(&base('b'), 0));
        assert!(CommandKey::new(one.clone()).is_ok(), "{one}");
        assert_ne!(one, other);
        assert_ne!(one, key_text(&base('a'), 1));
        assert!(one.starts_with("transfer-üü"));
    }

    #[test]
    fn a_record_is_readable_json_and_comes_back() {
        let timeouts = BTreeMap::from([("late".to_owned(), OpenTimeout { due: -5, set: 1 })]);
        for cause in [Cause::Event { position: u64::MAX }, rejected("k")] {
            let record = StepRecord {
                cause,
                event: 9,
                commands: 1,
                fingerprint: None,
                timeouts: timeouts.clone(),
                completed: true,
            };
            let metadata = record.to_metadata(Provenance::new().tenant("acme")).unwrap().unwrap();
            let Entries { process } = serde_json::from_str(metadata.as_str()).unwrap();
            assert_eq!(format!("{process:?}"), format!("{record:?}"));
        }
    }
}
