//! What is counted, per carrier and per route.

use std::collections::BTreeMap;

use crate::domain::{FlightEvent, FlightId, Outcome};
use crate::rows::Row;

/// Counts and sums of some flights. Means are computed at the very end, so that everything before is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    pub(crate) flights: i64,
    pub(crate) cancelled: i64,
    pub(crate) diverted: i64,
    pub(crate) departed: i64,
    /// In minutes, over all that departed.
    pub(crate) departure_delay: i64,
    pub(crate) arrived: i64,
    /// In minutes, over all that arrived.
    pub(crate) arrival_delay: i64,
}

impl Figures {
    /// The columns of the tables, in the order of [`Self::values`].
    pub(crate) const COLUMNS: [&'static str; 7] =
        ["flights", "cancelled", "diverted", "departed", "departure_delay", "arrived", "arrival_delay"];

    /// The contribution of one row of the file.
    pub(crate) fn of_row(row: &Row) -> Self {
        let one = Self { flights: 1, ..Self::default() };
        match row.flight.outcome {
            Outcome::Cancelled => Self { cancelled: 1, ..one },
            Outcome::Diverted { departed } => {
                Self { diverted: 1, departed: 1, departure_delay: departed.delay.into(), ..one }
            }
            Outcome::Arrived { departed, arrived, .. } => Self {
                departed: 1,
                departure_delay: departed.delay.into(),
                arrived: 1,
                arrival_delay: arrived.delay.into(),
                ..one
            },
        }
    }

    /// The contribution of one event.
    pub(crate) fn of_event(event: &FlightEvent) -> Self {
        let none = Self::default();
        match event {
            FlightEvent::Scheduled { .. } => Self { flights: 1, ..none },
            FlightEvent::Cancelled { .. } => Self { cancelled: 1, ..none },
            FlightEvent::Diverted { .. } => Self { diverted: 1, ..none },
            FlightEvent::Departed { movement, .. } => {
                Self { departed: 1, departure_delay: movement.delay.into(), ..none }
            }
            FlightEvent::Arrived { movement, .. } => Self { arrived: 1, arrival_delay: movement.delay.into(), ..none },
        }
    }

    /// All figures, in the order of [`Self::COLUMNS`].
    pub(crate) fn values(&self) -> [i64; 7] {
        let Self { flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay } = *self;
        [flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay]
    }

    /// The inverse of [`Self::values`].
    pub(crate) fn from_values(values: [i64; 7]) -> Self {
        let [flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay] = values;
        Self { flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let mut sums = self.values();
        for (sum, value) in sums.iter_mut().zip(other.values()) {
            *sum += value;
        }
        *self = Self::from_values(sums);
    }

    /// In minutes; [`None`] if nothing departed.
    pub(crate) fn mean_departure_delay(&self) -> Option<f64> {
        mean(self.departure_delay, self.departed)
    }

    /// In minutes; [`None`] if nothing arrived.
    pub(crate) fn mean_arrival_delay(&self) -> Option<f64> {
        mean(self.arrival_delay, self.arrived)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum of minutes is far below 2^53")]
fn mean(sum: i64, count: i64) -> Option<f64> {
    (count > 0).then(|| sum as f64 / count as f64)
}

/// Figures by carrier (`UA`) and by route (`EWR-IAH`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Figured {
    pub(crate) carriers: BTreeMap<String, Figures>,
    pub(crate) routes: BTreeMap<String, Figures>,
}

impl Figured {
    pub(crate) fn add(&mut self, flight: &FlightId, figures: &Figures) {
        add_to(&mut self.carriers, &flight.carrier, figures);
        add_to(&mut self.routes, &route(flight), figures);
    }

    /// Over all carriers.
    pub(crate) fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.carriers.values().for_each(|figures| total.add(figures));
        total
    }
}

/// How a route is named.
pub(crate) fn route(flight: &FlightId) -> String {
    format!("{}-{}", flight.origin, flight.dest)
}

fn add_to(table: &mut BTreeMap<String, Figures>, key: &str, figures: &Figures) {
    match table.get_mut(key) {
        Some(sum) => sum.add(figures),
        None => {
            table.insert(key.to_owned(), *figures);
        }
    }
}
