//! Starting a consumer in a task of its own, or running it through what is in the log now.

use tokio::runtime::Handle;
use tracing::Instrument;

use super::control::Control;
use super::error::RunError;
use super::handle::Running;
use super::parked::Parking;
use super::policy::{Jitter, Policy};
use super::report::Report;
use super::run::{Leave, Run, panicked_drop};
use super::timer::Timer;
use super::work::Work;
use crate::log::{Filter, Position, ProjectionName, Read, Store, StoreError, StreamId};
use crate::panics;

/// Where a consumer starts that has never run. One that has a checkpoint goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// With the first event.
    #[default]
    Beginning,
    /// With the first event that is written from now on.
    Present,
    /// With the first event after this position.
    After(Position),
}

impl StartFrom {
    /// The position after which to start; [`None`] for the beginning.
    pub(super) async fn position(self, store: &Store) -> Result<Option<Position>, StoreError> {
        match self {
            Self::Beginning => Ok(None),
            Self::Present => {
                let head = store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await?.head;
                Ok(Some(Position::new(head)))
            }
            Self::After(position) => Ok(Some(position)),
        }
    }
}

/// Everything that a consumer is made of.
#[derive(Debug)]
pub(crate) struct Consumer<W> {
    pub(crate) store: Store,
    pub(crate) name: ProjectionName,
    pub(crate) work: W,
    /// Which events it wants; those of other types than its own are left out anyway.
    pub(crate) wanted: Filter,
    pub(crate) policy: Policy,
    pub(crate) start_from: StartFrom,
}

impl<W: Work> Consumer<W> {
    fn into_run(self) -> (Run<W>, Running) {
        let Self { store, name, mut work, wanted, policy, start_from } = self;
        let (report, seen) = Report::new(name.clone());
        let (control, remote) = Control::new();
        work.stop_by(control.stop_signal());
        let timer = Timer::default();
        let running = Running::new(name.clone(), seen, remote, timer.clone());
        let jitter = Jitter::new(policy.seed);
        let (checkpoint, seen, unwritten, failing, panicked) = (None, None, None, None, panicked_drop());
        let run = Run {
            store,
            name,
            work,
            wanted,
            policy,
            jitter,
            timer,
            report,
            control,
            checkpoint,
            seen,
            unwritten,
            failing,
            parking: Parking::default(),
            start_from,
            panicked,
        };
        (run, running)
    }
}

/// Begins, and runs in a task of its own until it is stopped or fails.
pub(crate) async fn start<W: Work>(consumer: Consumer<W>) -> Result<Running, RunError> {
    let runtime = Handle::try_current().map_err(|_| RunError::NoRuntime)?;
    let (mut run, running) = consumer.into_run();
    let begun = panics::catch_async(run.begin()).await;
    let begun = begun.unwrap_or_else(|message| Err(Leave::Final(RunError::panicked(message))));
    if let Err(Leave::Final(error)) = begun {
        if let Err(message) = panics::catch(|| drop(run)) {
            tracing::warn!(message, "a consumer that could not start panicked as it was dropped");
        }
        return Err(error);
    }
    let span = tracing::info_span!("consumer", name = run.name.as_str());
    runtime.spawn(run.until_stopped(begun).instrument(span));
    Ok(running)
}

/// Processes everything that is in the log now, and returns the position reached.
pub(crate) async fn catch_up<W: Work>(consumer: Consumer<W>) -> Result<Position, RunError> {
    let (run, running) = consumer.into_run();
    let (position, outcome) = run.until_head().await;
    drop(running);
    outcome.map(|()| position)
}
