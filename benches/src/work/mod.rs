//! The measurements themselves, one file for each family of workloads.

mod bulk;
mod commands;
mod courses;
mod grown;
mod indexed;
mod many;
mod overlapped;
mod project;
mod queried;
mod read;
mod single;
mod tagged;
mod watch;
mod watchers;

use std::path::PathBuf;
use std::sync::Arc;

use es_framework::{CandidateEvent, EventType};
use es_sqlite::SqliteStore;

pub use watch::watch_elsewhere;

use crate::Result;
use crate::floor::TYPE;
use crate::measure::{cpu_seconds, file_bytes, peak_rss_bytes};
use crate::spec::{Outcome, Spec, Work};

/// Runs one measurement.
pub async fn run(spec: &Spec) -> Result<Outcome> {
    let mut outcome = match spec.work {
        Work::Bulk { ids } => bulk::run(spec, ids).await,
        Work::Single { new_streams } => single::run(spec, new_streams).await,
        Work::Many => many::run(spec).await,
        Work::Conditional { hot } => tagged::run(spec, hot).await,
        Work::Query { skewed } => queried::run(spec, skewed).await,
        Work::FillTagged => queried::fill(spec).await,
        Work::Commands => commands::run(spec).await,
        Work::Courses => courses::run(spec).await,
        Work::Load { snapshot } => read::load(spec, snapshot).await,
        Work::Scan { filtered } => read::scan(spec, filtered).await,
        Work::Project { results } => project::run(spec, results).await,
        Work::Watch { pause_us, elsewhere } => watch::run(spec, pause_us, elsewhere).await,
        Work::Watchers => watchers::run(spec).await,
        Work::Grown { alone } => grown::append(spec, alone).await,
        Work::GrownLoad => grown::load(spec).await,
        Work::Overlapped => overlapped::run(spec).await,
        Work::Indexed { index, .. } => indexed::run(spec, index).await,
        Work::FillIndexed { index } => indexed::fill(spec, index).await,
        Work::FillTyped => read::fill(spec).await,
        Work::FillGrown => grown::fill(spec).await,
    }?;
    outcome.cpu_seconds = cpu_seconds();
    outcome.peak_rss_bytes = peak_rss_bytes();
    outcome.file_bytes = file_bytes(&path(spec));
    Ok(outcome)
}

/// The path of a measurement's store.
fn path(spec: &Spec) -> PathBuf {
    spec.dir.join("store.db")
}

/// Opens the store of a measurement as users do.
async fn open(spec: &Spec) -> Result<SqliteStore> {
    Ok(SqliteStore::builder().durability(spec.mode.durability()).open(path(spec)).await?)
}

/// The event type of untyped events.
fn event_type() -> Result<Arc<EventType>> {
    Ok(Arc::new(EventType::new(TYPE, 1, CandidateEvent::RAW)?))
}

/// A payload of its own for every event, as an encoder would make it.
fn payload(n: u64, bytes: usize) -> Vec<u8> {
    vec![n.to_le_bytes().first().copied().unwrap_or(0); bytes]
}
