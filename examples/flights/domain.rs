//! Aircraft and what happens to their flights.

use std::collections::HashSet;
use std::fmt;

use es_framework::{Aggregate, Apply, Envelope, Event, Fingerprint, commands};
use serde::{Deserialize, Serialize};

/// Which flight of which day, built from its row: the same row always has the same id, and no other row has it.
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
    /// Stands for everything the row says.
    pub(crate) facts: u32,
    /// 1, and for the second of two rows that say the same 2, and so on.
    pub(crate) occurrence: u32,
}

impl FlightId {
    /// 128 bits that stand for the id where many are kept. Made of the text below, which must stay as it is: snapshots
    /// hold such bits.
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

/// A time of day as the file writes it, and how many minutes after the scheduled one that was.
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
/// The log book is what makes the program idempotent: a flight that is in it is not entered again, whichever commands the
/// rows come in. So rows can be batched as they happen to wait, and a run that was killed goes on with other batches. (A
/// command key for each row would do too, but the store remembers a key for ever, and the book has to be read anyway.)
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

/// Enters flights into the log book, in their order, all or none; those that are in it already are left out.
///
/// One command and not one for each event, because a row is one fact of the past: a flight is in the log whole or not at all.
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
