//! Projections: read models folded from `@all`.

mod builder;
mod model;
mod projector;
mod record_map;
mod state;
mod undo;
mod work;

pub use builder::Projection;
pub use model::{Batch, Cleared, ReadModel};
pub use projector::Projector;
pub use state::{StateModel, StateTx};
