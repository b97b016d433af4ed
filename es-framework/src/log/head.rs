//! Where a stream ends, where it begins, and whether it can be written.

use super::position::Version;

/// Where a stream ends, where it begins, and whether it can still be written.
///
/// The default is the head of a stream that was never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct StreamHead {
    /// The version of the last event ever written, even if it was removed since; [`Version::ZERO`] if the stream was
    /// never written.
    pub version: Version,
    /// The events at and below this version were removed; [`Version::ZERO`] if none were. Never above
    /// [`Self::version`]. The first event that can be read is the one after it.
    pub floor: Version,
    /// Whether the stream can be written.
    pub state: StreamState,
}

/// Whether a stream can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StreamState {
    /// It can be written, even if it does not exist yet.
    #[default]
    Active,
    /// It was closed for good.
    Tombstoned,
}

impl StreamHead {
    /// Creates the head of a stream at this version that can be written and that nothing was removed from.
    pub const fn at(version: Version) -> Self {
        Self { version, floor: Version::ZERO, state: StreamState::Active }
    }

    /// Whether the stream was ever written.
    pub fn exists(self) -> bool {
        self.version > Version::ZERO
    }

    /// Whether all events after `version` can still be read, so that a state as of `version` can be brought up to date.
    pub fn reaches_back_to(self, version: Version) -> bool {
        version >= self.floor
    }
}

impl From<Version> for StreamHead {
    fn from(version: Version) -> Self {
        Self::at(version)
    }
}
