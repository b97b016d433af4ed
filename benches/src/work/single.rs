//! W3: one event per append, one caller.

use std::sync::Arc;
use std::time::Instant;

use es_framework::{CandidateEvent, ExpectedVersion};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::Floor;
use crate::measure::Latency;
use crate::spec::{Outcome, Side, Spec};

pub(super) async fn run(spec: &Spec, new_streams: bool) -> Result<Outcome> {
    match spec.side {
        Side::Engine => engine(spec, new_streams).await,
        Side::Floor => floor(spec, new_streams).await,
    }
}

async fn engine(spec: &Spec, new_streams: bool) -> Result<Outcome> {
    let store = open(spec).await?;
    let event_type = event_type()?;
    let one = store.open_stream("account-one")?;
    let mut taken = Vec::with_capacity(usize::try_from(spec.events)?);
    let begun = Instant::now();
    for n in 0..spec.events {
        let appended = Instant::now();
        let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
        if new_streams {
            store.open_stream(format!("account-{n}"))?.write(event, ExpectedVersion::NoStream).await?;
        } else {
            one.write(event, ExpectedVersion::Any).await?;
        }
        taken.push(appended.elapsed());
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(spec.events, seconds).with_latency(Latency::of(taken)))
}

async fn floor(spec: &Spec, new_streams: bool) -> Result<Outcome> {
    let mut floor = Floor::make(&path(spec), spec.mode, spec.rows).await?;
    let mut one = floor.add_stream("account-one")?;
    let mut taken = Vec::with_capacity(usize::try_from(spec.events)?);
    let begun = Instant::now();
    for n in 0..spec.events {
        let appended = Instant::now();
        let payload = payload(n, spec.payload);
        floor.begin()?;
        if new_streams {
            let mut stream = floor.add_stream(&format!("account-{n}"))?;
            floor.insert_each(&mut [&mut stream], &payload)?;
        } else {
            floor.insert_each(&mut [&mut one], &payload)?;
        }
        floor.commit()?;
        taken.push(appended.elapsed());
    }
    Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()).with_latency(Latency::of(taken)))
}
