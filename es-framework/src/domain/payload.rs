//! Called by generated code; not meant to be used directly.
//!
//! Each variant of an event is stored as a payload of its own. The derive generates a private mirror of the type and
//! derives serde's traits for it, so that all of serde's field attributes keep their usual meaning. [`WithoutEnum`]
//! removes the enum's own layer when the mirror is written, and [`AsVariant`] adds it when it is read. So writing and
//! reading agree by construction, and neither the index nor the Rust name of a variant is ever stored.
#![expect(clippy::missing_errors_doc, clippy::missing_panics_doc, reason = "called by generated code only")]

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{OnceLock, PoisonError, RwLock};

pub use std::string::String;
pub use std::sync::Arc;
pub use std::vec::Vec;

pub use serde;
use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, VariantAccess, Visitor};
use serde::ser::{self, Impossible, SerializeStruct, SerializeTupleStruct, Serializer};
use serde::{Deserialize, Serialize};

pub use super::aggregate::{Aggregate, Context, Handle, OfQuery, OfStream, State};
#[cfg(feature = "bincode")]
pub use super::codec::Bincode as DefaultCodec;
use super::codec::{Codec, decode_stored};
pub use super::command::Command;
pub use super::commands_enum::{
    Commands, ReadCommand, deserialize_command, distinct_commands, serialize_command, unknown_command,
};
pub use super::event::{DecodeError, EncodeError, Event, NamesStream};
pub use super::into_decision::IntoDecision;
use super::shape::Shape;
pub use super::state::{SnapshotPolicy, Snapshots};
pub use super::tagging::{StreamText, StreamValue};
pub use super::view::{View, ViewOf, criterion};
use crate::log::MAX_NAME_BYTES;
pub use crate::log::{CandidateEvent, EventType, InvalidName, StoredEvent, StreamId};

/// Compares states, for snapshots.
pub mod same_state {
    pub use super::super::same_state::{ByBoth, ByDebug, ByNothing, ByPartialEq, States};
}

/// Makes tags of fields.
pub mod tagging {
    pub use super::super::tagging::{ByDisplay, ByItems, ByNothing, Tags, Value};
}

/// Used if no codec is named and the feature `bincode` is off. It is not a codec, so the compiler's error says what to
/// do.
#[cfg(not(feature = "bincode"))]
#[derive(Debug)]
pub struct NoDefaultCodec;
#[cfg(not(feature = "bincode"))]
pub use NoDefaultCodec as DefaultCodec;

/// The struct name passed to serde for every payload, so that codecs that write it store no Rust name.
const PAYLOAD: &str = "Payload";

/// An event whose variants are payloads.
pub trait Payloads: Sized + Send + Sync + 'static {
    /// The stored type of each variant, in the order of the variants.
    fn types() -> &'static [Arc<EventType>];

    /// Writes the fields of the variant.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads the fields of the variant with this index.
    fn read<'de, D: Deserializer<'de>>(variant: u32, deserializer: D) -> Result<Self, D::Error>;
}

/// The payload of an event, to be written.
struct Written<'a, E>(&'a E);

impl<E: Payloads> Serialize for Written<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// The payload of one variant, to be read.
struct Payload<E, const VARIANT: u32>(E);

impl<'de, E: Payloads, const VARIANT: u32> Deserialize<'de> for Payload<E, VARIANT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        E::read(VARIANT, deserializer).map(Self)
    }
}

/// Encodes an event as the variant with this index.
pub fn encode<C: Codec, E: Payloads>(
    event: &E,
    variant: usize,
    name: &'static str,
) -> Result<CandidateEvent, EncodeError> {
    let payload = C::encode(&Written(event)).map_err(|source| EncodeError::new(name, source))?;
    let event_type = E::types().get(variant).expect("the derive makes one type a variant");
    Ok(CandidateEvent::of_type(Arc::clone(event_type), payload))
}

/// The same for a variant with tags.
pub fn encode_tagged<C: Codec, E: Payloads>(
    event: &E,
    variant: usize,
    name: &'static str,
    tags: tagging::Tags,
) -> Result<CandidateEvent, EncodeError> {
    let tags = tags.finish()?;
    Ok(encode::<C, E>(event, variant, name)?.with_tags(tags))
}

/// Decodes a stored event as one variant.
pub fn decode<C: Codec, E: Payloads, const VARIANT: u32>(stored: &StoredEvent) -> Result<E, DecodeError> {
    decode_stored::<C, Payload<E, VARIANT>>(stored.event_type.codec(), &stored.payload)
        .map(|payload| payload.0)
        .map_err(|source| DecodeError::payload(stored, source))
}

/// Decodes a stored event of an older version and upgrades it.
pub fn decode_old<C: Codec, T: DeserializeOwned, E: From<T>>(stored: &StoredEvent) -> Result<E, DecodeError> {
    decode_stored::<C, T>(stored.event_type.codec(), &stored.payload)
        .map(E::from)
        .map_err(|source| DecodeError::payload(stored, source))
}

/// The type that a variant is stored as.
pub fn event_type<C: Codec, E: Payloads, const VARIANT: u32>(name: &'static str, version: u32) -> Arc<EventType> {
    const { assert!(is_name(C::ID), "the id of a codec has 1 to 255 bytes and no control characters") };
    let event_type =
        EventType::new(name, version, C::ID).expect("the derive checked the name, the line above the codec");
    Arc::new(event_type.with_shape(Shape::of::<C, Payload<E, VARIANT>>().as_str()))
}

/// [`check_name`](crate::log) at compile time.
const fn is_name(text: &str) -> bool {
    let mut rest = text.as_bytes();
    let length = rest.len();
    while let [first, tail @ ..] = rest {
        if *first < b' ' {
            return false;
        }
        rest = tail;
    }
    0 < length && length <= MAX_NAME_BYTES
}

/// Whether two strings are equal, at compile time.
pub(super) const fn is_same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let ([first, rest @ ..], [other, others @ ..]) = (a, b) {
        if *first != *other {
            return false;
        }
        (a, b) = (rest, others);
    }
    a.is_empty() && b.is_empty()
}

/// Checks the name of an event or a command that is a constant; the derive has already checked literals.
#[track_caller]
pub const fn stored_name(name: &'static str) -> &'static str {
    assert!(is_name(name), "a stored name has 1 to 255 bytes and no control characters");
    name
}

/// Does the same for a category.
#[track_caller]
pub const fn category(category: &'static str) -> &'static str {
    assert!(is_name(category), "a category has 1 to 253 bytes and no control characters");
    assert!(category.len() <= MAX_NAME_BYTES - 2, "a category has at most 253 bytes");
    let mut rest = category.as_bytes();
    assert!(!matches!(rest, [b'@', ..]), "a category cannot start with `@`, which is reserved for the store");
    while let [first, tail @ ..] = rest {
        assert!(*first != b'-', "a category cannot contain `-`: in a stream's id it ends the category");
        rest = tail;
    }
    category
}

/// Does the same for the name of a tag.
#[track_caller]
pub const fn tag_name(name: &'static str) -> &'static str {
    assert!(is_name(name), "the name of a tag has 1 to 253 bytes and no control characters");
    assert!(name.len() <= MAX_NAME_BYTES - 2, "the name of a tag has at most 253 bytes");
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        assert!(*first != b':', "the name of a tag cannot contain `:`, which ends it: a tag is `name:value`");
        rest = tail;
    }
    name
}

/// Checks that each name in a version is read by one variant; called if a name is a constant, which the derive cannot
/// compare.
#[track_caller]
pub const fn distinct(claims: &[(&str, u32)]) {
    let mut rest = claims;
    while let [(name, version), others @ ..] = rest {
        let mut behind = others;
        while let [(other, other_version), more @ ..] = behind {
            assert!(
                *version != *other_version || !is_same(name, other),
                "two variants read the same name in the same version"
            );
            behind = more;
        }
        rest = others;
    }
}

/// Compiles only for types that do not borrow from the bytes they are read from.
pub const fn is_owned<T: DeserializeOwned>() {}

/// The types of an event without parameters: built once, then shared.
#[derive(Debug)]
pub struct EventTypes(OnceLock<Vec<Arc<EventType>>>);

impl EventTypes {
    #[expect(clippy::new_without_default, reason = "made in statics only, where `default` cannot be called")]
    /// Creates it empty.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The types, built on first use.
    pub fn get_or_build(&'static self, build: impl FnOnce() -> Vec<Arc<EventType>>) -> &'static [Arc<EventType>] {
        self.0.get_or_init(build)
    }
}

/// The types of a generic event, for which one static would be shared by all instances.
pub fn types_of<E: 'static>(build: impl FnOnce() -> Vec<Arc<EventType>>) -> &'static [Arc<EventType>] {
    type Known = HashMap<TypeId, &'static [Arc<EventType>]>;
    static TYPES: OnceLock<RwLock<Known>> = OnceLock::new();
    let types = TYPES.get_or_init(RwLock::default);
    if let Some(known) = types.read().unwrap_or_else(PoisonError::into_inner).get(&TypeId::of::<E>()) {
        return known;
    }
    // Built outside the lock: a shape may need the types of another event.
    let built = build();
    let mut types = types.write().unwrap_or_else(PoisonError::into_inner);
    // Leaked once per instance of a type, and a program has a fixed number of these.
    types.entry(TypeId::of::<E>()).or_insert_with(|| Vec::leak(built))
}

/// Creates a list.
pub fn list<T, const N: usize>(items: [T; N]) -> Vec<T> {
    Vec::from(items)
}

/// Concatenates lists, in order.
pub fn concat<T, const N: usize>(lists: [Vec<T>; N]) -> Vec<T> {
    lists.into_iter().flatten().collect()
}

/// The policy of `snapshot(every = …)`; the derive refuses 0.
#[track_caller]
pub const fn every<A>(events: u64) -> SnapshotPolicy<A> {
    match NonZeroU64::new(events) {
        Some(events) => SnapshotPolicy::Every(events),
        None => panic!("a snapshot is taken every 1 or more events"),
    }
}

/// The error for an index that no variant has.
pub fn no_such_variant<T, E: de::Error>(variant: u32) -> Result<T, E> {
    Err(E::custom(format_args!("there is no variant {variant}")))
}

/// The events of an aggregate whose derive failed.
#[derive(Debug)]
pub enum NoEvent {}

impl Event for NoEvent {
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    fn event_types() -> Vec<Arc<EventType>> {
        Vec::new()
    }

    fn encode(&self) -> Result<CandidateEvent, EncodeError> {
        match *self {}
    }

    fn decode(stored: &StoredEvent) -> Result<Self, DecodeError> {
        Err(DecodeError::unknown(stored))
    }
}

/// Writes an enum's variant as its content: a unit, a newtype, a tuple or a struct.
#[derive(Debug)]
pub struct WithoutEnum<S>(pub S);

/// Methods that no mirror of an enum calls.
macro_rules! not_an_enum {
    ($($method:ident($($type:ty),*) -> $ok:ty;)*) => {
        $(
            fn $method(self, $(_: $type),*) -> Result<$ok, S::Error> {
                Err(ser::Error::custom("only the variant of an event is written"))
            }
        )*
    };
}

impl<S: Serializer> Serializer for WithoutEnum<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = WithoutEnum<S::SerializeTupleStruct>;
    type SerializeMap = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Impossible<S::Ok, S::Error>;
    type SerializeStructVariant = WithoutEnum<S::SerializeStruct>;

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_struct(PAYLOAD)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(PAYLOAD, value)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple_struct(PAYLOAD, len).map(WithoutEnum)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct(PAYLOAD, len).map(WithoutEnum)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("only the variant of an event is written"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("only the variant of an event is written"))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("only the variant of an event is written"))
    }

    not_an_enum! {
        serialize_bool(bool) -> S::Ok;
        serialize_i8(i8) -> S::Ok;
        serialize_i16(i16) -> S::Ok;
        serialize_i32(i32) -> S::Ok;
        serialize_i64(i64) -> S::Ok;
        serialize_u8(u8) -> S::Ok;
        serialize_u16(u16) -> S::Ok;
        serialize_u32(u32) -> S::Ok;
        serialize_u64(u64) -> S::Ok;
        serialize_f32(f32) -> S::Ok;
        serialize_f64(f64) -> S::Ok;
        serialize_char(char) -> S::Ok;
        serialize_str(&str) -> S::Ok;
        serialize_bytes(&[u8]) -> S::Ok;
        serialize_none() -> S::Ok;
        serialize_unit() -> S::Ok;
        serialize_unit_struct(&'static str) -> S::Ok;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }
}

impl<S: SerializeTupleStruct> ser::SerializeTupleVariant for WithoutEnum<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

impl<S: SerializeStruct> ser::SerializeStructVariant for WithoutEnum<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

/// Reads a unit, a newtype, a tuple or a struct as the enum's variant with this index.
#[derive(Debug)]
pub struct AsVariant<D> {
    variant: u32,
    deserializer: D,
}

impl<D> AsVariant<D> {
    /// Reads as the variant with this index.
    pub fn new(variant: u32, deserializer: D) -> Self {
        Self { variant, deserializer }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for AsVariant<D> {
    type Error = D::Error;

    fn is_human_readable(&self) -> bool {
        self.deserializer.is_human_readable()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(de::Error::custom("only the variant of an event is read"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> de::EnumAccess<'de> for AsVariant<D> {
    type Error = D::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), D::Error> {
        let index: U32Deserializer<D::Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for AsVariant<D> {
    type Error = D::Error;

    fn unit_variant(self) -> Result<(), D::Error> {
        self.deserializer.deserialize_unit_struct(PAYLOAD, Unit)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, D::Error> {
        self.deserializer.deserialize_newtype_struct(PAYLOAD, Newtype(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_tuple_struct(PAYLOAD, len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_struct(PAYLOAD, fields, visitor)
    }
}

struct Unit;

impl Visitor<'_> for Unit {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing: the event has no fields")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

struct Newtype<T>(T);

impl<'de, T: DeserializeSeed<'de>> Visitor<'de> for Newtype<T> {
    type Value = T::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the one field of an event")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(deserializer)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<T::Value, A::Error> {
        seq.next_element_seed(self.0)?.ok_or_else(|| de::Error::invalid_length(0, &"the one field of an event"))
    }
}
