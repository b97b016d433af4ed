//! A consumer by its name, from wherever its store is open.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::WaitError;
use super::lease::cell_key;
use super::sealed;
use super::status::ConsumerState;
use super::stored_status::StoredStatus;
use super::timer::Timer;
use super::wish::{Act, Wish};
use crate::log::{CellError, CellKey, InvalidName, Position, ProjectionName, Store, StoreError, StoreId};

/// How often a wait reads the status.
const LOOKS: Duration = Duration::from_millis(20);

/// A consumer by its name: its status and wishes for it, from every process that has the store open, whether the consumer
/// runs or not. See [`Store::consumer`].
#[derive(Clone)]
pub struct ConsumerRef {
    store: Store,
    name: Result<ProjectionName, InvalidName>,
}

impl Store {
    /// A consumer of this store by its name, which runs here, in another process, or not at all.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// assert!(store.consumer("balances").status().await?.is_none(), "it has never run");
    /// # Ok(()) }
    /// ```
    pub fn consumer(&self, name: impl Into<String>) -> ConsumerRef {
        ConsumerRef { store: self.clone(), name: ProjectionName::new(name.into()) }
    }
}

impl ConsumerRef {
    /// The status as its runner wrote it last; [`None`] if it has never run.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read, [`StoreError::Name`] if the consumer's name is not valid, and
    /// [`StoreError::Corrupt`] if the status is damaged or of a newer release.
    pub async fn status(&self) -> Result<Option<StoredStatus>, StoreError> {
        let Some(cell) = self.store.cell(&self.key("status")?).await? else { return Ok(None) };
        let status = StoredStatus::decode(&cell.value);
        status.map(Some).ok_or_else(|| {
            let reason = format!("the cell {} is damaged, or of a newer release", cell.key);
            StoreError::Corrupt { position: None, reason }
        })
    }

    /// Waits until the consumer has reached a position, as its stored status says. A consumer that was idle says so at once,
    /// a busy one once a second; the status is read every 20 ms. In the process where it runs,
    /// [`Running::reached`](crate::Running::reached) knows sooner.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] if it has not reached it after `timeout`, in real time; [`WaitError::Store`] if the status
    /// cannot be read. A consumer that has stopped or failed may be started again, so the wait goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn reached(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let end = Instant::now().checked_add(timeout);
        let timer = Timer::shared();
        loop {
            let status = self.status().await.map_err(|error| WaitError::Store(Arc::new(error)))?;
            let reached = status.map_or(Position::ZERO, |status| status.position);
            if reached >= position {
                return Ok(());
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                let name = self.name.clone().map_err(|error| WaitError::Store(Arc::new(error.into())))?;
                return Err(WaitError::TimedOut { name, wanted: position, reached });
            }
            let next = Instant::now() + LOOKS;
            timer.at(Some(end.map_or(next, |end| end.min(next)))).await;
        }
    }

    /// Wants the consumer to pause, until it is [resumed](Self::resume). It stays paused across restarts. A runner looks for
    /// wishes every two seconds.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the wish cannot be written.
    ///
    /// # Cancel safety
    ///
    /// As for [`Store::set_cell`]; the same is true of all wishes.
    pub async fn pause(&self) -> Result<Wished, StoreError> {
        self.wish(Some(true), None).await
    }

    /// Wants the consumer to go on.
    ///
    /// # Errors
    ///
    /// As for [`Self::pause`].
    pub async fn resume(&self) -> Result<Wished, StoreError> {
        self.wish(Some(false), None).await
    }

    /// Wants what [`Running::reset`](crate::Running::reset) does. It happens once: what the wish did and that it was done
    /// are written in one transaction. A wish that was not carried out yet is replaced.
    ///
    /// # Errors
    ///
    /// As for [`Self::pause`].
    pub async fn reset(&self) -> Result<Wished, StoreError> {
        self.wish(None, Some(Act::Reset)).await
    }

    /// Wants what [`Running::set_position`](crate::Running::set_position) does, once, as for [`Self::reset`].
    ///
    /// # Errors
    ///
    /// As for [`Self::pause`].
    pub async fn set_position(&self, position: Position) -> Result<Wished, StoreError> {
        self.wish(None, Some(Act::SetPosition(position.get()))).await
    }

    /// Wants what [`Running::retry_parked`](crate::Running::retry_parked) does, once, as for [`Self::reset`].
    ///
    /// # Errors
    ///
    /// As for [`Self::pause`].
    pub async fn retry_parked(&self, key: Option<&str>) -> Result<Wished, StoreError> {
        self.wish(None, Some(Act::RetryParked { key: key.map(str::to_owned) })).await
    }

    /// Wants what [`Running::drop_parked`](crate::Running::drop_parked) does, once, as for [`Self::reset`].
    ///
    /// # Errors
    ///
    /// As for [`Self::pause`].
    pub async fn drop_parked(
        &self,
        position: Position,
        who: impl Into<String>,
        why: impl Into<String>,
    ) -> Result<Wished, StoreError> {
        let act = Act::DropParked { position: position.get(), who: who.into(), why: why.into() };
        self.wish(None, Some(act)).await
    }

    async fn wish(&self, paused: Option<bool>, act: Option<Act>) -> Result<Wished, StoreError> {
        let key = self.key("want")?;
        let token = StoreId::random().to_string();
        loop {
            let cell = self.store.cell(&key).await?;
            let before = cell.as_ref().and_then(|cell| sealed::open::<Wish>(&cell.value));
            let was_paused = before.as_ref().is_some_and(|before| before.paused);
            // An act that was wished for before stays, until it is carried out or replaced.
            let pending = before.filter(|_| act.is_none()).and_then(|before| before.act.map(|act| (before.token, act)));
            let paused = paused.unwrap_or(was_paused);
            let wish = match (&act, pending) {
                (None, Some((before, act))) if self.is_pending(&before).await? => {
                    Wish { token: before, paused, act: Some(act) }
                }
                _ => Wish { token: token.clone(), paused, act: act.clone() },
            };
            let revision = cell.map_or(0, |cell| cell.revision);
            match self.store.set_cell(&key, revision, Some(sealed::seal(&wish))).await {
                Ok(_) => return Ok(Wished { consumer: self.clone(), token: wish.token, paused }),
                Err(CellError::Changed { .. }) => {}
                Err(CellError::Store(error)) => return Err(error),
            }
        }
    }

    async fn is_pending(&self, token: &str) -> Result<bool, StoreError> {
        let acknowledged = self.status().await?.and_then(|status| status.acknowledged);
        Ok(acknowledged.is_none_or(|(acknowledged, _)| acknowledged != token))
    }

    fn key(&self, of: &str) -> Result<CellKey, StoreError> {
        Ok(cell_key(self.name.as_ref().map_err(Clone::clone)?, of)?)
    }
}

impl fmt::Debug for ConsumerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerRef").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A wish that is in the store.
#[derive(Debug, Clone)]
#[must_use = "a wish is carried out some time later: wait with `carried_out`, or drop it"]
pub struct Wished {
    consumer: ConsumerRef,
    token: String,
    paused: bool,
}

impl Wished {
    /// Its name, by which the runner acknowledges it in its [status](StoredStatus::acknowledged).
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits until the runner has carried it out.
    ///
    /// # Errors
    ///
    /// [`WishError::Refused`] with the reason, [`WishError::TimedOut`] if no runner has acknowledged it after `timeout`, for
    /// example because none runs; [`WishError::Store`] if the status cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect on the wish.
    pub async fn carried_out(&self, timeout: Duration) -> Result<(), WishError> {
        let end = Instant::now().checked_add(timeout);
        loop {
            if let Some(status) = self.consumer.status().await? {
                match status.acknowledged {
                    Some((token, Some(reason))) if token == self.token => return Err(WishError::Refused { reason }),
                    // It is paused when its state says so, and not before.
                    Some((token, None))
                        if token == self.token
                            && (self.paused == (status.state == ConsumerState::Paused) || status.state.is_over()) =>
                    {
                        return Ok(());
                    }
                    _ => {}
                }
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                return Err(WishError::TimedOut);
            }
            let next = Instant::now() + LOOKS;
            Timer::shared().at(Some(end.map_or(next, |end| end.min(next)))).await;
        }
    }
}

/// Why a wish was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// The runner refused it; nothing has changed.
    #[error("the consumer refused the wish: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// No runner has acknowledged it in time. It stays in the store, and is carried out when one does.
    #[error("no runner of the consumer has acknowledged the wish in time")]
    TimedOut,
    /// The status cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
