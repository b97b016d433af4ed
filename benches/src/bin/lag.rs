//! How far a projection lags behind a steady load: from the return of an append to the moment when its read model shows
//! it. Arguments: events a second (20,000), seconds (30), events an append (20).
#![expect(clippy::print_stdout, reason = "a program that prints its result")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares of small counts"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::Result;
use benches::domain::{AccountEvent, encoded};
use es_framework::{ExpectedVersion, Position, Projection, Projector, Recorded};
use es_sqlite::rusqlite::{self, params};
use es_sqlite::{SqliteModel, SqliteStore, SqliteTx};
use tokio::sync::mpsc;

/// One upsert an event, into 10,000 rows.
struct InRows;

impl Projector for InRows {
    type Event = AccountEvent;
    type Model = SqliteModel;
    type Error = rusqlite::Error;
    const NAME: &'static str = "lag";

    fn prepare(&self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS seen (row INTEGER PRIMARY KEY, events INTEGER NOT NULL)")
    }

    fn project(&self, event: &Recorded<AccountEvent>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let row = event.position().get() % 10_000;
        let upsert = "INSERT INTO seen VALUES (?1, 1) ON CONFLICT (row) DO UPDATE SET events = events + 1";
        tx.execute(upsert, params![i64::try_from(row).unwrap_or(0)]).map(drop)
    }
}

fn argument(nth: usize, default: u64) -> u64 {
    std::env::args().nth(nth).and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let (rate, seconds, each) = (argument(1, 20_000), argument(2, 30), argument(3, 20));
    let folder = tempfile::tempdir()?;
    let store = Arc::new(SqliteStore::open(folder.path().join("log.db")).await?);
    let model = SqliteModel::open(folder.path().join("rows.db")).await?;
    let running = Projection::new(&*store, InRows, model.clone()).start().await?;
    let (written, mut positions) = mpsc::unbounded_channel::<(Position, Instant)>();
    let waiter = {
        let running = running.clone();
        tokio::spawn(async move {
            let mut lags = Vec::new();
            while let Some((position, at)) = positions.recv().await {
                running.reached(position, Duration::from_secs(60)).await?;
                lags.push(at.elapsed());
            }
            Ok::<_, es_framework::WaitError>(lags)
        })
    };
    let begun = Instant::now();
    let appends = rate * seconds / each;
    for n in 0..appends {
        let due = begun + Duration::from_secs_f64(n as f64 * each as f64 / rate as f64);
        tokio::time::sleep_until(due.into()).await;
        let events = (0..each).map(|i| encoded(n * each + i)).collect::<std::result::Result<Vec<_>, _>>()?;
        let (store, written) = (Arc::clone(&store), written.clone());
        tokio::spawn(async move {
            let stream = store.open_stream(format!("account-{}", n % 64));
            let Ok(stream) = stream else { return };
            if let Ok(appended) = stream.write(events, ExpectedVersion::Any).await {
                // Nobody listens any more only after a failure, which is returned there.
                written.send((appended.position, Instant::now())).ok();
            }
        });
    }
    drop(written);
    let mut lags = waiter.await??;
    let took = begun.elapsed();
    lags.sort_unstable();
    let at = |share: f64| lags.get((lags.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{} events in {took:.1?} ({:.0} a second), FULL, one upsert each; lag p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        lags.len() as u64 * each,
        (lags.len() as u64 * each) as f64 / took.as_secs_f64(),
        at(0.5),
        at(0.99),
        lags.last().copied().unwrap_or_default(),
    );
    running.stop().await?;
    model.close().await?;
    store.close().await?;
    Ok(())
}
