//! Fingerprints a value as serde sees it: kinds, names of fields and variants, nesting, and every value.
//!
//! Names of types do not count, as in a [`Shape`](super::shape::Shape). Neither does the order of a sequence's elements
//! or a map's entries: a `HashSet` is a sequence to serde, and its order differs each time it is created.

use std::fmt;
use std::hash::Hasher;

use serde::ser::{self, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::log::Fingerprint;

/// The fingerprint of a value, in its human-readable form or in its compact one.
pub(super) fn value_fingerprint<T: Serialize + ?Sized>(
    value: &T,
    human_readable: bool,
) -> Result<Fingerprint, Refused> {
    let mut hash = SipHasher13::new();
    value.serialize(Printer { hash: &mut hash, human_readable })?;
    Ok(Fingerprint::from_bytes(hash.finish128().as_u128().to_be_bytes()))
}

/// The error of the type's `Serialize`.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The kind of what follows. Changing the numbers makes every saved state look like one of another type.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Bool = 1,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
    None,
    Some,
    Unit,
    UnitVariant,
    Newtype,
    NewtypeVariant,
    Seq,
    Tuple,
    TupleVariant,
    Map,
    Struct,
    StructVariant,
    Field,
    End,
}

/// Hashes one value.
struct Printer<'h> {
    hash: &'h mut SipHasher13,
    human_readable: bool,
}

impl<'h> Printer<'h> {
    /// Hashes a tag and a value of fixed length.
    #[expect(clippy::unnecessary_wraps, reason = "the methods of a serializer return results")]
    fn fixed<const N: usize>(mut self, tag: Tag, bytes: [u8; N]) -> Result<(), Refused> {
        self.tag(tag);
        self.hash.write(&bytes);
        Ok(())
    }

    fn tag(&mut self, tag: Tag) {
        self.hash.write_u8(tag as u8);
    }

    /// Hashes a tag, a length and that many bytes.
    fn run(&mut self, tag: Tag, bytes: &[u8]) {
        self.tag(tag);
        self.hash.write(&(bytes.len() as u64).to_le_bytes());
        self.hash.write(bytes);
    }

    fn in_order(self) -> InOrder<'h> {
        InOrder(self)
    }

    fn of_any_order(self, tag: Tag) -> OfAnyOrder<'h> {
        OfAnyOrder { printer: self, tag, count: 0, sum: 0, entry: SipHasher13::new() }
    }
}

macro_rules! fixed {
    ($($method:ident($type:ty) $tag:ident;)*) => {
        $(
            fn $method(self, value: $type) -> Result<(), Refused> {
                self.fixed(Tag::$tag, value.to_le_bytes())
            }
        )*
    };
}

impl<'h> ser::Serializer for Printer<'h> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = OfAnyOrder<'h>;
    type SerializeTuple = InOrder<'h>;
    type SerializeTupleStruct = InOrder<'h>;
    type SerializeTupleVariant = InOrder<'h>;
    type SerializeMap = OfAnyOrder<'h>;
    type SerializeStruct = InOrder<'h>;
    type SerializeStructVariant = InOrder<'h>;

    fn is_human_readable(&self) -> bool {
        self.human_readable
    }

    // Floats count by their bits.
    fixed! {
        serialize_i8(i8) I8;
        serialize_i16(i16) I16;
        serialize_i32(i32) I32;
        serialize_i64(i64) I64;
        serialize_i128(i128) I128;
        serialize_u8(u8) U8;
        serialize_u16(u16) U16;
        serialize_u32(u32) U32;
        serialize_u64(u64) U64;
        serialize_u128(u128) U128;
        serialize_f32(f32) F32;
        serialize_f64(f64) F64;
    }

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.fixed(Tag::Bool, [value.into()])
    }

    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.fixed(Tag::Char, u32::from(value).to_le_bytes())
    }

    fn serialize_str(mut self, value: &str) -> Result<(), Refused> {
        self.run(Tag::Str, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), Refused> {
        self.run(Tag::Bytes, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.fixed(Tag::None, [])
    }

    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Refused> {
        self.tag(Tag::Some);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        self.fixed(Tag::Unit, [])
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(mut self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Refused> {
        self.run(Tag::UnitVariant, variant.as_bytes());
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(mut self, _: &'static str, value: &T) -> Result<(), Refused> {
        self.tag(Tag::Newtype);
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.run(Tag::NewtypeVariant, variant.as_bytes());
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<OfAnyOrder<'h>, Refused> {
        Ok(self.of_any_order(Tag::Seq))
    }

    fn serialize_tuple(mut self, _: usize) -> Result<InOrder<'h>, Refused> {
        self.tag(Tag::Tuple);
        Ok(self.in_order())
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<InOrder<'h>, Refused> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<InOrder<'h>, Refused> {
        self.run(Tag::TupleVariant, variant.as_bytes());
        Ok(self.in_order())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<OfAnyOrder<'h>, Refused> {
        Ok(self.of_any_order(Tag::Map))
    }

    fn serialize_struct(mut self, _: &'static str, _: usize) -> Result<InOrder<'h>, Refused> {
        self.tag(Tag::Struct);
        Ok(self.in_order())
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<InOrder<'h>, Refused> {
        self.run(Tag::StructVariant, variant.as_bytes());
        Ok(self.in_order())
    }
}

/// Hashes parts in order.
struct InOrder<'h>(Printer<'h>);

impl InOrder<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Printer { hash: self.0.hash, human_readable: self.0.human_readable })
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Refused> {
        self.0.run(Tag::Field, name.as_bytes());
        self.part(value)
    }

    fn over(self) -> Result<(), Refused> {
        self.0.fixed(Tag::End, [])
    }
}

macro_rules! in_order {
    ($($trait:ident $method:ident;)*) => {
        $(
            impl ser::$trait for InOrder<'_> {
                type Ok = ();
                type Error = Refused;

                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                    self.part(value)
                }

                fn end(self) -> Result<(), Refused> {
                    self.over()
                }
            }
        )*
    };
}

in_order! {
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(
            impl ser::$trait for InOrder<'_> {
                type Ok = ();
                type Error = Refused;

                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), Refused> {
                    self.field(name, value)
                }

                fn end(self) -> Result<(), Refused> {
                    self.over()
                }
            }
        )*
    };
}

fields! { SerializeStruct SerializeStructVariant }

/// Hashes elements or entries one by one and sums the hashes, so that their order does not count.
struct OfAnyOrder<'h> {
    printer: Printer<'h>,
    tag: Tag,
    count: u64,
    sum: u128,
    /// The map entry whose key was just hashed.
    entry: SipHasher13,
}

impl OfAnyOrder<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(Printer { hash: &mut self.entry, human_readable: self.printer.human_readable })
    }

    fn add(&mut self) {
        let hash = std::mem::take(&mut self.entry).finish128().as_u128();
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    #[expect(clippy::unnecessary_wraps, reason = "the methods of a serializer return results")]
    fn over(mut self) -> Result<(), Refused> {
        self.printer.tag(self.tag);
        self.printer.hash.write(&self.count.to_le_bytes());
        self.printer.hash.write(&self.sum.to_le_bytes());
        Ok(())
    }
}

impl ser::SerializeSeq for OfAnyOrder<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.part(value)?;
        self.add();
        Ok(())
    }

    fn end(self) -> Result<(), Refused> {
        self.over()
    }
}

impl ser::SerializeMap for OfAnyOrder<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.part(value)?;
        self.add();
        Ok(())
    }

    fn end(self) -> Result<(), Refused> {
        self.over()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    use serde::Serialize;

    use super::*;

    fn of<T: Serialize>(value: T) -> Fingerprint {
        value_fingerprint(&value, false).unwrap()
    }

    #[derive(Serialize)]
    struct Line {
        debit: u64,
        credit: u64,
    }

    mod later {
        #[derive(serde::Serialize)]
        pub(super) struct Line {
            pub(super) credit: u64,
            pub(super) debit: u64,
        }
    }

    #[derive(Serialize)]
    enum Kind {
        A,
        B,
        C(u8),
        D(u8, u8),
        E { x: u8 },
    }

    #[test]
    fn no_two_values_are_one() {
        let all = [
            of(()),
            of(0_u8),
            of(0_u16),
            of(0_u32),
            of(0_u64),
            of(0_u128),
            of(0_i8),
            of(0_i64),
            of(1_i64),
            of(false),
            of(true),
            of('0'),
            of("0"),
            of(""),
            of(0.0),
            of(-0.0),
            of(f64::INFINITY),
            of(f64::NEG_INFINITY),
            of(f64::NAN),
            of(0.0_f32),
            of(None::<u8>),
            of(Some(None::<u8>)),
            of(Some(Some(0_u8))),
            of(Some(())),
            of(Some(0_u8)),
            of((0_u8,)),
            of((0_u8, 1_u8)),
            of((1_u8, 0_u8)),
            of(((0_u8, 1_u8), 2_u8)),
            of((0_u8, (1_u8, 2_u8))),
            of(vec![0_u8]),
            of(vec![0_u8, 0]),
            of(vec![0_u8, 1]),
            of(vec![vec![0_u8, 1]]),
            of(vec![vec![0_u8], vec![1]]),
            of(vec![vec![0_u8], vec![1], vec![]]),
            of(Vec::<u8>::new()),
            of(BTreeMap::<u8, u8>::new()),
            of(BTreeMap::from([(0_u8, 1_u8)])),
            of(BTreeMap::from([(1_u8, 0_u8)])),
            of(BTreeMap::from([(0_u8, 1_u8), (1, 0)])),
            of(BTreeMap::from([(0_u8, 0_u8), (1, 1)])),
            of(Kind::A),
            of(Kind::B),
            of(Kind::C(0)),
            of(Kind::D(0, 0)),
            of(Kind::E { x: 0 }),
            of(Line { debit: 5, credit: 5 }),
            of(Line { debit: 5, credit: 6 }),
            of(Line { debit: 6, credit: 5 }),
            of(later::Line { debit: 5, credit: 5 }),
            of(later::Line { debit: 5, credit: 6 }),
            of(vec![Some(Line { debit: 5, credit: 5 })]),
            of(vec![Some(later::Line { debit: 5, credit: 5 })]),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_hash_map_is_the_same_however_it_is_made() {
        let set = |numbers: &[u32]| numbers.iter().copied().collect::<HashSet<_>>();
        let map = |numbers: &[u32]| numbers.iter().map(|n| (*n, set(&[*n, n + 1]))).collect::<HashMap<_, _>>();
        let (mut numbers, before) = ((0..100).collect::<Vec<_>>(), map(&(0..100).collect::<Vec<_>>()));
        numbers.reverse();
        assert_eq!(of(map(&numbers)), of(&before));
        assert_ne!(of(map(&numbers[1..])), of(before));
    }

    #[test]
    fn names_of_types_do_not_count_and_forms_for_people_do() {
        #[derive(Serialize)]
        #[serde(rename = "Another")]
        struct Renamed {
            debit: u64,
            credit: u64,
        }
        assert_eq!(of(Renamed { debit: 1, credit: 2 }), of(Line { debit: 1, credit: 2 }));
        let home = std::net::IpAddr::from([127, 0, 0, 1]);
        assert_ne!(value_fingerprint(&home, true).unwrap(), of(home));
        assert_eq!(value_fingerprint(&home, true).unwrap(), of("127.0.0.1"));
    }

    #[test]
    fn what_serialize_refuses_is_an_error() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: ser::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(ser::Error::custom("not today"))
            }
        }
        assert_eq!(value_fingerprint(&vec![Refuses], false).unwrap_err().to_string(), "not today");
    }
}
