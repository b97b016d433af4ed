//! W11: a store that is already large, ten events per stream.

use std::sync::Arc;
use std::time::Instant;

use es_framework::{Append, CandidateEvent, ExpectedVersion, StreamId};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::Floor;
use crate::measure::{Dice, Latency, figure, file_bytes, micros, peak_rss_bytes};
use crate::spec::{Outcome, Side, Spec};

/// Events per stream.
const EACH: u64 = 10;
/// Streams per append.
const STREAMS: u64 = 100;

fn name(stream: u64) -> String {
    format!("account-{stream}")
}

/// Fills a store with `spec.events` events.
pub(super) async fn fill(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let event_type = event_type()?;
    let begun = Instant::now();
    let mut before = None;
    for first in (0..spec.events / EACH).step_by(usize::try_from(STREAMS)?) {
        let mut append = Append::default();
        for stream in first..first + STREAMS {
            let event = |n| CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
            let events = (0..EACH).map(event).collect::<Vec<_>>();
            append = append.and(StreamId::new(name(stream))?, ExpectedVersion::NoStream, events);
        }
        let store = store.clone();
        let append = tokio::spawn(async move { store.append(append).await.map(drop) });
        if let Some(before) = before.replace(append) {
            before.await??;
        }
    }
    if let Some(last) = before {
        last.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let filled = peak_rss_bytes();
    store.close().await?;
    let bytes = figure(file_bytes(&path(spec))) / figure(spec.events);
    let begun = Instant::now();
    let store = open(spec).await?;
    store.all().read().backward().limit(1).collect().await?;
    let opened = micros(begun.elapsed()) / 1e3;
    store.close().await?;
    Ok(Outcome::of(spec.events, seconds)
        .with_fact("bytes_per_event", bytes)
        .with_fact("fill_peak_mib", figure(filled) / f64::from(1 << 20))
        .with_fact("open_ms", opened))
}

/// Appends single events to streams all over the store.
pub(super) async fn append(spec: &Spec, alone: bool) -> Result<Outcome> {
    let callers = if alone { 1 } else { spec.callers };
    // A different seed for each measurement, so that no round benefits from what the last one left in the cache.
    let seed = file_bytes(&path(spec)) + u64::from(std::process::id());
    match spec.side {
        Side::Engine => engine(spec, callers, seed).await,
        Side::Floor => floor(spec, callers, seed).await,
    }
}

async fn engine(spec: &Spec, callers: u64, seed: u64) -> Result<Outcome> {
    let store = open(spec).await?;
    let event_type = event_type()?;
    let each = spec.events / callers;
    let begun = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, event_type, spec) = (store.clone(), Arc::clone(&event_type), spec.clone());
            tokio::spawn(async move {
                let mut dice = Dice::new(seed + caller);
                let mut taken = Vec::new();
                for n in 0..each {
                    let appended = Instant::now();
                    let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
                    let stream = store.open_stream(name(dice.below(spec.streams)))?;
                    stream.write(event, ExpectedVersion::StreamExists).await?;
                    taken.push(appended.elapsed());
                }
                Result::Ok(taken)
            })
        })
        .collect();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(taken.len() as u64, seconds).with_latency(Latency::of(taken)))
}

async fn floor(spec: &Spec, callers: u64, seed: u64) -> Result<Outcome> {
    // Its numbers and versions are looked up by another connection, so that its own cache is cold.
    let looking = Floor::make(&path(spec), spec.mode, spec.rows).await?;
    let mut dice = Dice::new(seed);
    let mut groups = Vec::new();
    for _ in 0..spec.events / callers {
        let mut picked: Vec<u64> = (0..callers).map(|_| dice.below(spec.streams)).collect();
        picked.sort_unstable();
        picked.dedup();
        groups.push(picked);
    }
    let mut floor = Floor::make(&path(spec), spec.mode, spec.rows).await?;
    let (mut written, mut taken, mut seconds) = (0, Vec::new(), 0.0);
    for picked in groups {
        let streams = picked.iter().map(|stream| looking.stream(&name(*stream)));
        let mut streams = streams.collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        floor.begin()?;
        floor.insert_each(&mut streams.iter_mut().collect::<Vec<_>>(), &payload(written, spec.payload))?;
        floor.commit()?;
        taken.push(begun.elapsed());
        seconds += begun.elapsed().as_secs_f64();
        written += picked.len() as u64;
    }
    Ok(Outcome::of(written, seconds).with_latency(Latency::of(taken)))
}

/// Reads whole streams all over the store.
pub(super) async fn load(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let mut dice = Dice::new(file_bytes(&path(spec)) + u64::from(std::process::id()));
    store.all().read().limit(1).collect().await?;
    let (mut events, mut taken) = (0, Vec::new());
    let begun = Instant::now();
    for _ in 0..spec.events {
        let asked = Instant::now();
        events += store.open_stream(name(dice.below(spec.streams)))?.read().collect().await?.len() as u64;
        taken.push(asked.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    // Counted per load, because the streams have grown differently.
    Ok(Outcome::of(spec.events, seconds).with_latency(Latency::of(taken)).with_fact("events_read", figure(events)))
}
