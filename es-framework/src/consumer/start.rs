//! Starting a consumer in a task of its own, or running it through what is in the log now.

use tokio::runtime::Handle;
use tracing::Instrument;

use super::control::Control;
use super::error::RunError;
use super::handle::Running;
use super::heartbeat::{Beside, Heartbeat};
use super::lease::{Contender, Lease};
use super::parked::Parking;
use super::policy::{Jitter, Policy};
use super::report::Report;
use super::run::{Leave, Run, panicked_drop};
use super::status::ConsumerState;
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
    pub(crate) lease: Option<Lease>,
}

impl<W: Work> Consumer<W> {
    fn into_run(self) -> Result<(Run<W>, Running, Heartbeat), RunError> {
        let Self { store, name, mut work, wanted, policy, start_from, lease } = self;
        let (report, seen) = Report::new(name.clone());
        let (control, remote, alarm) = Control::new();
        work.stop_by(control.stop_signal());
        let timer = Timer::shared();
        let commands = remote.commands.downgrade();
        let (heartbeat, beside) = Heartbeat::new(store.clone(), &name, timer.clone(), seen.clone(), commands, alarm)?;
        let contender = lease.map(|lease| Contender::new(&name, lease)).transpose()?;
        let running = Running::new(name.clone(), seen, remote, timer.clone());
        let jitter = Jitter::new(policy.seed);
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
            checkpoint: None,
            seen: None,
            unwritten: None,
            failing: None,
            parking: Parking::default(),
            rebuilding: false,
            start_from,
            contender,
            claimed: false,
            beside,
            panicked: panicked_drop(),
        };
        Ok((run, running, heartbeat))
    }
}

/// Begins, and runs in a task of its own until it is stopped or fails.
pub(crate) async fn start<W: Work>(consumer: Consumer<W>) -> Result<Running, RunError> {
    let runtime = Handle::try_current().map_err(|_| RunError::NoRuntime)?;
    let (mut run, running, mut heartbeat) = consumer.into_run()?;
    let begun = if heartbeat.is_to_pause().await? {
        run.report.enter(ConsumerState::Paused);
        Err(Leave::Again)
    } else {
        let begun = panics::catch_async(Box::pin(run.begin())).await;
        begun.unwrap_or_else(|message| Err(Leave::Final(RunError::panicked(message))))
    };
    if let Err(Leave::Final(error)) = begun {
        let held = run.beside.holding.borrow().clone();
        if let Some(held) = held
            && let Err(error) = held.release(&run.store).await
        {
            tracing::debug!(%error, "a lease could not be released, and runs out");
        }
        if let Err(message) = panics::catch(|| drop(run)) {
            tracing::warn!(message, "a consumer that could not start panicked as it was dropped");
        }
        return Err(error);
    }
    match begun {
        Err(Leave::StandBy) => run.report.enter(ConsumerState::StandingBy),
        Err(Leave::Down(_)) => run.report.enter(ConsumerState::Waiting),
        _ => {}
    }
    let span = tracing::info_span!("consumer", name = run.name.as_str());
    runtime.spawn(heartbeat.beat().instrument(span.clone()));
    runtime.spawn(run.until_stopped(begun).instrument(span));
    Ok(running)
}

/// Processes everything that is in the log now, and returns the position reached.
pub(crate) async fn catch_up<W: Work>(consumer: Consumer<W>) -> Result<Position, RunError> {
    let (mut run, running, heartbeat) = consumer.into_run()?;
    (run.beside, run.contender) = (Beside::none(), None);
    drop(heartbeat);
    // On the heap: it is some ten kilobytes, and its callers' futures hold it.
    let (position, outcome) = Box::pin(run.until_head()).await;
    drop(running);
    outcome.map(|()| position)
}
