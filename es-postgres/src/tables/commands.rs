//! Executed commands: the table `es_command`.

use std::time::Duration;

use es_framework::{
    Appended, CommandKey, CommandRecord, Fingerprint, KeyedCommand, Outcome, Position, StoreError, StreamAppended,
    StreamId, Timestamp, Version,
};
use tokio_postgres::Row;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::natural;
use crate::tables::row_sum::RowSum;
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// One stream of an append, as stored in the JSON.
type StreamRow = (String, u64, u64, u64, u64);

/// Finds the records of some commands.
pub(crate) async fn find(
    session: &Session,
    statements: &Statements,
    keys: &[&str],
) -> Result<Vec<CommandRecord>, Failure> {
    let rows = session.query(&statements.commands_by_key, &[&keys]).await?;
    Ok(rows.iter().map(record).collect::<Result<_, _>>()?)
}

fn record(row: &Row) -> Result<CommandRecord, StoreError> {
    let key: &str = column(row, 0, None)?;
    let key = CommandKey::new(key).map_err(|_| errors::damaged(None, "a command has no valid key"))?;
    let fingerprint: &[u8] = column(row, 1, None)?;
    let stored = CommandRow {
        fingerprint: fingerprint.try_into().map_err(|_| damaged(&key))?,
        streams: column(row, 2, None)?,
        known: column(row, 3, None)?,
        position: column(row, 4, None)?,
        time: column(row, 5, None)?,
        clock_behind: column(row, 6, None)?,
    };
    if stored.sum(&key).stored() != column::<i32>(row, 7, None)? {
        return Err(damaged(&key));
    }
    stored.record(&key)
}

/// The columns of a command's row, except its key and checksum.
#[derive(Debug)]
pub(crate) struct CommandRow {
    pub(crate) fingerprint: [u8; 16],
    pub(crate) streams: String,
    pub(crate) known: bool,
    pub(crate) position: i64,
    pub(crate) time: i64,
    pub(crate) clock_behind: i64,
}

impl CommandRow {
    /// The row that records a command and its result.
    pub(crate) fn of(command: &KeyedCommand, appended: &Appended) -> Result<Self, StoreError> {
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
        Ok(Self {
            fingerprint: command.fingerprint.to_bytes(),
            streams: streams.map_err(|error| errors::internal(error.to_string()))?,
            known: appended.was_known(),
            position: appended.position.as_i64(),
            time: appended.time.as_micros(),
            clock_behind: i64::try_from(appended.clock_behind.as_micros()).unwrap_or(i64::MAX),
        })
    }

    pub(crate) fn sum(&self, key: &CommandKey) -> RowSum {
        let sum = RowSum::of("command").text(key.as_str()).blob(&self.fingerprint).text(&self.streams);
        sum.integer(self.known.into()).integer(self.position).integer(self.time).integer(self.clock_behind)
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
        let outcome = if self.known { Outcome::AlreadyWritten } else { Outcome::Written };
        let position = Position::new(natural(self.position, None)?);
        let mut appended = Appended::new(outcome, streams, position, Timestamp::from_micros(self.time));
        appended.clock_behind = Duration::from_micros(natural(self.clock_behind, None)?);
        Ok(CommandRecord::new(command, appended))
    }
}

fn damaged(key: &CommandKey) -> StoreError {
    errors::damaged(None, format!("the record of command {key} is damaged"))
}
