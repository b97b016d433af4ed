//! Passes events to the projector: as a batch, or one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::model::ReadModel;
use super::projector::{Projected, Projector};
use super::work::Tx;
use crate::consumer::ModelError;
use crate::domain::Recorded;
use crate::panics;

/// How the events of a transaction are passed to the projector.
#[derive(Debug, Clone)]
pub(super) enum How {
    /// By [`Projector::project_batch`]. Set unless it does nothing: if the transaction fails, no event is to blame yet.
    Batch(Arc<AtomicBool>),
    /// By [`Projector::project`].
    OneByOne,
}

impl How {
    pub(super) fn batch() -> Self {
        Self::Batch(Arc::default())
    }

    /// Whether a transaction that was rolled back with this error is to be tried again one by one.
    pub(super) fn is_to_blame_for(&self, error: &ModelError) -> bool {
        // Anything else is the model's failure, and would be again. A position is that of the first event only.
        let is_projectors = matches!(
            error,
            ModelError::CommitRefused { .. } | ModelError::Panicked { .. } | ModelError::Refused { .. }
        );
        matches!(self, Self::Batch(batched) if is_projectors && batched.load(Ordering::Acquire))
    }
}

/// Applies the events that `wanted` yields.
pub(super) fn apply<'e, P: Projector>(
    how: &How,
    projector: &P,
    wanted: impl Iterator<Item = &'e Recorded<P::Event>> + Clone,
    tx: &mut Tx<'_, P>,
) -> Result<(), ModelError> {
    if let How::Batch(batched) = how {
        batched.store(true, Ordering::Release);
        if together(projector, wanted.clone(), tx)? == Projected::All {
            return Ok(());
        }
        batched.store(false, Ordering::Release);
    }
    one_by_one(projector, wanted, tx)
}

fn together<'e, P: Projector>(
    projector: &P,
    wanted: impl Iterator<Item = &'e Recorded<P::Event>>,
    tx: &mut Tx<'_, P>,
) -> Result<Projected, ModelError> {
    let events: Vec<_> = wanted.collect();
    let Some(first) = events.first() else { return Ok(Projected::All) };
    P::Model::at(tx, first.position());
    let projected = panics::catch(|| projector.project_batch(&events, tx).map_err(ModelError::commit_refused));
    projected.map_err(|message| ModelError::Panicked { position: None, message })?
}

fn one_by_one<'e, P: Projector>(
    projector: &P,
    wanted: impl Iterator<Item = &'e Recorded<P::Event>>,
    tx: &mut Tx<'_, P>,
) -> Result<(), ModelError> {
    let mut at = None;
    let projected = panics::catch(|| {
        for event in wanted {
            let position = event.position();
            at = Some(position);
            P::Model::at(tx, position);
            projector.project(event, tx).map_err(|error| ModelError::Refused { position, source: error.into() })?;
        }
        Ok(())
    });
    projected.map_err(|message| ModelError::Panicked { position: at, message })?
}
