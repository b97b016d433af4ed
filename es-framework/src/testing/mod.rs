//! For the tests of programs that use this crate; with the feature `testing`.
//!
//! | to … | use |
//! |---|---|
//! | let time pass without waiting | [`ManualClock`] |
//! | see what happens when the store or a read model fails | [`FaultyEngine`], [`FaultyModel`], [`FaultPlan`] |
//! | check a projector | [`projector_laws!`](crate::projector_laws), [`ProjectorLaws`] |
//! | wait, but not for ever | [`caught_up`], [`eventually`], [`bounded`] |

mod bounded;
mod clock;
mod engine;
mod faults;
mod laws;
mod model;

pub use bounded::{NotCaughtUp, NotInTime, bounded, caught_up, eventually};
pub use clock::ManualClock;
pub use engine::FaultyEngine;
pub use faults::{Call, Fault, FaultPlan, Faults, InjectedFault, InvalidPlan};
pub use laws::{Content, ProjectorLaws};
pub use model::{FaultyModel, OnFaulty};
