//! The state of an aggregate or a read model as bytes: when it is saved, and when a saved state can be used.

use std::fmt;
use std::num::NonZeroU64;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{Codec, CodecError};
use super::shape::Shape;
use super::value_fingerprint::value_fingerprint;
use crate::log::{Fingerprint, Version};

/// Raised when the layout of the bytes of [`Snapshots::to_saved`] changes.
const LAYOUT: u32 = 2;

/// When the state of an aggregate is saved.
pub enum SnapshotPolicy<A> {
    /// After this many events since the last snapshot.
    Every(NonZeroU64),
    /// When this function returns `true`.
    When(fn(&A, Progress) -> bool),
}

/// How far an aggregate has come since it was last saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The version of the state.
    pub version: Version,
    /// How many events it is ahead of the last known snapshot.
    pub events_since_snapshot: u64,
}

impl Progress {
    /// Creates a `Progress`, for testing a policy.
    pub fn new(version: Version, events_since_snapshot: u64) -> Self {
        Self { version, events_since_snapshot }
    }
}

/// How the state of an aggregate is saved: when, with which codec, and as which version of `apply`.
///
/// A state is saved only if it survives encoding and decoding unchanged, and a saved state is used only if this program
/// sees the same state in it as the program that saved it: see [`Self::to_saved`] and [`Self::from_saved`].
pub struct Snapshots<A> {
    policy: SnapshotPolicy<A>,
    encode: fn(&A) -> Result<Vec<u8>, CodecError>,
    decode: fn(&[u8]) -> Result<A, CodecError>,
    fingerprint: fn(&A) -> Result<Fingerprint, CodecError>,
    equal: Option<fn(&A, &A) -> bool>,
    shape: fn() -> Shape,
    codec: &'static str,
    version: u32,
}

/// A state that could not be turned into bytes, or bytes that cannot be used as a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The codec cannot write the state, or cannot read the bytes.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The codec does not return the state unchanged, so it is not saved: see [`Snapshots::to_saved`].
    #[error("codec {codec} does not return this state unchanged: {difference}")]
    Unfaithful {
        /// The codec.
        codec: &'static str,
        /// What is different.
        difference: &'static str,
        /// Why the bytes could not be read back, if they could not.
        source: Option<CodecError>,
    },
    /// The bytes were saved by a program whose state has other names, kinds or values in the same places.
    #[error("these bytes were the state of another type")]
    OtherState,
}

impl<A> Snapshots<A> {
    /// Saves states according to this policy; raise `version` when `apply` changes.
    pub const fn new<C: Codec>(policy: SnapshotPolicy<A>, version: u32) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        Self {
            policy,
            encode: C::encode::<A>,
            decode: C::decode::<A>,
            fingerprint: |state| {
                value_fingerprint(state, C::HUMAN_READABLE).map_err(|error| CodecError::encode(C::ID, error))
            },
            equal: None,
            shape: Shape::of::<C, A>,
            codec: C::ID,
            version,
        }
    }

    /// Also compares the state with the decoded one by this function, which sees what serde does not, such as a field
    /// with `#[serde(skip)]`.
    ///
    /// `#[derive(Aggregate)]` uses `PartialEq` if the state implements it, else the output of `Debug` if it implements that,
    /// which also decides for a state that does not equal itself. For a [`StateModel`](crate::StateModel), write it by hand:
    /// `Snapshots::new::<Bincode>(policy, 1).compared_by(S::eq)`.
    #[must_use]
    pub const fn compared_by(mut self, equal: fn(&A, &A) -> bool) -> Self {
        self.equal = Some(equal);
        self
    }
}

impl<A> Snapshots<A> {
    /// Whether the state should be saved now.
    pub fn is_due(&self, state: &A, progress: Progress) -> bool {
        match &self.policy {
            SnapshotPolicy::Every(events) => progress.events_since_snapshot >= events.get(),
            SnapshotPolicy::When(when) => when(state, progress),
        }
    }

    /// Encodes the state with the codec; what gets saved is [`Self::to_saved`].
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the codec cannot write it.
    pub fn encode(&self, state: &A) -> Result<Vec<u8>, CodecError> {
        (self.encode)(state)
    }

    /// Decodes the state with the codec; saved bytes are read by [`Self::from_saved`].
    ///
    /// # Errors
    ///
    /// [`CodecError`] if the bytes are not a state of this type.
    pub fn decode(&self, bytes: &[u8]) -> Result<A, CodecError> {
        (self.decode)(bytes)
    }

    /// Turns the state into the bytes to save, provided that they decode to the same state.
    ///
    /// 1. The codec encodes the state and decodes the result.
    /// 2. Both states are fingerprinted as serde sees them: names of fields and variants, kinds, nesting and every
    ///    value. The order of a sequence's elements does not count, because those of a `HashSet` have none.
    /// 3. Both are compared by the function given to [`Self::compared_by`], if there is one and the state equals
    ///    itself.
    ///
    /// The result is the codec's bytes, followed by the 16 bytes of the fingerprint.
    ///
    /// # Errors
    ///
    /// [`StateError::Unfaithful`] if the states differ: JSON loses `Some(None)`, an infinite float or the variant of an
    /// untagged enum, and every codec loses what serde skips. [`StateError::Codec`] if the codec cannot write the
    /// state.
    pub fn to_saved(&self, state: &A) -> Result<Vec<u8>, StateError> {
        let unfaithful = |difference, source| StateError::Unfaithful { codec: self.codec, difference, source };
        let mut bytes = (self.encode)(state)?;
        let again = (self.decode)(&bytes).map_err(|source| unfaithful("it cannot be read again", Some(source)))?;
        let fingerprint = (self.fingerprint)(state)?;
        if (self.fingerprint)(&again)? != fingerprint {
            return Err(unfaithful("it reads other values", None));
        }
        // A state with a NaN in it does not equal itself either.
        if self.equal.is_some_and(|equal| !equal(state, &again) && equal(state, state)) {
            return Err(unfaithful("the states are not equal; does serde skip a field?", None));
        }
        bytes.extend(fingerprint.to_bytes());
        Ok(bytes)
    }

    /// Turns bytes from [`Self::to_saved`] back into the state, provided that this program sees the same state in them.
    ///
    /// The decoded state is fingerprinted as by [`Self::to_saved`]. So the bytes of a codec that stores no names are
    /// not mistaken for a state whose fields were renamed or reordered, however deep they are, even where the [`Shape`]
    /// cannot see them.
    ///
    /// # Errors
    ///
    /// [`StateError::OtherState`] if they hold another state, [`StateError::Codec`] if the bytes cannot be read.
    pub fn from_saved(&self, bytes: &[u8]) -> Result<A, StateError> {
        let Some((bytes, fingerprint)) = bytes.split_last_chunk() else {
            return Err(CodecError::decode(self.codec, "the bytes end before the state's fingerprint").into());
        };
        let state = (self.decode)(bytes)?;
        if (self.fingerprint)(&state)? != Fingerprint::from_bytes(*fingerprint) {
            return Err(StateError::OtherState);
        }
        Ok(state)
    }

    /// What a saved state must match to be considered: the shape of the state as serde sees it, nested types included,
    /// the codec, and the version that is raised when `apply` changes.
    pub fn fingerprint(&self) -> Fingerprint {
        let shape = (self.shape)();
        Fingerprint::of(format!("{LAYOUT}\n{}\n{}\n{}", self.version, self.codec, shape.as_str()).as_bytes())
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("policy", &self.policy)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for SnapshotPolicy<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(events) => write!(f, "Every({events})"),
            Self::When(_) => f.write_str("When(…)"),
        }
    }
}
