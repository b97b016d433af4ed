//! What PostgreSQL adds to the contract, and the contract itself on it.
//!
//! The tests start a server of their own from the installed binaries and remove it at the end; or they use the one that
//! `ES_POSTGRES_URL` names, each test in schemas of its own. Without either they print one line and do nothing, unless
//! `ES_POSTGRES_REQUIRED=1` makes that a failure.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails is a test that fails, as inside a test"
)]

/// A fixture, or the end of the test that asked for it.
macro_rules! or_nothing {
    ($fixture:expr) => {
        match $fixture {
            Some(fixture) => fixture,
            None => return,
        }
    };
}

mod conformance;
mod consumers;
mod damage;
mod faults;
mod opening;
mod plans;
mod proxy;
mod roles;
mod rooms;
mod server;
mod support;
