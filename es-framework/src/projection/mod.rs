//! Projections: read models folded from `@all`.

mod model;
mod projector;
mod runner;
mod running;
mod state;

pub use model::{Checkpoint, ModelError, ReadModel, Step};
pub use projector::Projector;
pub use runner::{Projection, RunError};
pub use running::{Running, RunningState, Status, WaitError};
pub use state::{StateModel, StateTx};
