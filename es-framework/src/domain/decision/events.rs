//! What a decision returns: events and the streams they are written to.

use std::fmt;

use super::super::aggregate::{Aggregate, State};
use super::super::event::{DecodeError, EncodeError, Event, NamesStream};
use super::super::shape::payload_to_json;
use super::current::{Current, Source};
use crate::log::{CandidateEvent, InvalidName, StoredEvent, StreamId};

/// The events of a [decision](crate::Decide), of one or several types, and the streams they are written to; all or none
/// of them are written.
///
/// Events that [name their stream](NamesStream) convert into it: `Ok(event.into())`, and so do arrays, vectors and
/// options of them. Others are given to an aggregate that the decision reads, or to a stream:
///
/// ```
/// # use es_framework::*;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent {
/// #     #[es(name = "sent")] Sent { cents: u64 }, #[es(name = "received")] Received { cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { cents: u64 }
/// # impl Apply for Account { fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {} }
/// # fn transfer(from: &Current<Account>, to: &Current<Account>, cents: u64) -> Events {
/// Events::new().to(from, AccountEvent::Sent { cents }).to(to, AccountEvent::Received { cents })
/// # }
/// ```
///
/// Events of one stream keep their order, and streams are written in the order in which they are first mentioned. Two
/// of these are equal if they write the same bytes to the same streams.
#[derive(Default)]
#[must_use = "events are written when a decision returns them"]
pub struct Events {
    pub(super) entries: Vec<Entry>,
    /// The first event that could not be added.
    pub(super) error: Option<EventsError>,
}

/// An event and its stream.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) stream: StreamId,
    pub(super) candidate: CandidateEvent,
    /// Decodes it as its own type, to check that it can be read back.
    pub(super) read_back: fn(&StoredEvent) -> Result<(), DecodeError>,
}

/// An event of a decision that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// The event could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The stream that the event names is not a valid id.
    #[error("event {name} names no valid stream")]
    Stream {
        /// The stored name of the event.
        name: String,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// A joined event names no stream. Put `#[es(stream = "…")]` on it, or write it with [`Events::to`] or
    /// [`Events::to_stream`].
    #[error("event {name} does not name the stream it is written to")]
    NoStream {
        /// The stored name of the event.
        name: String,
    },
    /// The event names another stream than the one it was given to.
    #[error("event {name} names {named}, but was given to {given}")]
    OtherStream {
        /// The stored name of the event.
        name: String,
        /// The stream that its fields name.
        named: StreamId,
        /// The stream that it was given to.
        given: StreamId,
    },
}

impl Events {
    /// No events: there is nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event that names its stream.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away, as in `event.into()`")]
    pub fn and<E: NamesStream>(mut self, event: E) -> Self {
        self.add(&event, None);
        self
    }

    /// Adds an event of an aggregate that the decision reads, in the aggregate's stream.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away, as in `event.into()`")]
    pub fn to<A: Aggregate>(mut self, aggregate: &Current<A>, event: <A as State>::Event) -> Self {
        if let Source::Stream(stream) = &aggregate.source {
            self.add(&event, Some(stream));
        }
        self
    }

    /// Adds an event in a stream, which the decision need not have read.
    #[expect(clippy::needless_pass_by_value, reason = "an event is given away, as in `event.into()`")]
    pub fn to_stream<E: Event>(mut self, stream: &StreamId, event: E) -> Self {
        self.add(&event, Some(stream));
        self
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn add<E: Event>(&mut self, event: &E, given: Option<&StreamId>) {
        if self.error.is_some() {
            return;
        }
        match Entry::new(event, given) {
            Ok(entry) => self.entries.push(entry),
            Err(error) => self.error = Some(error),
        }
    }
}

impl Entry {
    fn new<E: Event>(event: &E, given: Option<&StreamId>) -> Result<Self, EventsError> {
        let candidate = event.encode()?;
        let name = || candidate.event_type().name().to_owned();
        let named = event.stream().map_err(|source| EventsError::Stream { name: name(), source })?;
        let stream = match (given, named) {
            (Some(given), Some(named)) if named != *given => {
                return Err(EventsError::OtherStream { name: name(), named, given: given.clone() });
            }
            (Some(given), _) => given.clone(),
            (None, Some(named)) => named,
            (None, None) => return Err(EventsError::NoStream { name: name() }),
        };
        Ok(Self { stream, candidate, read_back: |stored| E::decode(stored).map(drop) })
    }
}

impl<E: NamesStream> From<E> for Events {
    fn from(event: E) -> Self {
        Self::new().and(event)
    }
}

impl<E: NamesStream> From<Vec<E>> for Events {
    fn from(events: Vec<E>) -> Self {
        events.into_iter().collect()
    }
}

impl<E: NamesStream, const N: usize> From<[E; N]> for Events {
    fn from(events: [E; N]) -> Self {
        events.into_iter().collect()
    }
}

impl<E: NamesStream> From<Option<E>> for Events {
    fn from(event: Option<E>) -> Self {
        event.into_iter().collect()
    }
}

impl<E: NamesStream> FromIterator<E> for Events {
    fn from_iter<I: IntoIterator<Item = E>>(events: I) -> Self {
        events.into_iter().fold(Self::new(), Self::and)
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Entry, &Entry)| a.stream == b.stream && a.candidate == b.candidate;
        self.error.is_none()
            && other.error.is_none()
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(same)
    }
}

/// Each event with its stream, its name, its payload as JSON as far as its shape tells, and its tags.
impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(&self.entries);
        if let Some(error) = &self.error {
            list.entry(error);
        }
        list.finish()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, candidate, .. } = self;
        write!(f, "{stream}: {}", candidate.event_type().name())?;
        match payload_to_json(candidate.event_type(), candidate.payload()) {
            Ok(payload) => write!(f, " {}", payload.json)?,
            Err(_) => write!(f, " {:?}", candidate.payload())?,
        }
        if candidate.tags().is_empty() { Ok(()) } else { write!(f, " {:?}", candidate.tags()) }
    }
}
