//! The two tables, each maintained by a projection.

use std::collections::BTreeMap;

use es_framework::{Projector, Recorded};
use es_sqlite::rusqlite::{self, Connection, params};
use es_sqlite::{SqliteModel, SqliteTx};

use crate::domain::FlightEvent;
use crate::figures::{Figured, Figures, route};

/// Maintains the table `carriers`.
#[derive(Debug)]
pub(crate) struct Carriers(Sql);

/// Maintains the table `routes`.
#[derive(Debug)]
pub(crate) struct Routes(Sql);

impl Carriers {
    pub(crate) fn new() -> Self {
        Self(Sql::new("carriers", "carrier"))
    }
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Sql::new("routes", "route"))
    }
}

impl Projector for Carriers {
    type Event = FlightEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "carriers";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        tx.execute_batch(&self.0.create)
    }

    fn project(&self, event: &Recorded<FlightEvent>, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        self.0.add(tx, &event.flight().carrier, &Figures::of_event(event))
    }
}

impl Projector for Routes {
    type Event = FlightEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "routes";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        tx.execute_batch(&self.0.create)
    }

    fn project(&self, event: &Recorded<FlightEvent>, tx: &mut SqliteTx<'_>) -> Result<(), rusqlite::Error> {
        self.0.add(tx, &route(event.flight()), &Figures::of_event(event))
    }
}

/// Reads both tables as they are now.
pub(crate) async fn read_tables(model: &SqliteModel) -> Result<Figured, Box<dyn std::error::Error + Send + Sync>> {
    let read = |connection: &Connection| -> rusqlite::Result<Figured> {
        Ok(Figured {
            carriers: read_table(connection, "carriers", "carrier")?,
            routes: read_table(connection, "routes", "route")?,
        })
    };
    Ok(model.query(read).await?)
}

fn read_table(connection: &Connection, table: &str, key: &str) -> rusqlite::Result<BTreeMap<String, Figures>> {
    let columns = Figures::COLUMNS.join(", ");
    let mut query = connection.prepare(&format!("SELECT {key}, {columns} FROM {table}"))?;
    let rows = query.query_map([], |row| {
        let mut values = [0; Figures::COLUMNS.len()];
        for (value, place) in values.iter_mut().zip(1..) {
            *value = row.get::<usize, i64>(place)?;
        }
        Ok((row.get(0)?, Figures::from_values(values)))
    })?;
    rows.collect()
}

/// The statements of one table.
#[derive(Debug)]
struct Sql {
    create: String,
    add: String,
}

impl Sql {
    fn new(table: &str, key: &str) -> Self {
        let columns = Figures::COLUMNS.map(|column| format!("{column} INTEGER NOT NULL")).join(", ");
        let sums = Figures::COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}")).join(", ");
        Self {
            create: format!("CREATE TABLE IF NOT EXISTS {table} ({key} TEXT PRIMARY KEY, {columns}) WITHOUT ROWID"),
            add: format!(
                "INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT ({key}) DO UPDATE SET {sums}"
            ),
        }
    }

    fn add(&self, tx: &mut SqliteTx<'_>, key: &str, figures: &Figures) -> Result<(), rusqlite::Error> {
        let [flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay] = figures.values();
        let values = params![key, flights, cancelled, diverted, departed, departure_delay, arrived, arrival_delay];
        tx.execute(&self.add, values)?;
        Ok(())
    }
}
