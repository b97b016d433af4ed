//! Executed commands: the table `es_command`.

use std::time::Duration;

use es_framework::{
    Appended, CommandKey, CommandRecord, Fingerprint, KeyedCommand, Outcome, Position, StoreError, StreamAppended,
    StreamId, Timestamp, Version,
};
use tokio_rusqlite::rusqlite::{Connection, OptionalExtension};

use crate::connection::errors;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::natural;

/// One stream of an append, as stored in the JSON.
type StreamRow = (String, u64, u64, u64, u64);

pub(crate) fn find(connection: &Connection, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT fingerprint, streams, known, position, time, clock_behind, checksum FROM es_command WHERE key = ?1",
        )
        .map_err(errors::store)?;
    let row = statement
        .query_row([key.as_str()], |row| {
            let stored = Row {
                fingerprint: row.get(0)?,
                streams: row.get(1)?,
                known: row.get(2)?,
                position: row.get(3)?,
                time: row.get(4)?,
                clock_behind: row.get(5)?,
            };
            Ok((stored, row.get::<_, i32>(6)?))
        })
        .optional()
        .map_err(errors::store)?;
    let Some((row, checksum)) = row else { return Ok(None) };
    if row.sum(key).stored() != checksum {
        return Err(damaged(key));
    }
    row.record(key).map(Some)
}

pub(crate) fn insert(connection: &Connection, command: &KeyedCommand, appended: &Appended) -> Result<(), StoreError> {
    let streams: Vec<StreamRow> = appended
        .streams
        .iter()
        .map(|stream| {
            let StreamAppended { stream, first, last, written, known, .. } = stream;
            (stream.to_string(), first.get(), last.get(), *written as u64, *known as u64)
        })
        .collect();
    let streams = match &command.name {
        Some(name) => serde_json::to_string(&(&**name, streams)),
        None => serde_json::to_string(&streams),
    };
    let row = Row {
        fingerprint: command.fingerprint.to_bytes(),
        streams: streams.map_err(|error| errors::internal(error.to_string()))?,
        known: i64::from(appended.was_known()),
        position: appended.position.as_i64(),
        time: appended.time.as_micros(),
        clock_behind: i64::try_from(appended.clock_behind.as_micros()).unwrap_or(i64::MAX),
    };
    let sum = row.sum(&command.key).stored();
    let Row { fingerprint, streams, known, position, time, clock_behind } = row;
    connection
        .prepare_cached(
            "INSERT INTO es_command (key, fingerprint, streams, known, position, time, clock_behind, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .and_then(|mut statement| {
            statement.execute((command.key.as_str(), fingerprint, streams, known, position, time, clock_behind, sum))
        })
        .map_err(errors::store)?;
    Ok(())
}

struct Row {
    fingerprint: [u8; 16],
    streams: String,
    known: i64,
    position: i64,
    time: i64,
    clock_behind: i64,
}

impl Row {
    fn sum(&self, key: &CommandKey) -> RowSum {
        let sum = RowSum::of("command").text(key.as_str()).blob(&self.fingerprint).text(&self.streams);
        sum.integer(self.known).integer(self.position).integer(self.time).integer(self.clock_behind)
    }

    fn record(self, key: &CommandKey) -> Result<CommandRecord, StoreError> {
        let (name, rows) = if self.streams.starts_with("[\"") {
            let (name, rows): (String, Vec<StreamRow>) =
                serde_json::from_str(&self.streams).map_err(|_| damaged(key))?;
            (Some(name), rows)
        } else {
            (None, serde_json::from_str(&self.streams).map_err(|_| damaged(key))?)
        };
        let mut command = KeyedCommand::new(key.clone(), Fingerprint::from_bytes(self.fingerprint));
        command.name = name.map(Into::into);
        let count = |count: u64| usize::try_from(count).map_err(|_| damaged(key));
        let mut streams = Vec::with_capacity(rows.len());
        for (stream, first, last, written, known) in rows {
            let stream = StreamId::new(stream).map_err(|_| damaged(key))?;
            let (first, last) = (Version::new(first), Version::new(last));
            streams.push(StreamAppended::new(stream, first, last, count(written)?, count(known)?));
        }
        let outcome = if self.known == 0 { Outcome::Written } else { Outcome::AlreadyWritten };
        let position = Position::new(natural(self.position, None)?);
        let mut appended = Appended::new(outcome, streams, position, Timestamp::from_micros(self.time));
        appended.clock_behind = Duration::from_micros(natural(self.clock_behind, None)?);
        Ok(CommandRecord::new(command, appended))
    }
}

fn damaged(key: &CommandKey) -> StoreError {
    errors::damaged(None, format!("the record of command {key} is damaged"))
}
