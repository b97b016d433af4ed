//! The size limits of events and appends.

/// The size limits of one event and one append, set when a store is opened.
///
/// An append over a limit is rejected with [`InvalidAppend`](super::InvalidAppend) before anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum bytes of one payload; 16 MiB by default.
    pub payload_bytes: usize,
    /// Maximum bytes of one event's metadata; 64 KiB by default.
    pub metadata_bytes: usize,
    /// Maximum events of one append; 65,536 by default.
    pub append_events: usize,
    /// Maximum bytes of one append, payloads, metadata, ids and cells together; 64 MiB by default.
    pub append_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { payload_bytes: 16 << 20, metadata_bytes: 64 << 10, append_events: 65_536, append_bytes: 64 << 20 }
    }
}
