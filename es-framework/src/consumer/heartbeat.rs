//! What goes on beside a run: renewing its lease, writing its status, looking for wishes.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use super::control::{Alarm, Answer, Command, ControlError, Request};
use super::lease::{Held, cell_key};
use super::sealed;
use super::status::{ConsumerState, Status};
use super::stored_status::{LastWritten, StoredStatus};
use super::timer::Timer;
use super::wish::{Act, Wish};
use crate::log::{CellError, CellKey, InvalidName, ProjectionName, Store, StoreError};

/// The shortest time between two writes of the status, unless the state has changed.
const WRITES: Duration = Duration::from_secs(1);
/// The shortest time between two writes of the status.
const CHANGES: Duration = Duration::from_millis(50);
/// How often it looks for wishes.
const LOOKS: Duration = Duration::from_secs(2);
/// How long a run that has ended waits for its last status to be written.
const FAREWELL: Duration = Duration::from_secs(5);

/// A run's end.
#[derive(Debug)]
pub(super) struct Beside {
    /// The lease that the run holds.
    pub(super) holding: watch::Sender<Option<Held>>,
    finish: Option<(oneshot::Sender<Status>, oneshot::Receiver<()>)>,
}

impl Beside {
    /// Of a run that has no heartbeat.
    pub(super) fn none() -> Self {
        Self { holding: watch::channel(None).0, finish: None }
    }

    /// Has the last status written and the lease released. If that takes long, it is done later.
    pub(super) async fn finish(self, last: Status, timer: &Timer) {
        let Some((finish, mut finished)) = self.finish else { return };
        if finish.send(last).is_ok() {
            tokio::select! {
                _ = &mut finished => {}
                () = timer.at(Instant::now().checked_add(FAREWELL)) => {}
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heartbeat {
    store: Store,
    status_key: CellKey,
    want_key: CellKey,
    timer: Timer,
    seen: watch::Receiver<Status>,
    commands: mpsc::WeakUnboundedSender<Command>,
    alarm: watch::Sender<Alarm>,
    holding: watch::Receiver<Option<Held>>,
    finish: oneshot::Receiver<Status>,
    finished: oneshot::Sender<()>,
    /// The lease as it was renewed last.
    held: Option<Held>,
    /// When it is to be renewed.
    renews: Option<Instant>,
    written: LastWritten,
    /// The revision of the status cell, as far as it is known.
    revision: u64,
    looked: Option<Instant>,
    /// What was passed on to the run, and is not answered yet.
    asked: Option<(Asked, oneshot::Receiver<Result<Answer, ControlError>>)>,
    /// The wish that was carried out last, or refused.
    done: Option<String>,
    /// Whether a wish has paused the consumer.
    paused: bool,
}

#[derive(Debug)]
enum Asked {
    Pause,
    Resume,
    Act(String),
}

impl Heartbeat {
    pub(super) fn new(
        store: Store,
        name: &ProjectionName,
        timer: Timer,
        seen: watch::Receiver<Status>,
        commands: mpsc::WeakUnboundedSender<Command>,
        alarm: watch::Sender<Alarm>,
    ) -> Result<(Self, Beside), InvalidName> {
        let (status_key, want_key) = (cell_key(name, "status")?, cell_key(name, "want")?);
        let (hold, holding) = watch::channel(None);
        let (finish, last) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let beside = Beside { holding: hold, finish: Some((finish, done)) };
        let heartbeat = Self {
            store,
            status_key,
            want_key,
            timer,
            seen,
            commands,
            alarm,
            holding,
            finish: last,
            finished,
            held: None,
            renews: None,
            written: LastWritten::default(),
            revision: 0,
            looked: None,
            asked: None,
            done: None,
            paused: false,
        };
        Ok((heartbeat, beside))
    }

    /// Whether a wish has paused the consumer before it begins.
    pub(super) async fn is_to_pause(&mut self) -> Result<bool, StoreError> {
        let wish = wish(&self.store, &self.want_key).await?;
        self.paused = wish.is_some_and(|wish| wish.paused);
        Ok(self.paused)
    }

    /// Goes on until the run has ended.
    pub(super) async fn beat(mut self) {
        loop {
            let writes = self.next_write();
            // If a write is due anyway, only what makes it due sooner is of interest.
            let known = match writes {
                Some(_) => LastWritten::now(&self.seen.borrow()),
                None => self.written.clone(),
            };
            let next = [self.next_look(), self.next_renewal(), writes].into_iter().flatten().min();
            tokio::select! {
                biased;
                last = &mut self.finish => return self.take_leave(last.ok()).await,
                held = self.holding.changed() => {
                    if held.is_err() {
                        // The run is gone; its last status comes, or nothing.
                        let last = (&mut self.finish).await;
                        return self.take_leave(last.ok()).await;
                    }
                    self.held.clone_from(&self.holding.borrow_and_update());
                    self.renews = self.held.as_ref().map(Held::due);
                }
                answer = answered(&mut self.asked) => self.take_answer(answer),
                () = changed(&mut self.seen, |status| match writes {
                    // One that stands by writes nothing, so that it would be of interest for ever.
                    _ if status.state == ConsumerState::StandingBy => false,
                    Some(_) => known.is_outdated_by(status),
                    None => known.differs_from(status),
                }) => {}
                () = self.timer.at(next) => {}
            }
            self.renew().await;
            if self.is_owner() {
                self.write().await;
                self.look().await;
            }
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let looks = self.asked.is_none() && self.is_owner();
        looks.then(|| self.looked.map_or_else(Instant::now, |looked| looked + LOOKS))
    }

    fn next_renewal(&self) -> Option<Instant> {
        self.held.as_ref().and(self.renews)
    }

    /// When the status is to be written; [`None`] if it is as it was written.
    fn next_write(&self) -> Option<Instant> {
        let status = self.seen.borrow();
        match self.written.time() {
            _ if status.state == ConsumerState::StandingBy => None,
            None => Some(Instant::now()),
            Some(written) if self.written.is_outdated_by(&status) => Some(written + CHANGES),
            Some(written) => self.written.differs_from(&status).then_some(written + WRITES),
        }
    }

    /// One that stands by has nothing to say.
    fn is_owner(&self) -> bool {
        self.seen.borrow().state != ConsumerState::StandingBy
    }

    async fn renew(&mut self) {
        let Some(held) = self.held.as_ref().filter(|_| self.renews.is_some_and(|due| due <= Instant::now())) else {
            return;
        };
        match held.renew(&self.store).await {
            Ok(Some(held)) => {
                self.renews = Some(held.due());
                self.held = Some(held);
            }
            Ok(None) => self.lose(),
            Err(StoreError::Closed) => self.close(),
            Err(error) => {
                debug!(%error, "a lease could not be renewed");
                if held.has_run_out() {
                    self.lose();
                } else {
                    self.renews = Some(Instant::now() + held.lasts / 10);
                }
            }
        }
    }

    fn lose(&mut self) {
        if let Some(held) = self.held.take() {
            self.alarm.send_replace(Alarm::Lost(held.term));
        }
    }

    fn close(&mut self) {
        self.alarm.send_replace(Alarm::Closed);
        self.held = None;
    }

    /// Writes the status, if it is time.
    async fn write(&mut self) {
        if self.next_write().is_some_and(|due| due <= Instant::now()) {
            let status = self.seen.borrow().clone();
            self.put(&status).await;
        }
    }

    async fn put(&mut self, status: &Status) {
        let rate = self.written.write(status);
        let value = StoredStatus::of(status, rate, self.store.now()).encode();
        for _ in 0..2 {
            match self.store.set_cell(&self.status_key, self.revision, Some(value.clone())).await {
                Ok(revision) => self.revision = revision,
                Err(CellError::Changed { actual, .. }) => {
                    // At the start its revision is not known; and without a lease there may be another runner.
                    self.revision = actual;
                    continue;
                }
                Err(CellError::Store(StoreError::Closed)) => self.close(),
                Err(error) => debug!(%error, "the status of a consumer could not be written"),
            }
            return;
        }
    }

    /// Writes the last status and releases the lease.
    async fn take_leave(mut self, last: Option<Status>) {
        // If the run ended without a word, whoever notices that its status is old finds out.
        if let Some(last) = last
            && self.is_owner()
        {
            self.put(&last).await;
        }
        // The run may have got its lease and ended before this task has seen it.
        let known = self.holding.borrow().clone();
        let held = match (known, self.held.take()) {
            (Some(known), Some(renewed)) if known.term == renewed.term => Some(renewed),
            (known, _) => known,
        };
        if let Some(held) = held
            && let Err(error) = held.release(&self.store).await
        {
            debug!(%error, "a lease could not be released, and runs out");
        }
        if self.finished.send(()).is_err() {
            debug!("nobody waits for the last status of a consumer");
        }
    }

    /// Looks for a wish, if it is time, and passes it on.
    async fn look(&mut self) {
        if self.asked.is_some() || self.looked.is_some_and(|looked| looked.elapsed() < LOOKS) {
            return;
        }
        self.looked = Some(Instant::now());
        match wish(&self.store, &self.want_key).await {
            Ok(Some(wish)) => self.pass_on(wish),
            Ok(None) => {}
            Err(StoreError::Closed) => self.close(),
            Err(error) => debug!(%error, "the wishes for a consumer could not be read"),
        }
    }

    fn pass_on(&mut self, wish: Wish) {
        let (is_paused, acknowledged) = {
            let status = self.seen.borrow();
            (status.state == ConsumerState::Paused, status.acknowledged.clone())
        };
        if wish.paused && !is_paused {
            self.ask(Request::Pause, Asked::Pause, None);
        } else if !wish.paused && is_paused && self.paused {
            self.ask(Request::Resume, Asked::Resume, None);
        } else if acknowledged.as_ref() != Some(&wish.token) && self.done.as_ref() != Some(&wish.token) {
            let request = wish.act.as_ref().map_or(Request::Acknowledge, Act::request);
            self.ask(request, Asked::Act(wish.token.clone()), Some(wish.token));
        }
    }

    fn ask(&mut self, request: Request, asked: Asked, token: Option<String>) {
        let Some(commands) = self.commands.upgrade() else { return };
        let (reply, answer) = oneshot::channel();
        if commands.send(Command { request, token, reply }).is_ok() {
            self.asked = Some((asked, answer));
        }
    }

    fn take_answer(&mut self, answer: Option<Result<Answer, ControlError>>) {
        let Some((asked, _)) = self.asked.take() else { return };
        match (asked, answer) {
            (Asked::Pause, Some(Ok(_))) => self.paused = true,
            (Asked::Resume, Some(Ok(_))) => self.paused = false,
            // It is tried again with the next look.
            (Asked::Act(_), Some(Err(ControlError::Failed(error)))) if error.may_pass() => return,
            (Asked::Act(token), Some(_)) => self.done = Some(token),
            _ => return,
        }
        // A wish may have more to it.
        self.looked = None;
    }
}

/// Waits for the answer to what was asked, or for ever.
async fn answered(
    asked: &mut Option<(Asked, oneshot::Receiver<Result<Answer, ControlError>>)>,
) -> Option<Result<Answer, ControlError>> {
    match asked {
        Some((_, answer)) => answer.await.ok(),
        None => pending().await,
    }
}

/// Waits until the status is like this; for ever if it never will be.
async fn changed(seen: &mut watch::Receiver<Status>, is_due: impl FnMut(&Status) -> bool) {
    if seen.wait_for(is_due).await.is_err() {
        pending::<()>().await;
    }
}

/// The wish in the store.
pub(super) async fn wish(store: &Store, key: &CellKey) -> Result<Option<Wish>, StoreError> {
    Ok(store.cell(key).await?.and_then(|cell| sealed::open(&cell.value)))
}
