//! W10: waiting watchers, each on its own stream; their cost, and how long it takes to wake the one concerned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_framework::{CandidateEvent, ExpectedVersion};
use tokio::sync::mpsc;

use super::{event_type, open, payload};
use crate::Result;
use crate::measure::{Dice, Latency, cpu_time, figure, peak_rss_bytes};
use crate::spec::{Outcome, Spec};

/// `spec.streams` watchers (0 for none); idle for `spec.per_append` seconds; then `spec.events` wake-ups.
pub(super) async fn run(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let event_type = event_type()?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let begun = Instant::now();
    for watcher in 0..spec.streams {
        let mut watch = store.open_stream(format!("account-{watcher}"))?.watch().await?;
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = watch.next().await {
                if seen.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
    }
    let registered = begun.elapsed();
    // Every watcher has checked the log and waits.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let (before, begun) = (cpu_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(spec.per_append)).await;
    let idle = cpu_time().saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;

    let mut dice = Dice::new(7);
    let mut taken = Vec::new();
    let begun = Instant::now();
    for n in 0..spec.events {
        tokio::time::sleep(Duration::from_micros(500)).await;
        let stream = store.open_stream(format!("account-{}", dice.below(spec.streams)))?;
        let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
        // From before the write: the watcher often has the event before the writer has its result, and a ratio of two
        // zeros is meaningless.
        let asked = Instant::now();
        stream.write(event, ExpectedVersion::Any).await?;
        let arrived = arrivals.recv().await.ok_or("no watcher is left")?;
        taken.push(arrived.saturating_duration_since(asked));
    }
    let outcome = Outcome::of(spec.events, begun.elapsed().as_secs_f64())
        .with_latency(Latency::of(taken))
        .with_fact("idle_cpu_percent", idle)
        .with_fact("register_ms", registered.as_secs_f64() * 1e3)
        .with_fact("peak_mib", figure(peak_rss_bytes()) / f64::from(1 << 20));
    store.close().await?;
    Ok(outcome)
}
