//! For the tests of programs that use this crate; with the feature `testing`.
//!
//! | to … | use |
//! |---|---|
//! | let time pass without waiting | [`ManualClock`] |
//! | see what happens when the store fails | [`FaultyEngine`], [`FaultPlan`] |

mod clock;
mod engine;
mod faults;

pub use clock::ManualClock;
pub use engine::FaultyEngine;
pub use faults::{Call, Fault, FaultPlan, Faults, InjectedFault, InvalidPlan};
