//! W9: from a write's return to the event's arrival at a watcher.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use es_framework::{CandidateEvent, ExpectedVersion, Stream};
use es_sqlite::SqliteStore;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{event_type, open, path, payload};
use crate::Result;
use crate::measure::{Dice, Latency};
use crate::spec::{Outcome, Spec};

const STREAM: &str = "account-watched";
/// Anything that takes longer is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(spec: &Spec, pause_us: u64, elsewhere: bool) -> Result<Outcome> {
    let store = open(spec).await?;
    let stream = store.open_stream(STREAM)?;
    // So that the other process finds a stream, and every round writes into a file with some pages.
    write(&stream, spec, 1).await?;
    let begun = Instant::now();
    let taken = if elsewhere {
        by_another_process(&stream, spec, pause_us).await?
    } else {
        by_this_process(&stream, spec, pause_us).await?
    };
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(spec.events, seconds).with_latency(Latency::of(taken)))
}

async fn by_this_process(stream: &Stream, spec: &Spec, pause_us: u64) -> Result<Vec<Duration>> {
    let mut watch = stream.watch().await?;
    let events = spec.events;
    let watcher = tokio::spawn(async move {
        let mut seen = Vec::new();
        while (seen.len() as u64) < events {
            let Some(event) = watch.next().await else { break };
            event?;
            seen.push(Instant::now());
        }
        Result::Ok(seen)
    });
    let mut returned = Vec::new();
    let mut dice = Dice::new(1);
    for n in 0..events {
        pause(&mut dice, pause_us).await;
        write(stream, spec, n).await?;
        returned.push(Instant::now());
    }
    let seen = tokio::time::timeout(PATIENCE, watcher).await???;
    Ok(returned.iter().zip(seen).map(|(returned, seen)| seen.saturating_duration_since(*returned)).collect())
}

async fn by_another_process(stream: &Stream, spec: &Spec, pause_us: u64) -> Result<Vec<Duration>> {
    let mut watcher = Command::new(std::env::current_exe()?)
        .arg("--watch")
        .arg(path(spec))
        .arg(spec.events.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(watcher.stdout.take().ok_or("no output")?).lines();
    if lines.next_line().await?.as_deref() != Some("watching") {
        return Err("the other process does not watch".into());
    }
    let mut returned = Vec::new();
    let mut dice = Dice::new(1);
    for n in 0..spec.events {
        pause(&mut dice, pause_us).await;
        write(stream, spec, n).await?;
        returned.push(now()?);
    }
    let mut taken = Vec::new();
    for returned in returned {
        let seen = tokio::time::timeout(PATIENCE, lines.next_line()).await??.ok_or("the other process ended")?;
        taken.push(Duration::from_nanos(seen.parse::<u64>()?.saturating_sub(returned)));
    }
    watcher.wait().await?;
    Ok(taken)
}

/// The other process: reports that it watches, and at the end when it saw each event, by the system's clock.
pub async fn watch_elsewhere(path: &Path, events: u64, mut say: impl FnMut(String)) -> Result<()> {
    let store = SqliteStore::open(path).await?;
    let mut watch = store.open_stream(STREAM)?.watch().await?;
    say("watching".to_owned());
    let mut seen = Vec::new();
    while (seen.len() as u64) < events {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await?;
        event.ok_or("the watch ended")??;
        seen.push(now()?);
    }
    for at in seen {
        say(at.to_string());
    }
    drop(watch);
    store.close().await?;
    Ok(())
}

async fn write(stream: &Stream, spec: &Spec, n: u64) -> Result<()> {
    let event = CandidateEvent::of_type(Arc::clone(&event_type()?), payload(n, spec.payload));
    stream.write(event, ExpectedVersion::Any).await?;
    Ok(())
}

/// Waits for 0.5 to 1.5 times the pause, so that nothing falls into step with a timer.
async fn pause(dice: &mut Dice, pause_us: u64) {
    if pause_us > 0 {
        tokio::time::sleep(Duration::from_micros(pause_us / 2 + dice.below(pause_us))).await;
    }
}

fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}
