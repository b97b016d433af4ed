//! What a runner does when it is asked.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use super::ACKNOWLEDGED;
use super::control::{Answer, ControlError, Request, Retried};
use super::error::RunError;
use super::failure::text_of;
use super::feed::Events;
use super::parked::{ParkedEvent, ParkedFailure};
use super::run::{Leave, Run};
use super::status::{ConsumerState, IllegalTransition};
use super::work::{Portion, Trouble, Work, Write, checkpoint_at};
use crate::domain::Recorded;
use crate::log::{Position, Read, Store, StoreError, StoredEvent, StreamId};

/// Why a parked event was not applied: it failed again, or nothing could be done.
enum NotApplied {
    Again(RunError),
    Out(RunError),
}

impl<W: Work> Run<W> {
    /// Carries out the command that was received.
    pub(super) async fn carry_out(&mut self) {
        let Some(command) = self.control.next.take() else { return };
        let token = command.token.map(|token| (Write::now(ACKNOWLEDGED.to_owned(), Some(token.clone().into())), token));
        let writes = token.iter().map(|(write, _)| write.clone()).collect();
        let mut answer = self.answer(command.request, writes).await;
        if let Some((write, token)) = token {
            let refused = answer.as_ref().err().map(|error| text_of(error));
            match &answer {
                // It will be tried again.
                Err(ControlError::Failed(error)) if error.may_pass() => {}
                Err(ControlError::Ended) => {}
                Err(_) => match self.acknowledge(vec![write]).await {
                    Ok(_) => self.report.acknowledged(Some(token), refused),
                    Err(error) => answer = Err(error),
                },
                Ok(_) => self.report.acknowledged(Some(token), None),
            }
        }
        // Nobody may be waiting for it any more.
        drop(command.reply.send(answer));
    }

    /// Carries out a request. `writes` go into its transaction, if it has one.
    pub(super) async fn answer(&mut self, request: Request, writes: Vec<Write>) -> Result<Answer, ControlError> {
        let state = self.report.state();
        match request {
            Request::Pause => {
                state.check_next(ConsumerState::Paused)?;
                self.report.enter(ConsumerState::Paused);
                Ok(Answer::Done)
            }
            Request::Resume if state == ConsumerState::Paused => {
                self.report.enter(ConsumerState::Starting);
                Ok(Answer::Done)
            }
            Request::Resume => Err(IllegalTransition { from: state, to: ConsumerState::Starting }.into()),
            Request::Acknowledge => self.acknowledge(writes).await,
            Request::List(key) => Ok(Answer::Listed(self.parking.list(key.as_deref()))),
            Request::Reset => {
                self.look().await?;
                self.move_to(None, true, writes).await
            }
            Request::Move(position) => {
                self.look().await?;
                let head = self.store.engine().read(Read { events: 0, ..Read::new(StreamId::all()) }).await;
                let head = Position::new(head.map_err(RunError::from)?.head);
                if position > head {
                    return Err(ControlError::BeyondHead { position, head });
                }
                let to = checkpoint_at(&self.store, position).await.map_err(RunError::from)?;
                self.move_to(to, false, writes).await
            }
            Request::Retry(key) => {
                self.look().await?;
                self.retry(key.as_deref(), writes).await.map(Answer::Retried)
            }
            Request::Drop { position, who, why } => {
                self.look().await?;
                let event = self.parking.get(position).ok_or(ControlError::NotParked(position))?.clone();
                info!(name = self.name.as_str(), position = position.get(), who, why, "a parked event is dropped");
                let mut portion = Portion::checkpoint(self.checkpoint, self.checkpoint);
                portion.writes = writes;
                portion.writes.extend(event.dropped(&who, &why, self.store.now()));
                self.step(portion).await.map_err(out)?;
                Ok(Answer::Done)
            }
        }
    }

    /// Notes that a wish was seen.
    async fn acknowledge(&mut self, writes: Vec<Write>) -> Result<Answer, ControlError> {
        self.look().await?;
        self.step(Portion { writes, ..Portion::checkpoint(self.checkpoint, self.checkpoint) }).await.map_err(out)?;
        Ok(Answer::Done)
    }

    /// Finds the checkpoint: the consumer may be paused, or what it writes to out of order.
    async fn look(&mut self) -> Result<(), ControlError> {
        self.find_checkpoint().await.map_err(|left| match left {
            Leave::Down(error) | Leave::Final(error) => ControlError::Failed(error),
            Leave::StandBy => ControlError::StandingBy,
            Leave::Stop | Leave::Command | Leave::Again => ControlError::Ended,
        })
    }

    async fn move_to(
        &mut self,
        to: Option<super::Checkpoint>,
        clear: bool,
        writes: Vec<Write>,
    ) -> Result<Answer, ControlError> {
        let end = super::position_of(to.as_ref());
        info!(name = self.name.as_str(), position = end.get(), clear, "the checkpoint of a consumer is moved");
        let mut portion = Portion { clear, ..Portion::checkpoint(self.checkpoint, to) };
        portion.writes = writes;
        // Those behind it will be met again.
        let again = self.parking.list(None).into_iter().filter(|event| clear || event.position > end);
        portion.writes.extend(again.map(|event| event.removed()));
        self.step(portion).await.map_err(out)?;
        (self.seen, self.unwritten, self.failing) = (self.checkpoint, None, None);
        // A reactor keeps its parked events.
        self.look().await?;
        // Before the answer: whoever waits for a position from then on waits for what is read again.
        self.report.moved(end, self.store.head(), self.report.state());
        Ok(Answer::Done)
    }

    /// Tries parked events again, in order; of each key up to the first that fails.
    async fn retry(&mut self, key: Option<&str>, writes: Vec<Write>) -> Result<Retried, ControlError> {
        let mut retried = Retried::default();
        let mut failed = HashSet::new();
        for event in self.parking.list(key) {
            if failed.contains(&event.key) {
                continue;
            }
            match self.retry_one(&event).await {
                Ok(()) => retried.applied += 1,
                Err(NotApplied::Out(error)) => return Err(ControlError::Failed(error)),
                Err(NotApplied::Again(error)) => {
                    retried.failed += 1;
                    self.keep_parked(&event, &error).await?;
                    failed.insert(event.key);
                }
            }
        }
        if !writes.is_empty() {
            self.step(Portion { writes, ..Portion::checkpoint(self.checkpoint, self.checkpoint) })
                .await
                .map_err(out)?;
        }
        Ok(retried)
    }

    /// Applies a parked event and removes its record, in one transaction.
    async fn retry_one(&mut self, parked: &ParkedEvent) -> Result<(), NotApplied> {
        let stored = find_event(&self.store, parked).await.map_err(|error| NotApplied::Out(error.into()))?;
        let stored = stored.ok_or_else(|| {
            let reason = "the event is no longer in the log, or another is at its position".to_owned();
            NotApplied::Again(RunError::LogRewound { name: self.name.clone(), position: parked.position, reason })
        })?;
        let event = Recorded::decode(stored).map_err(|error| NotApplied::Again(error.into()))?;
        let events = Arc::new(Events::one(event, &self.panicked));
        let mut portion = Portion { events, range: 0..1, ..Portion::checkpoint(self.checkpoint, self.checkpoint) };
        portion.writes.push(parked.removed());
        match self.step(portion).await {
            Ok(()) => Ok(()),
            Err(Trouble::Event { error, .. } | Trouble::Behind { culprit: Some((_, error)) }) => {
                Err(NotApplied::Again(error))
            }
            Err(Trouble::Down(error) | Trouble::Final(error) | Trouble::Afterwards(error)) => {
                Err(NotApplied::Out(error))
            }
            Err(Trouble::Later { error, .. }) => Err(NotApplied::Out(error)),
            Err(Trouble::Behind { culprit: None } | Trouble::Fenced(_) | Trouble::Stopped { .. }) => {
                Err(NotApplied::Out(RunError::behind()))
            }
        }
    }

    /// Records that a parked event failed again.
    async fn keep_parked(&mut self, event: &ParkedEvent, error: &RunError) -> Result<(), ControlError> {
        let before = event.failure.as_ref();
        let attempts = before.map_or(0, |failure| failure.attempts).saturating_add(1);
        let failure = self.note_failure(error, Some(event.position), attempts);
        let first = before.map_or(failure.time, |before| before.first);
        let event = ParkedEvent { failure: Some(ParkedFailure::of(&failure, first)), ..event.clone() };
        // A model that has lost more than the transaction must be brought back first.
        self.look().await?;
        let mut portion = Portion::checkpoint(self.checkpoint, self.checkpoint);
        portion.writes.push(Write { at: Position::ZERO, ..event.written() });
        self.step(portion).await.map_err(out)
    }
}

/// The parked event, if it is still in the log.
async fn find_event(store: &Store, parked: &ParkedEvent) -> Result<Option<StoredEvent>, StoreError> {
    let position = parked.position.get();
    let at = Read { after: position.saturating_sub(1), before: Some(position + 1), ..Read::new(StreamId::all()) };
    let found = store.engine().read(at).await?.events.into_iter().next();
    Ok(found.filter(|event| event.checksum == parked.checksum))
}

fn out(trouble: Trouble) -> ControlError {
    ControlError::Failed(match trouble {
        Trouble::Down(error) | Trouble::Final(error) | Trouble::Afterwards(error) | Trouble::Event { error, .. } => {
            error
        }
        Trouble::Behind { culprit: Some((_, error)) } | Trouble::Later { error, .. } => error,
        Trouble::Behind { culprit: None } | Trouble::Fenced(_) | Trouble::Stopped { .. } => RunError::behind(),
    })
}
