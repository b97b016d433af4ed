//! Projections: read models folded from `@all`.

mod apply;
mod buckets;
mod builder;
mod generation;
mod inline;
mod inline_state;
mod model;
mod projector;
mod rebuild;
mod rebuilds;
mod record_map;
mod state;
mod undo;
mod work;

pub use builder::Projection;
pub use generation::OnChange;
pub use inline::{Inline, InlineModel};
pub use model::{Batch, Cleared, ReadModel};
pub use projector::{Projected, Projector};
pub use rebuilds::Rebuilds;
pub use state::{StateModel, StateTx};
