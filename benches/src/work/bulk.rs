//! W1 and W2: many events per append, one caller, one stream.

use std::sync::Arc;
use std::time::Instant;

use es_framework::{CandidateEvent, EventId, ExpectedVersion};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::{Floor, event_id};
use crate::spec::{Outcome, Side, Spec};

pub(super) async fn run(spec: &Spec, ids: bool) -> Result<Outcome> {
    match spec.side {
        Side::Engine => engine(spec, ids).await,
        Side::Floor => floor(spec, ids).await,
    }
}

async fn engine(spec: &Spec, ids: bool) -> Result<Outcome> {
    let store = open(spec).await?;
    let stream = store.open_stream("account-bulk")?;
    let event_type = event_type()?;
    let begun = Instant::now();
    let mut written = 0;
    while written < spec.events {
        let last = spec.events.min(written + spec.per_append);
        let mut events = Vec::with_capacity(usize::try_from(last - written)?);
        for n in written..last {
            let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
            events.push(if ids { event.with_id(EventId::text(event_id(n))?) } else { event });
        }
        stream.write(events, ExpectedVersion::Any).await?;
        written = last;
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(written, seconds))
}

async fn floor(spec: &Spec, ids: bool) -> Result<Outcome> {
    let mut floor = Floor::make(&path(spec), spec.mode, spec.rows).await?;
    let begun = Instant::now();
    let mut written = 0;
    let mut stream = None;
    while written < spec.events {
        let last = spec.events.min(written + spec.per_append);
        let payloads: Vec<_> = (written..last).map(|n| payload(n, spec.payload)).collect();
        floor.begin()?;
        if stream.is_none() {
            stream = Some(floor.add_stream("account-bulk")?);
        }
        if let Some(stream) = &mut stream {
            floor.insert_into(stream, &payloads, ids.then_some(written))?;
        }
        floor.commit()?;
        written = last;
    }
    Ok(Outcome::of(written, begun.elapsed().as_secs_f64()))
}
