//! How values become bytes.

#[cfg(feature = "bincode")]
mod bounded_decode;

#[cfg(feature = "bincode")]
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::log::BoxError;

/// Turns values into bytes and back.
///
/// A codec is chosen per event type, `#[es(codec = Json)]`, and its id is stored with every event, so codecs can be
/// mixed in one store and changed later: events written by another built-in codec are still decoded by that one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec",
    note = "the codecs of es-framework are behind features of its own: name one that is enabled, as in `#[es(codec = Json)]` or `#[es(snapshot(every = 100, codec = Json))]`: `Bincode` (feature `bincode`, on by default), `Json` (feature `json`) or your own"
)]
pub trait Codec: 'static {
    /// The id that is stored with every event; never change it.
    const ID: &'static str;

    /// Whether types with two representations, such as addresses and times, use the human-readable one: what the
    /// format's [`Serializer::is_human_readable`](serde::Serializer::is_human_readable) returns.
    const HUMAN_READABLE: bool;

    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the value cannot be written in this format.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError>;

    /// Decodes a value; trailing bytes are an error.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the bytes are not exactly one value of this type. Whatever the bytes, this never panics and
    /// never takes more memory than a small multiple of their length.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A value that could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value cannot be written in this format.
    #[error("{codec} cannot write this value")]
    Encode {
        /// The codec.
        codec: &'static str,
        /// Its error.
        source: BoxError,
    },
    /// The bytes are not a value of this type.
    #[error("{codec} cannot read these bytes")]
    Decode {
        /// The codec.
        codec: &'static str,
        /// Its error.
        source: BoxError,
    },
    /// The value ended before the bytes did.
    #[error("{codec} read the value and {left} bytes were left over")]
    LeftOver {
        /// The codec.
        codec: &'static str,
        /// The number of trailing bytes.
        left: usize,
    },
    /// The bytes were written by a codec that is not available.
    #[error("the bytes were written by codec {codec:?}, which is not available; enable its feature or name it")]
    Unknown {
        /// The id of the codec.
        codec: String,
    },
}

impl CodecError {
    /// The error of a codec that cannot write a value.
    pub fn encode(codec: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Encode { codec, source: source.into() }
    }

    /// The error of a codec that cannot read bytes.
    pub fn decode(codec: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Decode { codec, source: source.into() }
    }
}

/// The compact default: bincode 2 with its standard configuration (little-endian, variable-length integers).
///
/// It writes fields in order and without their names, so it does not support `#[serde(flatten)]`, `skip_serializing_if`
/// or untagged enums; use `Json` where you need those. Feature `bincode`, on by default.
///
/// Decoding is bounded by the size of the input. Values nested deeper than 128 levels are refused, as in JSON, and so
/// are more than 65,536 values that take no bytes, as in a `Vec<()>`.
///
/// Without the feature the type exists but is not a codec, so that the compiler can name the missing feature.
#[cfg_attr(not(feature = "bincode"), doc(hidden))]
#[derive(Debug, Clone, Copy)]
pub struct Bincode;

#[cfg(feature = "bincode")]
impl Codec for Bincode {
    const ID: &'static str = "bincode";
    const HUMAN_READABLE: bool = false;

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        bincode::serde::encode_to_vec(value, bincode::config::standard())
            .map_err(|error| CodecError::encode(Self::ID, error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        let bounds = bounded_decode::Bounds::of(bytes.len());
        let seed = bounded_decode::Guarded::new(PhantomData::<T>, &bounds);
        let (value, used) = bincode::serde::seed_decode_from_slice(seed, bytes, bincode::config::standard())
            .map_err(|error| CodecError::decode(Self::ID, error))?;
        match bytes.len() - used {
            0 => Ok(value),
            left => Err(CodecError::LeftOver { codec: Self::ID, left }),
        }
    }
}

/// JSON, for payloads that people can read. Feature `json`.
///
/// Without the feature the type exists but is not a codec, so that the compiler can name the missing feature.
#[cfg_attr(not(feature = "json"), doc(hidden))]
#[derive(Debug, Clone, Copy)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    const ID: &'static str = "json";
    const HUMAN_READABLE: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(|error| CodecError::encode(Self::ID, error))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        // `from_slice` refuses trailing bytes, except white space.
        serde_json::from_slice(bytes).map_err(|error| CodecError::decode(Self::ID, error))
    }
}

/// Decodes bytes with the codec that wrote them: the type's own, or another built-in one.
pub(crate) fn decode_stored<C: Codec, T: DeserializeOwned>(codec: &str, bytes: &[u8]) -> Result<T, CodecError> {
    if codec == C::ID {
        return C::decode(bytes);
    }
    match codec {
        #[cfg(feature = "bincode")]
        Bincode::ID => Bincode::decode(bytes),
        #[cfg(feature = "json")]
        Json::ID => Json::decode(bytes),
        unknown => Err(CodecError::Unknown { codec: unknown.to_owned() }),
    }
}
