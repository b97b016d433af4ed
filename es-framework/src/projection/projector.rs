//! The trait that users implement.

use super::model::{Cleared, ReadModel};
use crate::domain::{Event, Recorded};
use crate::log::BoxError;

/// Folds typed events into a read model.
///
/// The [`Projection`](super::Projection) that runs it commits each batch of events together with the checkpoint, so
/// each event takes effect exactly once, across crashes at any point.
///
/// `project` takes `&self`: a projector must keep its state in the model, because a rollback would not undo any other.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projector",
    note = "write `impl Projector for {Self}` with the events it handles, the read model it writes and a `NAME`"
)]
pub trait Projector: Send + Sync + 'static {
    /// The events it handles. Events of other types are never decoded, but still move the checkpoint.
    type Event: Event;

    /// Where it keeps its results.
    type Model: ReadModel;

    /// Why it cannot continue.
    type Error: Into<BoxError>;

    /// The name of its checkpoint; unique in its read model.
    const NAME: &'static str;

    /// The version of its code, 1 by default. Raise it if the same events now lead to other results: a read model that
    /// another version has built is noticed at the start, and
    /// [`Projection::on_change`](super::Projection::on_change) says what happens to it. A change of its tables is noticed
    /// without that.
    const VERSION: u32 = 1;

    /// Prepares the read model, for example with `CREATE TABLE IF NOT EXISTS`; called at every start.
    ///
    /// # Errors
    ///
    /// Any error that prevents it from starting.
    fn prepare(&self, tx: &mut <Self::Model as ReadModel>::Tx<'_>) -> Result<(), Self::Error> {
        let _: &mut <Self::Model as ReadModel>::Tx<'_> = tx;
        Ok(())
    }

    /// Empties the read model, for example with `DELETE FROM` for each table, before it is folded again from the beginning
    /// by [`Running::reset`](crate::Running::reset). A [`StateModel`](crate::StateModel) is emptied without it.
    ///
    /// By default nothing is done, and a reset of a read model that cannot empty itself is refused.
    ///
    /// # Errors
    ///
    /// Any error that prevents it; nothing has changed then.
    fn clear(&self, tx: &mut <Self::Model as ReadModel>::Tx<'_>) -> Result<Cleared, Self::Error> {
        let _: &mut <Self::Model as ReadModel>::Tx<'_> = tx;
        Ok(Cleared::Nothing)
    }

    /// Applies one event to the read model. Where there are many, [`Self::project_batch`] can be faster.
    ///
    /// # Errors
    ///
    /// Any error that prevents it from continuing. What was written for the event is rolled back, and the
    /// [`Policy`](crate::Policy) says what comes next: it is tried again a few times, and then the projection stops right
    /// before it, with all earlier events applied, or parks it.
    fn project(
        &self,
        event: &Recorded<Self::Event>,
        tx: &mut <Self::Model as ReadModel>::Tx<'_>,
    ) -> Result<(), Self::Error>;

    /// Applies several events at once: what [`Self::project`] would do with one after the other, in fewer statements. For
    /// example, the rows that they change are worked out in memory, and written once at the end.
    ///
    /// The runner calls it in each transaction with the events of the batch, in order and at least one; parked events are
    /// left out. By default nothing is done, and each event is passed to [`Self::project`]. An implementation may answer
    /// [`Projected::Nothing`] as well, for example if there are few events. An [inline](super::Projection::inline)
    /// projection passes each event to [`Self::project`].
    ///
    /// # Errors
    ///
    /// Any error. It need not say which event is to blame: the transaction is rolled back, and the events are passed to
    /// [`Self::project`] one by one in another. If it refuses one, that event has failed; if it refuses none, the batch is
    /// committed that way. The same happens after a panic.
    fn project_batch(
        &self,
        events: &[&Recorded<Self::Event>],
        tx: &mut <Self::Model as ReadModel>::Tx<'_>,
    ) -> Result<Projected, Self::Error> {
        let (_, _): (&[&Recorded<Self::Event>], &mut <Self::Model as ReadModel>::Tx<'_>) = (events, tx);
        Ok(Projected::Nothing)
    }
}

/// What [`Projector::project_batch`] has done with the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projected {
    /// All of them are applied.
    All,
    /// Nothing was written: they are to be passed to [`Projector::project`] one by one.
    Nothing,
}
