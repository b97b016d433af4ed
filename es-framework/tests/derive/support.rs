//! Events without a store.

use std::sync::Arc;

use bytes::Bytes;
use es_framework::inspect::payload_to_json;
use es_framework::{CandidateEvent, Event, EventType, Position, StoreId, StoredEvent, StreamId, Timestamp, Version};

/// The event as an engine would give it back.
pub(crate) fn stored(candidate: &CandidateEvent) -> StoredEvent {
    StoredEvent::new(
        StoreId::from_bytes([7; 16]),
        StreamId::new("account-alice").expect("a valid id"),
        Version::new(1),
        Position::new(17),
        Timestamp::from_micros(1_000_000),
        candidate,
    )
}

/// An event with this name, version, codec and payload, as an engine would give it back.
pub(crate) fn stored_as(name: &str, version: u32, codec: &str, payload: impl Into<Bytes>) -> StoredEvent {
    let event_type = Arc::new(EventType::new(name, version, codec).expect("a valid type"));
    stored(&CandidateEvent::of_type(event_type, payload))
}

/// The payload that is stored for an event.
pub(crate) fn payload(event: &impl Event) -> Vec<u8> {
    event.encode().expect("the event can be written").payload().to_vec()
}

/// Writes and reads an event; what was written can also be read by its shape alone.
pub(crate) fn round_trip<E: Event>(event: &E) -> E {
    let candidate = event.encode().expect("the event can be written");
    let read = payload_to_json(candidate.event_type(), candidate.payload()).expect("the payload fits its shape");
    assert!(read.is_whole || !["bincode", "json"].contains(&candidate.event_type().codec()), "{}", read.json);
    serde_json::from_str::<serde::de::IgnoredAny>(&read.json).expect("it is JSON");
    E::decode(&stored(&candidate)).expect("what was written can be read")
}
