//! What a type looks like to serde.

use std::fmt;

use serde::de::DeserializeOwned;

use super::codec::Codec;

/// What a type looks like to serde, nested types included, as a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape(String);

impl Shape {
    /// The shape of a type as this codec stores it.
    pub fn of<C: Codec, T: DeserializeOwned>() -> Self {
        Self(std::any::type_name::<T>().to_owned())
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
