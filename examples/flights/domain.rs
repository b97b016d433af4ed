//! Aircraft and what happens to their flights.

use std::collections::HashSet;
use std::fmt;

use es_framework::{Aggregate, Apply, Envelope, Event, Fingerprint, commands};
use serde::{Deserialize, Serialize};

/// Identifies a flight on a day. It is built from the row: the same row always has the same id, and no other row has
/// it.
///
/// Shown as `2013-01-01/UA1545/EWR-IAH/0515/c0ffee00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightId {
    pub(crate) year: u16,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) carrier: String,
    pub(crate) number: u32,
    pub(crate) origin: String,
    pub(crate) dest: String,
    /// The scheduled departure, as the file writes it: 515 is 05:15.
    pub(crate) scheduled: u16,
    /// A hash of the whole row.
    pub(crate) facts: u32,
    /// 1; for the second of two identical rows 2, and so on.
    pub(crate) occurrence: u32,
}

impl FlightId {
    /// A 128-bit hash of the id, for places that keep many. It is computed from the text below, which must not change:
    /// snapshots contain such hashes.
    pub(crate) fn fingerprint(&self) -> u128 {
        u128::from_be_bytes(Fingerprint::of(self.to_string().as_bytes()).to_bytes())
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, carrier, number, origin, dest, scheduled, facts, occurrence } = self;
        write!(f, "{year:04}-{month:02}-{day:02}/{carrier}{number}/{origin}-{dest}/{scheduled:04}/{facts:08x}")?;
        if *occurrence > 1 { write!(f, "~{occurrence}") } else { Ok(()) }
    }
}

/// A time of day as the file writes it, and the delay in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Movement {
    pub(crate) at: u16,
    pub(crate) delay: i32,
}

/// What is known of a flight once its day is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) id: FlightId,
    /// The scheduled arrival.
    pub(crate) arrival: Option<u16>,
    /// In miles.
    pub(crate) distance: u32,
    pub(crate) outcome: Outcome,
}

/// How a flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Cancelled,
    Diverted { departed: Movement },
    Arrived { departed: Movement, arrived: Movement, minutes: Option<u32> },
}

/// What happens to a flight.
#[derive(Debug, Clone, PartialEq, Event)]
pub(crate) enum FlightEvent {
    #[es(name = "flight.scheduled")]
    Scheduled { flight: FlightId, arrival: Option<u16>, distance: u32 },
    #[es(name = "flight.cancelled")]
    Cancelled { flight: FlightId },
    #[es(name = "flight.departed")]
    Departed { flight: FlightId, movement: Movement },
    #[es(name = "flight.diverted")]
    Diverted { flight: FlightId },
    #[es(name = "flight.arrived")]
    Arrived { flight: FlightId, movement: Movement, minutes: Option<u32> },
}

impl FlightEvent {
    pub(crate) fn flight(&self) -> &FlightId {
        match self {
            Self::Scheduled { flight, .. }
            | Self::Cancelled { flight }
            | Self::Departed { flight, .. }
            | Self::Diverted { flight }
            | Self::Arrived { flight, .. } => flight,
        }
    }
}

/// An aircraft, by its tail number, and the flights in its log book.
///
/// The log book makes the program idempotent: a flight that is in it is not entered again, whichever commands the rows
/// arrive in. So rows can be batched as they happen to wait, and a run that was killed can resume with different
/// batches. (A command key for each row would work too, but the store keeps a key forever, and the book has to be read
/// anyway.)
///
/// A flight takes 16 bytes here, so that the books of all aircraft of a year stay in memory.
#[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
#[es(category = "aircraft", event = FlightEvent, snapshot(every = 500))]
pub(crate) struct Aircraft {
    book: HashSet<u128>,
}

impl Apply for Aircraft {
    fn apply(&mut self, event: &FlightEvent, _: Envelope<'_>) {
        if let FlightEvent::Scheduled { flight, .. } = event {
            self.book.insert(flight.fingerprint());
        }
    }
}

/// Enters flights into the log book, in order, all or none; those that are already in it are left out.
///
/// One command and not one per event, because a row is one fact of the past: a flight is in the log completely or not
/// at all.
#[derive(Debug)]
pub(crate) struct LogFlights {
    pub(crate) flights: Vec<Flight>,
}

#[commands]
impl Aircraft {
    fn log_flights(&self, command: &LogFlights) -> Vec<FlightEvent> {
        let new = command.flights.iter().filter(|flight| !self.book.contains(&flight.id.fingerprint()));
        let mut events = Vec::with_capacity(3 * command.flights.len());
        for Flight { id, arrival, distance, outcome } in new {
            let flight = || id.clone();
            events.push(FlightEvent::Scheduled { flight: flight(), arrival: *arrival, distance: *distance });
            match *outcome {
                Outcome::Cancelled => events.push(FlightEvent::Cancelled { flight: flight() }),
                Outcome::Diverted { departed } => events.extend([
                    FlightEvent::Departed { flight: flight(), movement: departed },
                    FlightEvent::Diverted { flight: flight() },
                ]),
                Outcome::Arrived { departed, arrived, minutes } => events.extend([
                    FlightEvent::Departed { flight: flight(), movement: departed },
                    FlightEvent::Arrived { flight: flight(), movement: arrived, minutes },
                ]),
            }
        }
        events
    }
}
