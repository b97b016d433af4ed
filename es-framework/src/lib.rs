//! Event sourcing for Rust.

mod domain;
mod projection;
mod store;

pub use domain::*;
pub use projection::*;
pub use store::*;

#[doc(hidden)]
pub mod __private {
    pub use crate::domain::private::*;
}
