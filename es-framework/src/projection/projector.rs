//! What users write.

use super::model::ReadModel;
use crate::domain::{Event, Recorded};
use crate::log::BoxError;

/// Folds typed events into a read model.
///
/// The [`Projection`](super::Projection) that runs it commits a whole batch of events together with the checkpoint, so each event
/// takes effect exactly once, across crashes at any point.
///
/// `project` takes `&self`: what a projector remembers belongs into the model, or a rollback would leave it wrong.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projector",
    note = "write `impl Projector for {Self}` with the events it handles, the read model it writes and a `NAME`"
)]
pub trait Projector: Send + Sync + 'static {
    /// The events it handles. Events of other types are never decoded, and still move the checkpoint.
    type Event: Event;

    /// Where it keeps what it builds.
    type Model: ReadModel;

    /// Why it cannot go on.
    type Error: Into<BoxError>;

    /// The name its checkpoint is kept under; unique in its read model.
    const NAME: &'static str;

    /// Makes the read model ready, for example with `CREATE TABLE IF NOT EXISTS`; called at every start.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from starting.
    fn prepare(&self, tx: &mut <Self::Model as ReadModel>::Tx<'_>) -> Result<(), Self::Error> {
        let _: &mut <Self::Model as ReadModel>::Tx<'_> = tx;
        Ok(())
    }

    /// Changes the read model by one event.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from going on: the projection stops right before this event, with all events before it applied.
    fn project(
        &self,
        event: &Recorded<Self::Event>,
        tx: &mut <Self::Model as ReadModel>::Tx<'_>,
    ) -> Result<(), Self::Error>;
}
