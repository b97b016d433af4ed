//! Event sourcing for Rust.

mod domain;
mod store;

pub use domain::*;
pub use store::*;

#[doc(hidden)]
pub mod __private {
    pub use crate::domain::private::*;
}
