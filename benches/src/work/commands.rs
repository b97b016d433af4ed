//! W5: commands by many callers through the repository.

use std::time::Instant;

use es_framework::Repository;

use super::open;
use crate::Result;
use crate::domain::{Account, Deposit};
use crate::measure::{Latency, figure};
use crate::spec::{Outcome, Spec};

pub(super) async fn run(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let accounts = Repository::<Account>::new(&store);
    for account in 0..spec.streams {
        accounts.execute(account.to_string(), Deposit { cents: 1 }).await?;
    }
    let before = accounts.metrics();
    let each = spec.events / spec.callers;
    let begun = Instant::now();
    let callers = (0..spec.callers).map(|caller| {
        let (accounts, id) = (accounts.clone(), (caller % spec.streams).to_string());
        tokio::spawn(async move {
            let mut taken = Vec::with_capacity(usize::try_from(each)?);
            for cents in 0..each {
                let asked = Instant::now();
                accounts.execute(id.as_str(), Deposit { cents }).await?;
                taken.push(asked.elapsed());
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
    let metrics = accounts.metrics();
    store.close().await?;
    Ok(Outcome::of(each * spec.callers, seconds)
        .with_latency(Latency::of(taken))
        .with_fact("cache_hits", figure(metrics.cache_hits - before.cache_hits))
        .with_fact("cache_misses", figure(metrics.cache_misses - before.cache_misses))
        .with_fact("conflicts", figure(metrics.conflicts - before.conflicts)))
}
