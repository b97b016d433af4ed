//! W4: one event per append, many callers at once, each with its own streams.

use std::sync::Arc;
use std::time::Instant;

use es_framework::{Append, CandidateEvent, ExpectedVersion, StreamId};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::Floor;
use crate::measure::{Dice, Latency};
use crate::spec::{Outcome, Side, Spec};

pub(super) async fn run(spec: &Spec) -> Result<Outcome> {
    match spec.side {
        Side::Engine => engine(spec).await,
        Side::Floor => floor(spec).await,
    }
}

fn name(caller: u64, stream: u64) -> String {
    format!("account-{caller}-{stream}")
}

async fn engine(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let event_type = event_type()?;
    let each = spec.events / spec.callers;
    let mut streams = Vec::new();
    for caller in 0..spec.callers {
        let ids = (0..spec.streams).map(|stream| StreamId::new(name(caller, stream)));
        let ids = ids.collect::<std::result::Result<Vec<_>, _>>()?;
        // Every stream exists: a running service, not one that is starting.
        let begin = |append: Append, id: &StreamId| {
            let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(0, spec.payload));
            append.and(id.clone(), ExpectedVersion::NoStream, event)
        };
        store.append(ids.iter().fold(Append::default(), begin)).await?;
        streams.push(ids.into_iter().map(|id| store.stream(id)).collect::<Vec<_>>());
    }
    let begun = Instant::now();
    let callers = (0..).zip(streams).map(|(caller, streams)| {
        let (event_type, spec) = (Arc::clone(&event_type), spec.clone());
        tokio::spawn(async move {
            let mut dice = Dice::new(caller + 1);
            let mut taken = Vec::with_capacity(usize::try_from(each)?);
            for n in 0..each {
                let appended = Instant::now();
                let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
                let stream = streams.get(usize::try_from(dice.below(spec.streams))?).ok_or("no such stream")?;
                stream.write(event, ExpectedVersion::Any).await?;
                taken.push(appended.elapsed());
            }
            Result::Ok(taken)
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(each * spec.callers, seconds).with_latency(Latency::of(taken)))
}

async fn floor(spec: &Spec) -> Result<Outcome> {
    let mut floor = Floor::make(&path(spec), spec.mode, spec.rows).await?;
    let mut streams = Vec::new();
    for caller in 0..spec.callers {
        floor.begin()?;
        let added = (0..spec.streams).map(|stream| floor.add_stream(&name(caller, stream)));
        let mut added = added.collect::<Result<Vec<_>>>()?;
        floor.insert_each(&mut added.iter_mut().collect::<Vec<_>>(), &payload(0, spec.payload))?;
        floor.commit()?;
        streams.push(added);
    }
    let rounds = spec.events / spec.callers;
    let mut dice = Dice::new(1);
    let mut taken = Vec::with_capacity(usize::try_from(rounds)?);
    let begun = Instant::now();
    for n in 0..rounds {
        let appended = Instant::now();
        let payload = payload(n, spec.payload);
        let mut wanted = Vec::with_capacity(streams.len());
        for streams in &mut streams {
            wanted.push(streams.get_mut(usize::try_from(dice.below(spec.streams))?).ok_or("no such stream")?);
        }
        floor.begin()?;
        floor.insert_each(&mut wanted, &payload)?;
        floor.commit()?;
        taken.push(appended.elapsed());
    }
    Ok(Outcome::of(rounds * spec.callers, begun.elapsed().as_secs_f64()).with_latency(Latency::of(taken)))
}
