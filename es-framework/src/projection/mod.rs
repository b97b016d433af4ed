//! Projections: read models folded from `@all`.

mod builder;
mod error;
mod feed;
mod model;
mod projector;
mod runner;
mod running;
mod state;
mod status;
mod timer;
mod undo;

pub use builder::Projection;
pub use error::{ModelError, RunError, WaitError};
pub use model::{Batch, Checkpoint, ReadModel, Step};
pub use projector::Projector;
pub use running::Running;
pub use state::{StateModel, StateTx};
pub use status::{RunningState, Status};
