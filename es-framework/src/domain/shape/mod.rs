//! What a type looks like to serde.

mod access;
mod parse;
mod questions;
mod render;
mod samples;
mod slots;
mod stored;
#[cfg(test)]
mod stored_tests;
#[cfg(test)]
mod tests;
mod to_json;
mod trace;
mod tracer;

pub use parse::InvalidShape;
pub use stored::StoredShape;
pub use to_json::{PayloadError, PayloadJson, payload_to_json};

use std::fmt;

use serde::de::DeserializeOwned;

use super::codec::Codec;

/// What a type looks like to serde, nested types included, as a short text.
///
/// The shape is determined by letting serde deserialize the type from made-up values and recording what it requests. It
/// is stored with every event type, so that payloads stay readable without the Rust types
/// ([`StoredShape`](crate::inspect::StoredShape)), and it is part of the fingerprint of snapshots.
///
/// | text | what serde requests |
/// |---|---|
/// | `bool` `i8`…`i128` `u8`…`u128` `f32` `f64` `char` `str` `bytes` | a value of that type |
/// | `()` | nothing: a unit or a unit struct |
/// | `?T` | an option |
/// | `[T]` | a sequence |
/// | `[K:V]` | a map |
/// | `(T)` | a newtype struct |
/// | `(A,B)`, `(T,)`, `(T;32)` | a tuple, a tuple struct or an array; `T;n` means `n` times the same in a row, if that is more than three |
/// | `{a:A,b:B}` | a struct with these fields, in this order |
/// | `enum{A,B(T),C(T,U),D{x:X}}` | an enum with these variants, in this order |
/// | `enum*{A,B}` | an enum with fewer variants than names: some are aliases, and serde does not tell which |
/// | `^2` | in recursive types, the type two levels further out: `?`, `[]`, `()`, `{}` and `enum{}` are levels |
/// | `any` | anything: untagged, internally tagged and flattened types, `serde_json::Value`, and values that depend on other fields, such as the content of adjacently tagged types |
/// | `opaque` | cannot be determined: it follows, in a tuple, a type that refuses every made-up value, or there are over 16,384 parts |
///
/// Names of fields and variants count, and so does their order, because codecs store one or the other. Names of types
/// do not: renaming a struct or an enum leaves the shape as it is. A name that is not a plain identifier is quoted.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use es_framework::{Json, Shape};
///
/// #[derive(serde::Deserialize)]
/// struct Account {
///     owner: Option<String>,
///     cents: u64,
/// }
///
/// assert_eq!(Shape::of::<Json, Account>().as_str(), "{owner:?str,cents:u64}");
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Shape(String);

impl Shape {
    /// The shape of a type as this codec stores it; some types look different in human-readable codecs.
    ///
    /// Never fails and always terminates; what it cannot determine is `opaque`.
    pub fn of<C: Codec, T: DeserializeOwned>() -> Self {
        Self(render::render(&trace::trace::<T>(C::HUMAN_READABLE)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
