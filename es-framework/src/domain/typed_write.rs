//! Writing typed events without an aggregate.

use std::sync::Arc;

use super::event::{DecodeError, EncodeError, Event};
use crate::log::{
    AppendError, Appended, CandidateEvent, ErrorKind, EventId, ExpectedVersion, Position, StoreId, StoredEvent, Stream,
    StreamId, Timestamp, Version,
};

/// Typed events that could not be written; nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteEventsError {
    /// An event could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An encoded event could not be decoded, so it was not written: fix its serde attributes or choose another codec.
    #[error("an event that could never be read again was not written")]
    Unreadable(#[source] DecodeError),
    /// The events could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl WriteEventsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Encode(_) | Self::Unreadable(_) => ErrorKind::Caller,
            Self::Append(error) => error.kind(),
        }
    }
}

impl Stream {
    /// Writes typed events, all or nothing. They are written without ids and metadata; to set these, encode each event
    /// with [`Event::encode`] and pass them to [`Stream::write`].
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// let account = store.open_stream("account-alice")?;
    /// account.write_events(&[AccountEvent::Deposited { cents: 500 }], ExpectedVersion::NoStream).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`WriteEventsError`]; nothing was written.
    ///
    /// # Cancel safety
    ///
    /// A dropped future either never started its write, or the write still runs to completion.
    pub async fn write_events<E: Event>(
        &self,
        events: &[E],
        expected: impl Into<ExpectedVersion> + Send,
    ) -> Result<Appended, WriteEventsError> {
        let mut candidates = Vec::with_capacity(events.len());
        for event in events {
            let candidate = event.encode()?;
            drop(read_back::<E>(self.store().id(), self.id(), &candidate).map_err(WriteEventsError::Unreadable)?);
            candidates.push(candidate);
        }
        Ok(self.write(candidates, expected).await?)
    }
}

/// Decodes an event the way it will be read once it is written.
pub(crate) fn read_back<E: Event>(
    store: StoreId,
    stream: &StreamId,
    candidate: &CandidateEvent,
) -> Result<E, DecodeError> {
    let (id, event_type) = (EventId::derived(store, Position::ZERO), candidate.event_type());
    let stored = StoredEvent::from_stored(
        stream.clone(),
        Version::ZERO,
        Position::ZERO,
        Timestamp::default(),
        id,
        Arc::clone(event_type),
        candidate.payload().clone(),
        None,
        candidate.tags().clone(),
        0,
    );
    E::decode(&stored)
}
