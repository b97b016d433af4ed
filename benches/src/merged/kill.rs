//! Kills a process that writes and merges, and checks what it leaves behind.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use es_framework::Position;
use es_sqlite::rusqlite::Connection;

use super::{Bounds, Writer, recover, verify};
use crate::Result;
use crate::spec::{Index, Mode};

/// The argument that makes this program write until it is killed.
pub const WRITE: &str = "--write";
/// Small, so that a process goes through many runs before it is killed.
const BOUNDS: Bounds = Bounds { run: 4_096, slice: 256 };
const ROWS: usize = 16;
const STREAMS: u64 = 10_000;

/// Lets processes write to one store, one after the other, and kills each; returns the final number of events.
pub async fn kill(folder: &Path, times: u64) -> Result<usize> {
    let path = folder.join("killed.db");
    let mut writer = Writer::make(&path, Mode::Normal, ROWS, Index::Merged, BOUNDS).await?;
    writer.begin_streams(STREAMS, b"begin")?;
    drop(writer);
    let mut events = 0;
    for time in 0..times {
        let program = std::env::current_exe()?;
        let mut child = Command::new(program).arg(WRITE).arg(&path).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().ok_or("the process has no output")?;
        let mut said = BufReader::new(said).lines();
        // Each time at a different point of a run, which takes 82 commits to accumulate.
        let last = said.nth(usize::try_from(100 + 101 * time)?);
        child.kill()?;
        child.wait()?;
        let answered: usize = last.ok_or("the process to be killed ended by itself")??.parse()?;
        let connection = Connection::open(&path)?;
        events = verify(&connection, &recover(&connection, BOUNDS)?)?;
        if events < answered {
            return Err(format!("{answered} events were committed, {events} are there").into());
        }
    }
    Ok(events)
}

/// Writes until it is killed, and prints the head of the log after each commit.
pub async fn write(path: &Path, mut say: impl FnMut(Position)) -> Result<Infallible> {
    let mut writer = Writer::open(path, Mode::Normal, ROWS, Index::Merged, BOUNDS).await?;
    loop {
        writer.append(50, &[7; 100])?;
        say(writer.floor.position());
    }
}
