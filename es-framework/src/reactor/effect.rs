//! What a reactor is told about one attempt of an effect.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::log::{Position, ProjectionName, StoreId};

/// Names an effect: what one reactor does about one event of one store.
///
/// The text is `<name>-<store>-<position>`: the reactor's name, the store's id in 32 hexadecimal digits, and the event's
/// position in decimal, for example `letters-67e5504410b1426f9247bb680e5fe0c8-42`. It is the same at every attempt, after
/// a crash, in another process, and when the reactor starts again from the beginning. Pass it to whatever the effect goes
/// to, as an idempotency key, a message id or a file name, so that the receiver can recognize what it already has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey(Arc<str>);

impl EffectKey {
    /// The key of what the reactor of this name does about the event at this position.
    pub fn new(name: &ProjectionName, store: StoreId, position: Position) -> Self {
        Self(format!("{name}-{store}-{position}").into())
    }

    /// The key of one of several effects of the same event: `<key>-<part>`.
    #[must_use]
    pub fn part(&self, part: impl fmt::Display) -> Self {
        Self(format!("{self}-{part}").into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for EffectKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// One attempt of an effect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Effect {
    /// Its key, the same at every attempt.
    pub key: EffectKey,
    /// The number of this attempt: 1, 2, 3 …, counted since the reactor was started. The first attempt after a restart may
    /// repeat an effect that has happened.
    pub attempt: NonZeroU32,
}

impl Effect {
    /// The first attempt of an effect, for testing a reactor without a store.
    pub fn first(key: EffectKey) -> Self {
        Self { key, attempt: NonZeroU32::MIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receivers have stored keys of this form.
    #[test]
    fn the_form_of_a_key_never_changes() {
        let store = StoreId::from_bytes(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8_u128.to_be_bytes());
        let key = EffectKey::new(&ProjectionName::new("letters").unwrap(), store, Position::new(42));
        assert_eq!(key.as_str(), "letters-67e5504410b1426f9247bb680e5fe0c8-42");
        assert_eq!(key.part("mail").as_str(), "letters-67e5504410b1426f9247bb680e5fe0c8-42-mail");
    }
}
