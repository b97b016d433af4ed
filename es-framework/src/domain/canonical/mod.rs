//! The canonical bytes of a value, from which the fingerprint of a command is computed.
//!
//! Two values of one type have the same bytes if and only if they serialize to the same data. The order of a struct's
//! fields, of an enum's variants and of a map's entries makes no difference, nor does the width of an integer, and the
//! names of types are not included. So these changes to a command keep its fingerprint:
//!
//! * renaming its type, or types inside it;
//! * reordering fields or variants;
//! * widening an integer (`u32` to `u64`) and, for the same value, a float (`f32` to `f64`);
//! * wrapping a value in a newtype struct, which serde asks formats to pass through.
//!
//! Everything else makes another value: each kind of serde's data model has its own tag, and every string, sequence and
//! map is preceded by its length. `None` is not `Some(None)`, a string is not its bytes, and `+∞` is not `−∞`.
//!
//! The form does not depend on any format's crate or its features. `serde_json::Value` has one special case: with the
//! feature `arbitrary_precision` its numbers serialize as a struct that holds a string, which is turned back into the
//! number that it would be without the feature.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};

/// The canonical bytes of a value. The form never changes, because fingerprints computed from it are stored.
pub(super) fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    value.serialize(Canonical(&mut bytes))?;
    Ok(bytes)
}

/// A value whose own `Serialize` failed; nothing else is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(String);

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// What follows a tag is noted in parentheses; a number is 16 bytes, a length 8, both big-endian.
mod tag {
    pub(super) const UNIT: u8 = 0x00;
    pub(super) const UNIT_STRUCT: u8 = 0x01;
    pub(super) const NONE: u8 = 0x02;
    /// (value)
    pub(super) const SOME: u8 = 0x03;
    pub(super) const FALSE: u8 = 0x04;
    pub(super) const TRUE: u8 = 0x05;
    /// A non-negative integer (number).
    pub(super) const INTEGER: u8 = 0x06;
    /// A negative integer (its absolute value as a number).
    pub(super) const NEGATIVE: u8 = 0x07;
    /// (the bits of the `f64`)
    pub(super) const FLOAT: u8 = 0x08;
    /// A number that is neither an integer nor a float (sign, digits, exponent as a string).
    pub(super) const DECIMAL: u8 = 0x09;
    /// (4 bytes)
    pub(super) const CHAR: u8 = 0x0a;
    /// (length, UTF-8)
    pub(super) const TEXT: u8 = 0x0b;
    /// (length, bytes)
    pub(super) const BYTES: u8 = 0x0c;
    /// (length, values)
    pub(super) const SEQUENCE: u8 = 0x0d;
    /// (length, values)
    pub(super) const TUPLE: u8 = 0x0e;
    /// (length, keys and values, sorted by the bytes of the keys)
    pub(super) const MAP: u8 = 0x0f;
    /// (length, names and values, sorted by name)
    pub(super) const STRUCT: u8 = 0x10;
    /// (name)
    pub(super) const UNIT_VARIANT: u8 = 0x11;
    /// (name, value)
    pub(super) const NEWTYPE_VARIANT: u8 = 0x12;
    /// (name, length, values)
    pub(super) const TUPLE_VARIANT: u8 = 0x13;
    /// (name, length, names and values, sorted by name)
    pub(super) const STRUCT_VARIANT: u8 = 0x14;
}

/// The name of the struct that `serde_json` uses for a number under `arbitrary_precision`.
const JSON_NUMBER: &str = "$serde_json::private::Number";

struct Canonical<'a>(&'a mut Vec<u8>);

#[expect(clippy::unnecessary_wraps, reason = "what serde's methods return")]
impl<'a> Canonical<'a> {
    fn tag(self, tag: u8) -> Result<(), Refused> {
        self.0.push(tag);
        Ok(())
    }

    fn tagged(self, tag: u8, bytes: &[u8]) -> Result<(), Refused> {
        self.0.push(tag);
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn integer(self, is_negative: bool, absolute: u128) -> Result<(), Refused> {
        self.tagged(if is_negative { tag::NEGATIVE } else { tag::INTEGER }, &absolute.to_be_bytes())
    }

    fn text(self, tag: u8, text: &[u8]) -> Result<(), Refused> {
        self.0.push(tag);
        put_length(self.0, text.len());
        self.0.extend_from_slice(text);
        Ok(())
    }

    fn items(self, tag: u8, variant: Option<&str>) -> Items<'a> {
        self.0.push(tag);
        if let Some(variant) = variant {
            put_text(self.0, variant);
        }
        let length_at = self.0.len();
        put_length(self.0, 0);
        Items { out: self.0, length_at, length: 0 }
    }

    fn fields(self, tag: u8, variant: Option<&str>) -> Fields<'a> {
        self.0.push(tag);
        if let Some(variant) = variant {
            put_text(self.0, variant);
        }
        Fields { out: self.0, added: Vec::new(), is_json_number: false }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

macro_rules! integers {
    ($($unsigned:ident $u:ty, $signed:ident $i:ty;)*) => {
        $(
            fn $unsigned(self, value: $u) -> Result<(), Refused> {
                self.integer(false, value.into())
            }

            fn $signed(self, value: $i) -> Result<(), Refused> {
                self.integer(value < 0, value.unsigned_abs().into())
            }
        )*
    };
}

impl<'a> Serializer for Canonical<'a> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    /// Types with two representations (addresses, ids, times) use the human-readable one: their crates keep it stable,
    /// because JSON exposes it, while the other one may change with the type's fields.
    fn is_human_readable(&self) -> bool {
        true
    }

    integers! {
        serialize_u8 u8, serialize_i8 i8;
        serialize_u16 u16, serialize_i16 i16;
        serialize_u32 u32, serialize_i32 i32;
        serialize_u64 u64, serialize_i64 i64;
        serialize_u128 u128, serialize_i128 i128;
    }

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.tag(if value { tag::TRUE } else { tag::FALSE })
    }

    fn serialize_f32(self, value: f32) -> Result<(), Refused> {
        // Every `f32` is an `f64`.
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Refused> {
        // NaN has many bit patterns that all mean the same.
        let value = if value.is_nan() { f64::NAN.copysign(1.0) } else { value };
        self.tagged(tag::FLOAT, &value.to_bits().to_be_bytes())
    }

    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.tagged(tag::CHAR, &u32::from(value).to_be_bytes())
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        self.text(tag::TEXT, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.text(tag::BYTES, value)
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.tag(tag::NONE)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.0.push(tag::SOME);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        self.tag(tag::UNIT)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.tag(tag::UNIT_STRUCT)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Refused> {
        self.text(tag::UNIT_VARIANT, variant.as_bytes())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.0.push(tag::NEWTYPE_VARIANT);
        put_text(self.0, variant);
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Refused> {
        Ok(self.items(tag::SEQUENCE, None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Refused> {
        Ok(self.items(tag::TUPLE, None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Refused> {
        Ok(self.items(tag::TUPLE, None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'a>, Refused> {
        Ok(self.items(tag::TUPLE_VARIANT, Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries<'a>, Refused> {
        self.0.push(tag::MAP);
        Ok(Entries { out: self.0, entries: Vec::new() })
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields<'a>, Refused> {
        if name == JSON_NUMBER {
            return Ok(Fields { out: self.0, added: Vec::new(), is_json_number: true });
        }
        Ok(self.fields(tag::STRUCT, None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Refused> {
        Ok(self.fields(tag::STRUCT_VARIANT, Some(variant)))
    }
}

/// The values of a sequence or a tuple. Their number is written at the end: the length serde passes up front is a hint.
struct Items<'a> {
    out: &'a mut Vec<u8>,
    length_at: usize,
    length: u64,
}

impl Items<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.length += 1;
        value.serialize(Canonical(self.out))
    }

    fn finish(self) {
        if let Some(length) = self.out.get_mut(self.length_at..self.length_at + 8) {
            length.copy_from_slice(&self.length.to_be_bytes());
        }
    }
}

macro_rules! items {
    ($($trait:ident $add:ident),*) => {
        $(
            impl ser::$trait for Items<'_> {
                type Ok = ();
                type Error = Refused;

                fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                    self.add(value)
                }

                fn end(self) -> Result<(), Refused> {
                    self.finish();
                    Ok(())
                }
            }
        )*
    };
}

items!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

/// The entries of a map, as bytes, until they can be sorted. Keys are of any type.
struct Entries<'a> {
    out: &'a mut Vec<u8>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.entries.push((canonical(key)?, Vec::new()));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        match self.entries.last_mut() {
            Some((_, bytes)) => value.serialize(Canonical(bytes)),
            None => Err(ser::Error::custom("a map's value comes after its key")),
        }
    }

    fn end(mut self) -> Result<(), Refused> {
        self.entries.sort_unstable();
        put_length(self.out, self.entries.len());
        for (key, value) in self.entries {
            self.out.extend(key);
            self.out.extend(value);
        }
        Ok(())
    }
}

/// The fields of a struct, as bytes, until they can be sorted.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    added: Vec<(&'static str, Vec<u8>)>,
    /// Whether it represents a number of `serde_json`.
    is_json_number: bool,
}

impl Fields<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Refused> {
        self.added.push((name, canonical(value)?));
        Ok(())
    }

    fn finish(mut self) -> Result<(), Refused> {
        if self.is_json_number {
            // Its one field is a string: a tag, a length, and the digits of the number.
            let text = self.added.first().and_then(|(_, text)| std::str::from_utf8(text.get(9..)?).ok());
            return json_number(Canonical(self.out), text.unwrap_or_default());
        }
        self.added.sort_unstable();
        put_length(self.out, self.added.len());
        for (name, value) in self.added {
            put_text(self.out, name);
            self.out.extend(value);
        }
        Ok(())
    }
}

macro_rules! fields {
    ($($trait:ident),*) => {
        $(
            impl ser::$trait for Fields<'_> {
                type Ok = ();
                type Error = Refused;

                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), Refused> {
                    self.add(name, value)
                }

                fn end(self) -> Result<(), Refused> {
                    self.finish()
                }
            }
        )*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

/// A number of `serde_json` that is given as a string: the integer or float that it would be without
/// `arbitrary_precision` if that is exact, otherwise the number as it was written.
fn json_number(out: Canonical<'_>, text: &str) -> Result<(), Refused> {
    if text != "-0" {
        if let Ok(value) = text.parse() {
            return out.serialize_u128(value);
        }
        if let Ok(value) = text.parse() {
            return out.serialize_i128(value);
        }
    }
    let decimal = Decimal::parse(text);
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() && Decimal::parse(&format!("{float:e}")) == decimal => out.serialize_f64(float),
        _ => out.text(tag::DECIMAL, decimal.map_or_else(|| text.to_owned(), |it| it.to_string()).as_bytes()),
    }
}

/// A decimal number in a unique form: digits that neither start nor end with a zero, times a power of ten.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (text, is_negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let scale = i64::try_from(all.len() - digits.len()).ok()? - i64::try_from(fraction.len()).ok()?;
        let digits = digits.trim_start_matches('0').to_owned();
        let exponent = if digits.is_empty() { 0 } else { exponent.parse::<i64>().ok()?.checked_add(scale)? };
        Some(Self { is_negative, digits, exponent })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative { "-" } else { "" };
        write!(f, "{sign}{}e{}", self.digits, self.exponent)
    }
}

#[cfg(test)]
mod tests;
