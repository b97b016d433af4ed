//! Reactors: code with effects outside the store.

mod api;
mod effect;
mod in_flight;
mod reaction;
mod records;
mod work;

pub use api::Reactor;
pub use effect::{Effect, EffectKey};
pub use reaction::Reaction;
pub(crate) use work::{Reacting, Reactions, Refusal};
