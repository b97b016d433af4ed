//! The enum of an aggregate's commands as serde sees it: one command under its stored name.
#![expect(clippy::missing_errors_doc, clippy::missing_panics_doc, reason = "called by generated code only")]

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeTuple, Serializer};

use super::command::Command;

/// An enum with a variant for each of an aggregate's commands.
pub trait Commands: Command + Serialize + Sized {
    /// The stored names of the commands.
    const NAMES: &'static [&'static str];

    /// Reads the command with this name.
    fn read<'de, R: ReadCommand<'de>>(name: &str, reader: R) -> Result<Self, R::Error>;
}

/// Reads the content after a name.
pub trait ReadCommand<'de> {
    /// The format's error.
    type Error: de::Error;

    /// Reads it as this command.
    fn read<C: Deserialize<'de>>(self) -> Result<C, Self::Error>;
}

/// The content of a command, without its name.
pub(super) struct Content<'a, C>(pub(super) &'a C);

impl<C: Command + Serialize> Serialize for Content<'_, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_content(serializer)
    }
}

/// Writes `{"account.deposit": {…}}`, or the name followed by the content if the format writes no names.
pub fn serialize_command<C: Commands, S: Serializer>(command: &C, serializer: S) -> Result<S::Ok, S::Error> {
    let (name, content) = (command.name(), Content(command));
    if serializer.is_human_readable() {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &content)?;
        map.end()
    } else {
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(name)?;
        pair.serialize_element(&content)?;
        pair.end()
    }
}

/// Reads what [`serialize_command`] writes.
pub fn deserialize_command<'de, C: Commands, D: Deserializer<'de>>(deserializer: D) -> Result<C, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_map(OneCommand(PhantomData))
    } else {
        deserializer.deserialize_tuple(2, OneCommand(PhantomData))
    }
}

/// The error for a name that no command has.
pub fn unknown_command<C: Commands, E: de::Error>(name: &str) -> Result<C, E> {
    Err(E::unknown_variant(name, C::NAMES))
}

/// Checks at compile time that no two of these names are the same.
#[track_caller]
pub const fn distinct_commands(names: &[&str]) {
    let mut rest = names;
    while let [first, others @ ..] = rest {
        let mut behind = others;
        while let [second, more @ ..] = behind {
            assert!(!super::payload::is_same(first, second), "two commands of the enum have the same stored name");
            behind = more;
        }
        rest = others;
    }
}

struct OneCommand<C>(PhantomData<C>);

impl<'de, C: Commands> Visitor<'de> for OneCommand<C> {
    type Value = C;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one command under its name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<C, A::Error> {
        let Name(name) = map.next_key()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        let command = C::read(&name, Value(&mut map))?;
        if map.next_key::<Name<'de>>()?.is_some() {
            return Err(de::Error::invalid_length(2, &self));
        }
        Ok(command)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<C, A::Error> {
        let Name(name) = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        C::read(&name, Element(&mut seq))
    }
}

/// A name, borrowed if the format allows it.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a command")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

struct Value<'a, A>(&'a mut A);

impl<'de, A: MapAccess<'de>> ReadCommand<'de> for Value<'_, A> {
    type Error = A::Error;

    fn read<C: Deserialize<'de>>(self) -> Result<C, A::Error> {
        self.0.next_value()
    }
}

struct Element<'a, A>(&'a mut A);

impl<'de, A: SeqAccess<'de>> ReadCommand<'de> for Element<'_, A> {
    type Error = A::Error;

    fn read<C: Deserialize<'de>>(self) -> Result<C, A::Error> {
        self.0.next_element_seed(PhantomData)?.ok_or_else(|| de::Error::invalid_length(1, &"a name and a command"))
    }
}
