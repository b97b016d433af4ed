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
/// A codec is chosen per event type, `#[es(codec = Json)]`, and its id is stored with every event, so codecs can be mixed
/// in one store and changed later: what another of the built-in codecs wrote is still read by that codec.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec",
    note = "the codecs of es-framework are behind features of its own: name one that is enabled, as in `#[es(codec = Json)]` or `#[es(snapshot(every = 100, codec = Json))]`: `Bincode` (feature `bincode`, on by default), `Json` (feature `json`) or your own"
)]
pub trait Codec: 'static {
    /// The id that is stored with every event; never change it.
    const ID: &'static str;

    /// Whether types that have two forms, such as addresses and times, take the one for people: what
    /// [`Serializer::is_human_readable`](serde::Serializer::is_human_readable) of the format answers.
    const HUMAN_READABLE: bool;

    /// Turns a value into bytes.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the value cannot be written in this format.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError>;

    /// Turns bytes into a value; bytes that are left over are an error.
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the bytes are not one such value. Never panics and never takes more memory than a small multiple
    /// of the bytes, whatever they are.
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
        /// What it said.
        source: BoxError,
    },
    /// The bytes are not such a value.
    #[error("{codec} cannot read these bytes")]
    Decode {
        /// The codec.
        codec: &'static str,
        /// What it said.
        source: BoxError,
    },
    /// The value ended before the bytes did.
    #[error("{codec} read the value and {left} bytes were left over")]
    LeftOver {
        /// The codec.
        codec: &'static str,
        /// How many bytes were left.
        left: usize,
    },
    /// The bytes were written by a codec that is not at hand.
    #[error("the bytes were written by codec {codec:?}, which is not at hand; enable its feature or name it")]
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
/// It writes fields in order without their names, so it fits neither `#[serde(flatten)]`, `skip_serializing_if` nor
/// untagged enums; take `Json` where you need those. Feature `bincode`, on by default.
///
/// Reading is bounded by the bytes there are. Values nested deeper than 128 levels are refused, as in JSON, and so are more
/// than 65,536 values that take no bytes, as in a `Vec<()>`.
///
/// Without the feature the type is there and is no codec, so that the compiler says what is missing.
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

/// JSON, for people who want to read payloads. Feature `json`.
///
/// Without the feature the type is there and is no codec, so that the compiler says what is missing.
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
        // `from_slice` refuses what is left over, except white space.
        serde_json::from_slice(bytes).map_err(|error| CodecError::decode(Self::ID, error))
    }
}

/// Decodes bytes by the codec that wrote them: the one the type names, or another of the built-in ones.
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
