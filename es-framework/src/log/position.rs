//! The place of an event: its version in its stream, its position in `@all`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! place {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Before the first event.
            pub const ZERO: Self = Self(0);
            /// The highest possible one, `i64::MAX`.
            pub const MAX: Self = Self(i64::MAX.cast_unsigned());

            /// Creates one from a number; anything above [`Self::MAX`] becomes [`Self::MAX`], where there is never an
            /// event.
            pub const fn new(number: u64) -> Self {
                if number > Self::MAX.0 { Self::MAX } else { Self(number) }
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number as stored in SQL databases; never negative.
            pub const fn as_i64(self) -> i64 {
                self.0.cast_signed()
            }

            /// The next one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self::new(self.0 + 1)
            }

            /// The one `count` places further on.
            #[must_use]
            pub const fn plus(self, count: u64) -> Self {
                Self::new(self.0.saturating_add(count))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u32> for $name {
            fn from(number: u32) -> Self {
                Self(number.into())
            }
        }

        /// Serializes as its number.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer).map(Self::new)
            }
        }

        impl PartialEq<u64> for $name {
            fn eq(&self, other: &u64) -> bool {
                self.0 == *other
            }
        }
    };
}

place! {
    /// An event's place in its stream: 1, 2, 3 …; [`Version::ZERO`] is the version of an empty stream.
    Version
}

place! {
    /// An event's place in `@all`: 1, 2, 3 … in the order of commits; [`Position::ZERO`] is before the first.
    ///
    /// Compare positions, but do not count with them: deleting events leaves gaps.
    Position
}

/// A version or a position, for code that works on a stream and on `@all` alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A place in one stream.
    Version(Version),
    /// A place in `@all`.
    Position(Position),
}

impl From<Version> for Place {
    fn from(version: Version) -> Self {
        Self::Version(version)
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version}"),
            Self::Position(position) => write!(f, "position {position}"),
        }
    }
}
