//! What a caller expects of a stream.

use std::fmt;

use super::position::Version;

/// What a caller expects of a stream's version; checked inside the write transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExpectedVersion {
    /// The stream may be in any state.
    #[default]
    Any,
    /// The stream has never been written: its version is 0.
    NoStream,
    /// The stream has been written: its version is above 0, even if its events were removed since.
    StreamExists,
    /// The stream is at exactly this version; `Exact(Version::ZERO)` is [`Self::NoStream`].
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether a stream at `actual` is as expected.
    pub fn holds(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::ZERO,
            Self::StreamExists => actual > Version::ZERO,
            Self::Exact(version) => actual == version,
        }
    }

    /// Whether known events may be skipped and the rest written.
    pub(super) fn tolerates_known_events(self) -> bool {
        matches!(self, Self::Any | Self::StreamExists)
    }
}

impl From<Version> for ExpectedVersion {
    fn from(version: Version) -> Self {
        Self::Exact(version)
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}
