//! How large the write-ahead log grows under bulk appends while readers overlap all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use es_framework::{CandidateEvent, ExpectedVersion};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::measure::{Latency, figure, file_bytes};
use crate::spec::{Outcome, Spec};

pub(super) async fn run(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let stream = store.open_stream("account-bulk")?;
    let event_type = event_type()?;
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..spec.callers).map(|_| {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut read = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut reading = store.all().read().stream();
                while let Some(events) = reading.next_batch().await {
                    read += events?.len() as u64;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            Result::Ok(read)
        })
    });
    let readers: Vec<_> = readers.collect();
    let wal = path(spec).with_extension("db-wal");
    let (mut longest, mut taken) = (0, Vec::new());
    let begun = Instant::now();
    for first in (0..spec.events).step_by(usize::try_from(spec.per_append)?) {
        let appended = Instant::now();
        let event = |n| CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
        let events: Vec<_> = (first..first + spec.per_append).map(event).collect();
        stream.write(events, ExpectedVersion::Any).await?;
        taken.push(appended.elapsed());
        longest = longest.max(file_bytes(&wal));
    }
    let seconds = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut read = 0;
    for reader in readers {
        read += reader.await??;
    }
    store.close().await?;
    Ok(Outcome::of(spec.events, seconds)
        .with_latency(Latency::of(taken))
        .with_fact("wal_mib", figure(longest) / f64::from(1 << 20))
        .with_fact("read_meanwhile", figure(read)))
}
