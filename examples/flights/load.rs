//! From rows to commands: concurrent across aircraft, in order for one aircraft.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use es_framework::{ExecuteError, Repository, Store};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::domain::{Aircraft, LogFlights};
use crate::figures::{Figured, Figures};
use crate::progress::Progress;
use crate::rows::{Row, RowError, Rows};

/// Commands in flight at the same time. The store commits all waiting writers together, so this many commands share the
/// cost of a flush to the disk.
const WORKERS: usize = 256;

/// Maximum number of rows that wait for one worker; 16,384 rows over all workers.
const WAITING: usize = 64;

/// Aircraft whose log books stay in memory; a year of flights has about 4,000.
const BOOKS: usize = 8_192;

/// The id under which flights without a tail number are kept.
const UNKNOWN: &str = "unknown";

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Rows(#[from] RowError),
    #[error(transparent)]
    Execute(#[from] ExecuteError<Infallible>),
    #[error("a worker was lost")]
    Lost(#[from] JoinError),
}

/// Reads the whole file, checks every row and computes the figures directly. Nothing is written before this has
/// succeeded.
pub(crate) fn survey(file: &Path) -> Result<Figured, RowError> {
    let mut figured = Figured::default();
    for row in Rows::open(file)? {
        let row = row?;
        figured.add(&row.flight.id, &Figures::of_row(&row));
    }
    Ok(figured)
}

/// Turns every row into a command.
///
/// A row goes to the worker that its tail number maps to, and a worker executes one command after the other, so the
/// rows of one aircraft keep their order. All channels are bounded: a slow store makes reading the file wait. Rows that
/// wait for a worker meanwhile go into one command per aircraft, so the slower the store, the larger its batches.
pub(crate) async fn load(file: &Path, store: &Store, progress: &Arc<Progress>) -> Result<(), LoadError> {
    let aircraft = Repository::<Aircraft>::builder(store).cache(BOOKS).build();
    let mut workers = JoinSet::new();
    let mut channels = Vec::with_capacity(WORKERS);
    for _ in 0..WORKERS {
        let (sender, rows) = mpsc::channel(WAITING);
        channels.push(sender);
        workers.spawn(work(aircraft.clone(), rows, Arc::clone(progress)));
    }
    let file = file.to_owned();
    let reader = tokio::task::spawn_blocking(move || hand_out(&file, &channels));
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    reader.await??;
    aircraft.snapshots_settled().await;
    Ok(())
}

/// Sends each row to its worker; ends early if the workers do.
fn hand_out(file: &Path, channels: &[mpsc::Sender<Row>]) -> Result<(), RowError> {
    let mut occurrences = HashMap::<u128, u32>::new();
    for row in Rows::open(file)? {
        let mut row = row?;
        let occurrence = occurrences.entry(row.flight.id.fingerprint()).or_default();
        *occurrence += 1;
        row.flight.id.occurrence = *occurrence;
        let mut hasher = DefaultHasher::new();
        row.tail.hash(&mut hasher);
        let worker = usize::try_from(hasher.finish() % WORKERS as u64).unwrap_or_default();
        let Some(channel) = channels.get(worker) else { break };
        if channel.blocking_send(row).is_err() {
            break;
        }
    }
    Ok(())
}

async fn work(
    aircraft: Repository<Aircraft>,
    mut rows: mpsc::Receiver<Row>,
    progress: Arc<Progress>,
) -> Result<(), LoadError> {
    let mut waiting = Vec::with_capacity(WAITING);
    while rows.recv_many(&mut waiting, WAITING).await > 0 {
        let mut by_tail = BTreeMap::<_, Vec<_>>::new();
        for Row { tail, flight } in waiting.drain(..) {
            by_tail.entry(tail).or_default().push(flight);
        }
        for (tail, flights) in by_tail {
            let rows = flights.len();
            let id = tail.unwrap_or_else(|| UNKNOWN.to_owned());
            let receipt = aircraft.execute(id, LogFlights { flights }).await?;
            progress.add(rows, receipt.events);
        }
    }
    Ok(())
}
