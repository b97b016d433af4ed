//! When states are saved, and what happens if one cannot be saved.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::aggregate::{Aggregate, Apply};
use super::cache::Base;
use super::fold::caught;
use super::repository::Inner;
use super::snapshots::SaveError;
use super::state::Progress;
use crate::log::{SnapshotError, StoreError, StreamId};

/// The number of consecutive failures after which the pause between two tries stops growing.
const LONGEST_PAUSE: u32 = 10;

/// The maximum number of aggregates remembered as unsaveable.
const UNSAVEABLE: usize = 1_024;

/// The maximum number of snapshots one repository saves at the same time; further ones wait for the next command.
const SAVING_AT_ONCE: usize = 4;

/// The snapshots that are being saved in the background. Waiting for them holds nothing that another save needs.
#[derive(Debug, Default)]
pub(super) struct Saving(Mutex<Vec<watch::Receiver<()>>>);

impl Saving {
    /// Begins a save, unless too many are running; it ends when the returned sender is dropped.
    fn begin(&self) -> Option<watch::Sender<()>> {
        let mut running = self.running();
        if running.len() >= SAVING_AT_ONCE {
            return None;
        }
        let (begun, ended) = watch::channel(());
        running.push(ended);
        Some(begun)
    }

    /// Waits for the saves that began before this call.
    pub(super) async fn settled(&self) {
        let running = self.running().clone();
        for mut save in running {
            // Nothing is ever sent: it ends with an error when the sender is dropped.
            let _: Result<(), _> = save.changed().await;
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<watch::Receiver<()>>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|save| save.has_changed().is_ok());
        running
    }
}

/// Which saves are not worth trying, so that a failing save does not fail again at every command and every load.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The store accepts no snapshots, now or later.
    is_off: AtomicBool,
    /// How many times in a row the store did not accept one.
    in_a_row: AtomicU32,
    /// How many due saves are skipped before the next try.
    pause: AtomicU32,
    /// Whether any failure was a state that cannot be saved.
    has_unsaveable: AtomicBool,
    /// The version from which saving the state of an aggregate is tried again.
    unsaveable: Mutex<HashMap<StreamId, u64>>,
}

impl Failures {
    /// Whether saving the state of the aggregate may be worth trying, if it is due.
    fn allow(&self, stream: &StreamId, version: u64) -> bool {
        if self.is_off.load(Ordering::Relaxed) {
            return false;
        }
        !self.has_unsaveable.load(Ordering::Relaxed)
            || self.unsaveable().get(stream).is_none_or(|again| version >= *again)
    }

    /// Whether a due state is skipped because the store did not accept the last ones.
    fn pass_over(&self) -> bool {
        self.pause.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn saved(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// Remembers a failure. The first failure of each kind is logged as a warning, later ones at debug level.
    fn failed(&self, stream: &StreamId, version: u64, error: &Failure) {
        let is_news = match error {
            Failure::Save(SaveError::Store(SnapshotError::Store(refused))) if is_for_good(refused) => {
                !self.is_off.swap(true, Ordering::Relaxed)
            }
            Failure::Save(SaveError::Store(SnapshotError::Store(_))) => {
                let before = self.in_a_row.fetch_add(1, Ordering::Relaxed);
                // 0, 1, 3, 7 …
                self.pause.store((1 << before.min(LONGEST_PAUSE)) - 1, Ordering::Relaxed);
                before == 0
            }
            _ => {
                let mut unsaveable = self.unsaveable();
                if unsaveable.len() >= UNSAVEABLE {
                    unsaveable.clear();
                }
                unsaveable.insert(stream.clone(), version.saturating_mul(2));
                !self.has_unsaveable.swap(true, Ordering::Relaxed)
            }
        };
        if is_news {
            warn!(%stream, version, error = %error.text(), "{}", error.consequence());
        } else {
            debug!(%stream, version, error = %error.text(), "no snapshot was saved");
        }
    }

    fn unsaveable(&self) -> MutexGuard<'_, HashMap<StreamId, u64>> {
        self.unsaveable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the store will not accept a snapshot later either.
fn is_for_good(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::ReadOnly
            | StoreError::WriteRequires { .. }
            | StoreError::StoreChanged { .. }
            | StoreError::FormatChanged { .. }
    )
}

/// Why a state was not saved.
enum Failure {
    Save(SaveError),
    /// The user's code panicked, with this message.
    Panic(&'static str, String),
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Panic(code, message) => format!("{code} panicked: {message}"),
            Self::Save(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    text = format!("{text}: {error}");
                    source = error.source();
                }
                text
            }
        }
    }

    fn consequence(&self) -> &'static str {
        match self {
            Self::Save(SaveError::Store(SnapshotError::Store(error))) if is_for_good(error) => {
                "the store takes no snapshots: this repository saves none from here on"
            }
            Self::Save(SaveError::Store(SnapshotError::Store(_))) => "no snapshot was saved: it is tried again later",
            _ => "the state of an aggregate cannot be saved: it is tried again when it has twice as many events",
        }
    }
}

impl<A: Aggregate + Apply> Inner<A> {
    /// Whether the policy wants the state saved and trying to is worthwhile.
    pub(super) fn is_due(&self, stream: &StreamId, base: &Base<A>) -> bool {
        let Some((snapshots, _)) = &self.snapshots else { return false };
        let saved = base.snapshot_at.load(Ordering::Acquire);
        let progress = Progress::new(base.version, base.version.get().saturating_sub(saved));
        if progress.events_since_snapshot == 0 || !self.failures.allow(stream, base.version.get()) {
            return false;
        }
        // The policy runs after the events were written, so its panic must not fail the command.
        let is_due = caught(|| snapshots.is_due(&base.state, progress)).unwrap_or_else(|message| {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.failures.failed(stream, base.version.get(), &Failure::Panic("the snapshot policy", message));
            false
        });
        is_due && !self.failures.pass_over()
    }

    /// Saves the state: in the background inside a tokio runtime, before returning otherwise. A failure is counted and
    /// logged, and never fails the command.
    pub(super) async fn save_due(self: &Arc<Self>, stream: &StreamId, base: Base<A>) {
        let Some(reserved) = Reserved::new(&base) else { return };
        let (inner, stream) = (Arc::clone(self), stream.clone());
        match Handle::try_current() {
            Err(_) => inner.save_reserved(&stream, &base, reserved).await,
            Ok(runtime) => {
                let Some(begun) = self.saving.begin() else { return };
                drop(runtime.spawn(async move {
                    inner.save_reserved(&stream, &base, reserved).await;
                    drop(begun);
                }));
            }
        }
    }

    async fn save_reserved(&self, stream: &StreamId, base: &Base<A>, reserved: Reserved) {
        let mut saving = pin!(self.save(stream, base));
        let saved = poll_fn(|cx| match caught(|| saving.as_mut().poll(cx)) {
            Ok(polled) => polled.map_err(Failure::Save),
            Err(message) => Poll::Ready(Err(Failure::Panic("the state's `Serialize`", message))),
        });
        match saved.await {
            Ok(()) => {
                reserved.keep();
                self.failures.saved();
                self.counters.saved.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                self.failures.failed(stream, base.version.get(), &error);
            }
        }
    }
}

/// The version at which a snapshot is being saved, so that no other save runs meanwhile. Dropping it without
/// [`Self::keep`] makes the state due again, unless another save has overtaken this one.
struct Reserved {
    snapshot_at: Arc<AtomicU64>,
    before: u64,
    version: u64,
    is_kept: bool,
}

impl Reserved {
    fn new<A>(base: &Base<A>) -> Option<Self> {
        let (snapshot_at, version) = (Arc::clone(&base.snapshot_at), base.version.get());
        let newer = |at: u64| (at < version).then_some(version);
        let before = snapshot_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, newer).ok()?;
        Some(Self { snapshot_at, before, version, is_kept: false })
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_kept {
            let (now, before) = (self.version, self.before);
            let _: Result<u64, u64> =
                self.snapshot_at.compare_exchange(now, before, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failures: &Failures, version: u64, error: SnapshotError) {
        failures.failed(&stream(), version, &Failure::Save(SaveError::Store(error)));
    }

    fn stream() -> StreamId {
        StreamId::new("account-alice").unwrap()
    }

    #[test]
    fn a_store_that_can_take_no_snapshot_is_not_asked_again() {
        let failures = Failures::default();
        assert!(failures.allow(&stream(), 1) && !failures.pass_over());
        failed(&failures, 1, StoreError::ReadOnly.into());
        assert!(!(1..10_000).any(|version| failures.allow(&stream(), version)));
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_asked_less_and_less_often() {
        let failures = Failures::default();
        let mut tries = 0;
        for version in 0..10_000 {
            if !failures.pass_over() {
                tries += 1;
                failed(&failures, version, StoreError::Closed.into());
            }
        }
        assert!((15..30).contains(&tries), "{tries} tries");
        failures.saved();
        failed(&failures, 1, StoreError::Closed.into());
        assert!(!failures.pass_over(), "the first failure after a success is tried again at once");
    }

    #[test]
    fn a_state_that_cannot_be_saved_is_tried_again_when_it_has_twice_as_many_events() {
        let failures = Failures::default();
        failures.failed(&stream(), 100, &Failure::Panic("it", "no".into()));
        assert!(!failures.allow(&stream(), 199));
        assert!(failures.allow(&stream(), 200));
        assert!(failures.allow(&StreamId::new("account-bob").unwrap(), 1), "others are saved");
        for n in 0..3_000 {
            failures.failed(&StreamId::new(format!("account-{n}")).unwrap(), 100, &Failure::Panic("it", "no".into()));
        }
        assert!(failures.unsaveable().len() <= UNSAVEABLE);
    }
}
