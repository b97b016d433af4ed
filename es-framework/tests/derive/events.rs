//! A small event that needs no feature: its codec is written here.

use es_framework::{Codec, CodecError, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// JSON by another name, for tests that run without features.
#[derive(Debug)]
pub(crate) struct Text;

impl Codec for Text {
    const ID: &'static str = "text";
    const HUMAN_READABLE: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(|error| CodecError::encode(Self::ID, error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| CodecError::decode(Self::ID, error))
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(codec = Text)]
pub(crate) enum Counted {
    #[es(name = "counted.up")]
    Up,
    #[es(name = "counted.by")]
    By { amount: i64 },
}
