//! For the tests of programs that use this crate; with the feature `testing`.
//!
//! | to … | use |
//! |---|---|
//! | let time pass without waiting | [`ManualClock`] |

mod clock;

pub use clock::ManualClock;
