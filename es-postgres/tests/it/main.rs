//! What PostgreSQL adds to the contract, and the contract itself on it.
//!
//! The tests start a server of their own from the installed binaries and remove it at the end; or they use the one that
//! `ES_POSTGRES_URL` names, each test in schemas of its own. Without either they print one line and do nothing, unless
//! `ES_POSTGRES_REQUIRED=1` makes that a failure.

mod conformance;
mod damage;
mod faults;
mod opening;
mod plans;
mod proxy;
mod roles;
mod server;
mod support;
