//! Which projector has built a read model, and how often it was built anew.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::consumer::{open_sealed, seal};
use crate::log::Fingerprint;

/// What a projection does at its start if its read model was built by another projector: one of another
/// [`VERSION`](super::Projector::VERSION), or whose tables look different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnChange {
    /// It does not start, with [`RunError::ProjectorChanged`](crate::RunError::ProjectorChanged). The read model is left
    /// alone.
    #[default]
    Refuse,
    /// It builds the read model anew beside the old one, which goes on answering, and replaces it at once when it has
    /// reached the end of the log.
    Beside,
    /// It empties the read model (see [`Projector::clear`](super::Projector::clear)) and builds it anew in place: until
    /// it has caught up, queries see a part of it.
    InPlace,
}

/// What tells a projector from another of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: u32,
    /// Of the rows that it writes.
    pub(super) shape: Fingerprint,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version {} of shape {}", self.version, self.shape)
    }
}

/// The record of who has built a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BuiltBy {
    /// How often it was built anew.
    pub(super) generation: u64,
    pub(super) projector: Identity,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    generation: u64,
    version: u32,
    shape: String,
}

impl BuiltBy {
    /// The key of the record.
    pub(super) const KEY: &'static str = "projector";

    pub(super) fn encode(&self) -> Bytes {
        let Self { generation, projector: Identity { version, shape } } = self;
        seal(&Stored { generation: *generation, version: *version, shape: shape.to_string() })
    }

    /// [`None`] if it is damaged, or of a newer format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Stored { generation, version, shape } = open_sealed(bytes)?;
        let shape = Fingerprint::from_bytes(u128::from_str_radix(&shape, 16).ok()?.to_be_bytes());
        Some(Self { generation, projector: Identity { version, shape } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        let projector = Identity { version: 3, shape: Fingerprint::of(b"CREATE TABLE t (a)") };
        let record = BuiltBy { generation: 2, projector };
        assert_eq!(BuiltBy::decode(&record.encode()), Some(record));
        let mut damaged = record.encode().to_vec();
        damaged[12] ^= 1;
        assert_eq!(BuiltBy::decode(&damaged), None);
    }
}
