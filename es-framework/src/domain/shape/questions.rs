//! The requests that serde can make.

use serde::de::{Deserializer, Visitor};

use super::access::{Enum, Map, Nothing, Seq};
use super::samples::{BYTES, CHARS, INTEGERS, TEXTS};
use super::slots::{Kind, Numbers, Variant};
use super::tracer::{Refused, Tracer};

macro_rules! plain {
    ($($method:ident $visit:ident $name:literal $values:ident;)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
                self.plain($name)?;
                visitor.$visit(self.value(&$values)?.into())
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Refused;

    fn is_human_readable(&self) -> bool {
        self.trace.human_readable
    }

    plain! {
        deserialize_i16 visit_i16 "i16" INTEGERS;
        deserialize_i32 visit_i32 "i32" INTEGERS;
        deserialize_i64 visit_i64 "i64" INTEGERS;
        deserialize_i128 visit_i128 "i128" INTEGERS;
        deserialize_u8 visit_u8 "u8" INTEGERS;
        deserialize_u16 visit_u16 "u16" INTEGERS;
        deserialize_u32 visit_u32 "u32" INTEGERS;
        deserialize_u64 visit_u64 "u64" INTEGERS;
        deserialize_u128 visit_u128 "u128" INTEGERS;
        deserialize_f32 visit_f32 "f32" INTEGERS;
        deserialize_f64 visit_f64 "f64" INTEGERS;
        deserialize_char visit_char "char" CHARS;
        deserialize_str visit_str "str" TEXTS;
        deserialize_string visit_str "str" TEXTS;
        deserialize_identifier visit_str "str" TEXTS;
        deserialize_bytes visit_bytes "bytes" BYTES;
        deserialize_byte_buf visit_bytes "bytes" BYTES;
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("i8")?;
        visitor.visit_i8(i8::try_from(self.value(&INTEGERS)?).unwrap_or(i8::MAX))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("bool")?;
        visitor.visit_bool(self.value(&[false, true])?)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("any")?;
        match self.salt % 8 {
            0 => visitor.visit_unit(),
            1 => visitor.visit_str("a"),
            2 => visitor.visit_u64(1),
            3 => visitor.visit_i64(-1),
            4 => visitor.visit_f64(0.5),
            5 => visitor.visit_bool(true),
            6 => visitor.visit_seq(Nothing),
            _ => visitor.visit_map(Nothing),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.plain("any")?;
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(|kind| matches!(kind, Kind::Unit), || Ok(Kind::Unit))?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Option(_)),
            || Ok(Kind::Option(self.trace.new_slot()?)),
            |tracer| {
                let part = tracer.one_part()?;
                if tracer.wants(part) {
                    tracer.offer(part, |tracer| visitor.visit_some(tracer))
                } else {
                    visitor.visit_none()
                }
            },
        )
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Newtype(_)),
            || Ok(Kind::Newtype(self.trace.new_slot()?)),
            |tracer| tracer.give(tracer.one_part()?, |tracer| visitor.visit_newtype_struct(tracer)),
        )
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Seq(_)),
            || Ok(Kind::Seq(self.trace.new_slot()?)),
            |tracer| {
                let part = tracer.one_part()?;
                visitor.visit_seq(Seq { tracer, part: tracer.wants(part).then_some(part) })
            },
        )
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Map(..)),
            || Ok(Kind::Map(self.trace.new_slot()?, self.trace.new_slot()?)),
            |tracer| {
                let parts = tracer.trace.with(tracer.slot, |slot| match slot.kind {
                    Kind::Map(key, value) => Ok((key, value)),
                    _ => Err(Refused::KNOWN),
                })?;
                let (key, value) = parts?;
                if tracer.wants(key) || tracer.wants(value) {
                    tracer.offering(&[key, value], || visitor.visit_map(Map { tracer, key: Some(key), value }))
                } else {
                    visitor.visit_map(Map { tracer, key: None, value })
                }
            },
        )
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.read_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.read_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.read_struct(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let make = || {
            let variant = |name: &&'static str| Ok(Variant { name, slot: self.trace.new_slot()?, tries: 0 });
            let variants = variants.iter().map(variant).collect::<Result<_, _>>()?;
            Ok(Kind::Enum { variants, numbers: Numbers::Unknown })
        };
        let is_same = |kind: &Kind| matches!(kind, Kind::Enum { variants: known, .. } if known.len() == variants.len());
        self.level::<V, _>(is_same, make, |tracer| visitor.visit_enum(Enum { tracer }))
    }
}
