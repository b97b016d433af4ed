//! The index over (stream, version), as in file format 1, left out, or merged; measured by the program `merged_index`.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use es_sqlite::rusqlite::Connection;

use super::{path, payload};
use crate::Result;
use crate::floor::{COLUMNS, scan};
use crate::measure::{Dice, Latency, cpu_time, figure, file_bytes, fsync_micros, micros, rss_bytes};
use crate::merged::{Bounds, Merged, Writer, load, recover, verify};
use crate::spec::{Index, Outcome, Spec};

/// Rows per commit while a store is filled.
const BATCH: usize = 10_000;
/// How many streams are loaded.
const LOADS: u64 = 500;

/// Creates a store in the state of long use: `spec.events` events whose entries are merged, and enough more to begin a
/// run. Every index has grown by the same commits.
pub(super) async fn fill(spec: &Spec, index: Index) -> Result<Outcome> {
    let bounds = Bounds::USUAL;
    let mut writer = Writer::make(&path(spec), spec.mode, spec.rows, index, bounds).await?;
    writer.floor.connection.pragma_update(None, "synchronous", "OFF")?;
    let begun = Instant::now();
    let payload = payload(0, spec.payload);
    writer.begin_streams(spec.streams, &payload)?;
    write(&mut writer, spec.events, &payload)?;
    writer.merge_rest()?;
    writer.merged = None;
    write(&mut writer, spec.events + bounds.run as u64, &payload)?;
    Ok(Outcome::of(writer.floor.position().get(), begun.elapsed().as_secs_f64()))
}

fn write(writer: &mut Writer, upto: u64, payload: &[u8]) -> Result<()> {
    while writer.floor.position().get() < upto {
        let left = usize::try_from(upto - writer.floor.position().get())?;
        writer.append(left.min(BATCH), payload)?;
    }
    Ok(())
}

/// Commits to a copy of that store, then reads it, and opens a copy of what a killed process would leave.
pub(super) async fn run(spec: &Spec, index: Index) -> Result<Outcome> {
    let folder = tempfile::tempdir_in(&spec.dir)?;
    let file = folder.path().join("store.db");
    fs::copy(path(spec), &file)?;
    File::open(&file)?.sync_all()?;
    let mut writer = Writer::open(&file, spec.mode, spec.rows, index, Bounds::USUAL).await?;
    let weight = writer.merged.as_ref().map(weigh);
    let flush = fsync_micros(folder.path())?;

    let (commits, rows) = (spec.events / spec.per_append, usize::try_from(spec.per_append)?);
    let (mut taken, mut slices, mut most) = (Vec::new(), Vec::new(), 0);
    let (begun, cpu) = (Instant::now(), cpu_time());
    for n in 0..commits {
        let appended = Instant::now();
        let merged = writer.append(rows, &payload(n, spec.payload))?;
        taken.push(appended.elapsed());
        if merged > 0 {
            slices.push(appended.elapsed());
            most = most.max(merged);
        }
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    if most > Merged::most(Bounds::USUAL, rows) {
        return Err(format!("a slice had {most} entries").into());
    }
    let slices = Latency::of(slices);
    let mut outcome = Outcome::of(commits * spec.per_append, seconds)
        .with_latency(Latency::of(taken))
        .with_fact("flush_us", flush)
        .with_fact("cpu_us", micros(cpu) / figure(commits * spec.per_append))
        .with_fact("slices", figure(slices.count))
        .with_fact("slice_p50_us", slices.at(50.0))
        .with_fact("slice_worst_us", slices.at(100.0))
        .with_fact("slice_entries", figure(most as u64))
        .with_fact("reopen_ms", reopen(&file, folder.path(), index)?);
    if index != Index::Nothing {
        outcome = outcome.with_fact("load_us", loads(&file, &writer)?);
    }
    if let Some((entries, bytes)) = weight {
        outcome = outcome.with_fact("entries", figure(entries)).with_fact("entry_bytes", bytes);
    }
    let closed = Instant::now();
    writer.merge_rest()?;
    outcome = outcome.with_fact("merge_rest_ms", micros(closed.elapsed()) / 1e3);
    let events = writer.floor.position().get();
    outcome = outcome.with_fact("events", figure(events));
    drop(writer);
    Ok(outcome.with_fact("bytes_per_event", figure(file_bytes(&file)) / figure(events)))
}

/// The number of entries in memory, and the bytes per entry.
fn weigh(merged: &Merged) -> (u64, f64) {
    let before = rss_bytes();
    let copy = merged.copy();
    let bytes = rss_bytes().saturating_sub(before);
    drop(copy);
    let entries = merged.entries() as u64;
    (entries, figure(bytes) / figure(entries))
}

/// Opens what a process that is killed at this moment would leave, and reads the head; with the merged index also the
/// end of the log. Returns the milliseconds. The recovered entries are compared with the whole log.
///
/// Copying an open file drops this process's locks on it, which does not matter if no other process has it open.
fn reopen(file: &Path, folder: &Path, index: Index) -> Result<f64> {
    let left = folder.join("left.db");
    fs::copy(file, &left)?;
    fs::copy(folder.join("store.db-wal"), folder.join("left.db-wal"))?;
    let begun = Instant::now();
    let connection = Connection::open(&left)?;
    connection.query_row("SELECT max(position) FROM es_event", [], |row| row.get::<_, i64>(0))?;
    let merged = (index == Index::Merged).then(|| recover(&connection, Bounds::USUAL)).transpose()?;
    let taken = micros(begun.elapsed()) / 1e3;
    if let Some(merged) = merged {
        verify(&connection, &merged)?;
    }
    drop(connection);
    fs::remove_file(left)?;
    Ok(taken)
}

/// Loads random streams on a separate connection; returns the median in microseconds.
fn loads(file: &Path, writer: &Writer) -> Result<f64> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    let in_place = format!(
        "SELECT {COLUMNS} FROM es_event INDEXED BY es_event_version WHERE stream = ?1 AND version > ?2 ORDER BY version"
    );
    let mut dice = Dice::new(7);
    let mut taken = Vec::new();
    for _ in 0..LOADS {
        let stream = usize::try_from(dice.below(writer.streams.len() as u64))?;
        let (number, version) = writer.streams.get(stream).ok_or("no such stream")?.head();
        let begun = Instant::now();
        let (events, _) = match &writer.merged {
            Some(merged) => load(&connection, merged, number)?,
            None => scan(&connection, &in_place, (number, 0))?,
        };
        taken.push(begun.elapsed());
        if version != events {
            return Err(format!("stream number {number} has {version} events, {events} were read").into());
        }
    }
    Ok(Latency::of(taken).at(50.0))
}
