//! Killing a process that writes and merges, and looking at what it leaves.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// Lets processes write to one store, one after the other, and kills each; answers how many events were there at last.
pub async fn kill(folder: &Path, times: u64) -> Result<usize> {
    let path = folder.join("killed.db");
    let mut writer = Writer::make(&path, Mode::Normal, ROWS, Index::Merged, BOUNDS).await?;
    writer.begin_streams(STREAMS, b"begin")?;
    drop(writer);
    let mut events = 0;
    for time in 0..times {
        let mut child = Command::new(std::env::current_exe()?).arg(WRITE).arg(&path).stdin(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(150 + 37 * time));
        if let Some(ended) = child.try_wait()? {
            return Err(format!("the process to be killed ended with {ended}").into());
        }
        child.kill()?;
        child.wait()?;
        let connection = Connection::open(&path)?;
        let found = verify(&connection, &recover(&connection, BOUNDS)?)?;
        if found <= events {
            return Err("the killed process had written nothing".into());
        }
        events = found;
    }
    Ok(events)
}

/// Writes until it is killed.
pub async fn write(path: &Path) -> Result<Infallible> {
    let mut writer = Writer::open(path, Mode::Normal, ROWS, Index::Merged, BOUNDS).await?;
    loop {
        writer.append(50, &[7; 100])?;
    }
}
