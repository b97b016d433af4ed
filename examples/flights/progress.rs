//! Reports progress on stderr.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use examples::grouped;
use tokio::task::JoinHandle;

/// Counts finished work.
#[derive(Debug)]
pub(crate) struct Progress {
    total: u64,
    started: Instant,
    rows: AtomicU64,
    events: AtomicU64,
}

/// Prints the counts until it is stopped.
#[derive(Debug)]
pub(crate) struct Reporter {
    progress: Arc<Progress>,
    task: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        Self { total, started: Instant::now(), rows: AtomicU64::new(0), events: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, rows: usize, events: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    /// How many events were written.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Starts printing the counts each second; on a terminal always on the same line.
    pub(crate) fn report(self: &Arc<Self>) -> Reporter {
        let progress = Arc::clone(self);
        let task = tokio::spawn(async move {
            let every = if std::io::stderr().is_terminal() { 200 } else { 1_000 };
            let mut ticks = tokio::time::interval(Duration::from_millis(every));
            // The first tick fires immediately, when there is nothing to report yet.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                progress.say();
            }
        });
        Reporter { progress: Arc::clone(self), task }
    }

    fn say(&self) {
        let rows = self.rows.load(Ordering::Relaxed);
        let percent = (rows * 100).checked_div(self.total).unwrap_or(100);
        let (all, written) = (grouped(self.total), grouped(self.events()));
        let rate = grouped(per_second(self.events(), self.seconds()));
        let line =
            format!("{percent:>3} %  {} of {all} rows, {written} events written, {rate} a second", grouped(rows));
        let mut stderr = std::io::stderr().lock();
        // Failing to print progress is not worth an error.
        drop(if stderr.is_terminal() { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") });
    }
}

impl Reporter {
    /// Prints the final counts.
    pub(crate) fn finish(self) {
        self.task.abort();
        self.progress.say();
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

/// A rate, rounded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of events are far below 2^53, and a rate is not negative"
)]
pub(crate) fn per_second(count: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (count as f64 / seconds).round() as u64 } else { 0 }
}
