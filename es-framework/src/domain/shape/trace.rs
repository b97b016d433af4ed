//! Finds out what serde asks for: reads a type again and again from made-up values and writes down the questions.
//!
//! Each place of the type is a [`Slot`]. In one pass an enum gives one variant, an option something or nothing, a sequence one
//! element or none; the next pass takes what the last one left out, until nothing new is learnt. A value that the type refuses
//! is replaced by another at the next pass. A type that is met inside itself becomes a reference to the outer one.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, Visitor};

/// More places than this are not looked at.
const MAX_SLOTS: usize = 16_384;
/// Nor is anything nested deeper.
const MAX_DEPTH: usize = 64;
/// Enough for an enum with that many variants; each pass is short.
const MAX_PASSES: usize = 20_000;
/// How many values are tried before a type counts as one that refuses all: one more than the longest list of values.
const MAX_REFUSALS: usize = 24;

const INTEGERS: [u8; 8] = [0, 1, 2, 7, 10, 12, 24, 100];
const CHARS: [char; 4] = ['a', 'A', '0', ' '];
const TEXTS: [&str; 22] = [
    "",
    "a",
    "A",
    "0",
    "1",
    "00",
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00",
    "1970-01-01 00:00:00",
    "1970-01-01",
    "00:00:00",
    "127.0.0.1",
    "::1",
    "127.0.0.1:80",
    "[::1]:80",
    "00000000-0000-0000-0000-000000000000",
    "a@example.com",
    "https://example.com/",
    "1.0.0",
    "en",
    "USD",
    "+00:00",
];
const BYTES: [&[u8]; 5] = [&[], &[0], &[0; 4], &[0; 16], &[0; 32]];

pub(super) type SlotId = usize;

/// One place of a type.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// How many values were refused.
    refusals: usize,
    /// Nothing more can be learnt here; cached, because it never becomes untrue.
    done: Cell<bool>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Unknown,
    /// A value without parts, by its name.
    Plain(&'static str),
    Unit,
    Option(SlotId),
    Seq(SlotId),
    Map(SlotId, SlotId),
    Newtype(SlotId),
    Tuple {
        len: usize,
        parts: Vec<SlotId>,
    },
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
    /// The type so many levels further out.
    Back {
        levels: usize,
        target: SlotId,
    },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) slot: SlotId,
    /// Another name of a field that is there already.
    pub(super) is_alias: bool,
    /// To be given first, so that the aliases of the field are found out to be such.
    goes_first: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) slot: SlotId,
    /// How often it was given.
    tries: usize,
}

/// All places of a type, the outermost first.
pub(super) fn trace<T: DeserializeOwned>(human_readable: bool) -> Vec<Slot> {
    let trace = Trace {
        slots: RefCell::default(),
        levels: RefCell::default(),
        depth: Cell::new(0),
        learnt: Cell::new(0),
        human_readable,
    };
    let root = trace.new_slot().unwrap_or_default();
    // So many passes in a row may teach nothing: every variant can once be chosen in vain.
    let mut idle = 0;
    for _ in 0..MAX_PASSES {
        let before = trace.learnt.get();
        // A type's own code may panic at values it never expected.
        let pass = catch_unwind(AssertUnwindSafe(|| {
            trace.levels.borrow_mut().clear();
            trace.depth.set(0);
            let tracer = Tracer { trace: &trace, slot: root, salt: 0, finishing: false };
            // What is learnt is in the slots, whether the pass came to its end or not.
            drop(tracer.give(root, |tracer| T::deserialize(tracer)));
        }));
        idle = if trace.learnt.get() == before { idle + 1 } else { 0 };
        if pass.is_err() || trace.is_done(root) || idle > trace.variants() {
            break;
        }
    }
    trace.slots.into_inner()
}

struct Trace {
    slots: RefCell<Vec<Slot>>,
    /// The types being read, the outermost first, by the name of their visitor, with their slots.
    levels: RefCell<Vec<(&'static str, SlotId)>>,
    depth: Cell<usize>,
    /// Counts what was learnt.
    learnt: Cell<usize>,
    human_readable: bool,
}

impl Trace {
    fn new_slot(&self) -> Result<SlotId, Refused> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= MAX_SLOTS {
            return Err(Refused::KNOWN);
        }
        slots.push(Slot { kind: Kind::Unknown, refusals: 0, done: Cell::new(false) });
        Ok(slots.len() - 1)
    }

    fn with<R>(&self, slot: SlotId, read: impl FnOnce(&Slot) -> R) -> Result<R, Refused> {
        self.slots.borrow().get(slot).map(read).ok_or(Refused::KNOWN)
    }

    fn learn(&self, slot: SlotId, write: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            write(slot);
        }
        self.learnt.set(self.learnt.get() + 1);
    }

    /// The number of variants seen so far.
    fn variants(&self) -> usize {
        let count = |slot: &Slot| match &slot.kind {
            Kind::Enum(variants) => variants.len(),
            _ => 0,
        };
        self.slots.borrow().iter().map(count).sum()
    }

    /// Whether nothing more can be learnt in a place.
    fn is_done(&self, slot: SlotId) -> bool {
        let slots = self.slots.borrow();
        let Some(slot) = slots.get(slot) else { return true };
        if slot.done.get() {
            return true;
        }
        let done = match &slot.kind {
            Kind::Unknown => slot.refusals > MAX_REFUSALS,
            Kind::Plain(_) | Kind::Unit | Kind::Back { .. } => true,
            Kind::Option(inner) | Kind::Seq(inner) | Kind::Newtype(inner) => self.is_done(*inner),
            Kind::Map(key, value) => self.is_done(*key) && self.is_done(*value),
            Kind::Tuple { len, parts } => parts.len() == *len && parts.iter().all(|part| self.is_done(*part)),
            Kind::Struct(fields) => fields.iter().all(|field| field.is_alias || self.is_done(field.slot)),
            Kind::Enum(variants) => variants.iter().all(|variant| self.is_done(variant.slot)),
        };
        slot.done.set(done);
        done
    }

    /// Whether a place cannot be given a value, as far as is known.
    fn is_dead(&self, slot: SlotId) -> bool {
        let slots = self.slots.borrow();
        let Some(slot) = slots.get(slot) else { return true };
        slot.refusals > MAX_REFUSALS
            || match &slot.kind {
                Kind::Back { .. } => true,
                Kind::Newtype(inner) => self.is_dead(*inner),
                Kind::Tuple { parts, .. } => parts.iter().any(|part| self.is_dead(*part)),
                Kind::Struct(fields) => fields.iter().any(|field| !field.is_alias && self.is_dead(field.slot)),
                Kind::Enum(variants) => variants.iter().all(|variant| self.is_dead(variant.slot)),
                Kind::Unknown | Kind::Plain(_) | Kind::Unit | Kind::Option(_) | Kind::Seq(_) | Kind::Map(..) => false,
            }
    }
}

/// A pass cannot go on.
#[derive(Debug)]
struct Refused {
    /// The place whose value was refused has taken note.
    is_known: bool,
    /// A field that was given twice, by its first name.
    duplicate: Option<&'static str>,
}

impl Refused {
    const KNOWN: Self = Self { is_known: true, duplicate: None };
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the made-up value was refused")
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self { is_known: false, duplicate: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { is_known: false, duplicate: Some(field) }
    }
}

/// Answers the questions of one place.
#[derive(Clone, Copy)]
struct Tracer<'t> {
    trace: &'t Trace,
    slot: SlotId,
    /// Which of the made-up values to give: the number of refusals here and further out.
    salt: usize,
    /// Gives a value by what is known already and learns nothing: below a reference to an outer type.
    finishing: bool,
}

impl Tracer<'_> {
    /// Gives a value to a place; if it is refused, the next pass gives another.
    fn give<R>(self, slot: SlotId, ask: impl FnOnce(Self) -> Result<R, Refused>) -> Result<R, Refused> {
        let refusals = self.trace.with(slot, |slot| slot.refusals)?;
        let depth = self.trace.depth.get();
        if depth >= MAX_DEPTH {
            if !self.finishing && refusals <= MAX_REFUSALS {
                self.trace.learn(slot, |slot| slot.refusals = MAX_REFUSALS + 1);
            }
            return Err(Refused::KNOWN);
        }
        self.trace.depth.set(depth + 1);
        let given = ask(Self { slot, salt: self.salt + refusals, ..self });
        self.trace.depth.set(depth);
        given.map_err(|refused| {
            if !refused.is_known && !self.finishing && refusals <= MAX_REFUSALS {
                self.trace.learn(slot, |slot| slot.refusals += 1);
            }
            Refused::KNOWN
        })
    }

    fn value<T: Copy>(self, values: &[T]) -> Result<T, Refused> {
        values.get(self.salt % values.len().max(1)).copied().ok_or(Refused::KNOWN)
    }

    /// Notes a value without parts.
    fn plain(self, name: &'static str) -> Result<(), Refused> {
        self.note(|kind| matches!(kind, Kind::Plain(known) if *known == name), || Ok(Kind::Plain(name)))
    }

    /// Notes what is asked for, at the first time; a type that asks for something else later has no shape.
    fn note(
        self,
        is_same: impl FnOnce(&Kind) -> bool,
        make: impl FnOnce() -> Result<Kind, Refused>,
    ) -> Result<(), Refused> {
        let known = self.trace.with(self.slot, |slot| match &slot.kind {
            Kind::Unknown => None,
            kind => Some(is_same(kind)),
        })?;
        match known {
            Some(true) => Ok(()),
            None if !self.finishing => {
                let kind = make()?;
                self.trace.learn(self.slot, |slot| slot.kind = kind);
                Ok(())
            }
            _ => Err(Refused::KNOWN),
        }
    }

    /// Reads something with parts: notes it, or finds it to be an outer type again and gives that a value.
    fn level<V, R>(
        self,
        is_same: impl FnOnce(&Kind) -> bool,
        make: impl FnOnce() -> Result<Kind, Refused>,
        read: impl FnOnce(Self) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        if self.finishing {
            return read(self.followed()?);
        }
        let name = type_name::<V>();
        let outer = {
            let levels = self.trace.levels.borrow();
            let found = levels.iter().rposition(|(outer, _)| *outer == name);
            found.and_then(|at| levels.get(at).map(|(_, target)| (levels.len() - at, *target)))
        };
        if let Some((levels, target)) = outer {
            self.note(|kind| matches!(kind, Kind::Back { .. }), || Ok(Kind::Back { levels, target }))?;
            return read(Self { finishing: true, ..self }.followed()?);
        }
        self.note(is_same, make)?;
        self.trace.levels.borrow_mut().push((name, self.slot));
        let given = read(self);
        self.trace.levels.borrow_mut().pop();
        given
    }

    /// The place that a reference stands for.
    fn followed(self) -> Result<Self, Refused> {
        let target = self.trace.with(self.slot, |slot| match slot.kind {
            Kind::Back { target, .. } => target,
            _ => self.slot,
        })?;
        Ok(Self { slot: target, ..self })
    }

    /// Whether a part is given this time: while there is something to learn about it.
    fn wants(self, part: SlotId) -> bool {
        !self.finishing && !self.trace.is_done(part)
    }

    fn one_part(self) -> Result<SlotId, Refused> {
        self.trace.with(self.slot, |slot| match slot.kind {
            Kind::Option(part) | Kind::Seq(part) | Kind::Newtype(part) => Ok(part),
            _ => Err(Refused::KNOWN),
        })?
    }

    /// The next part of a tuple.
    fn part(self, index: usize) -> Result<SlotId, Refused> {
        let known = self.trace.with(self.slot, |slot| match &slot.kind {
            Kind::Tuple { parts, .. } => parts.get(index).copied(),
            _ => None,
        })?;
        if let Some(known) = known {
            return Ok(known);
        }
        if self.finishing {
            return Err(Refused::KNOWN);
        }
        let part = self.trace.new_slot()?;
        self.trace.learn(self.slot, |slot| {
            if let Kind::Tuple { parts, .. } = &mut slot.kind {
                parts.push(part);
            }
        });
        Ok(part)
    }

    /// The fields of a struct in the order they are given: first what is to be learnt, last what will be refused.
    fn fields(self) -> Result<Vec<(&'static str, SlotId)>, Refused> {
        let mut fields = self.trace.with(self.slot, |slot| match &slot.kind {
            Kind::Struct(fields) => fields
                .iter()
                .filter(|field| !field.is_alias)
                .map(|field| (!field.goes_first, field.name, field.slot))
                .collect(),
            _ => Vec::new(),
        })?;
        fields.sort_by_key(|(later, _, slot)| (*later, self.trace.is_dead(*slot), self.trace.is_done(*slot)));
        // Taken from the end.
        Ok(fields.into_iter().rev().map(|(_, name, slot)| (name, slot)).collect())
    }

    /// The variant that is given this time.
    fn variant(self) -> Result<(&'static str, SlotId), Refused> {
        let slots = self.trace.slots.borrow();
        let Some(Kind::Enum(variants)) = slots.get(self.slot).map(|slot| &slot.kind) else {
            return Err(Refused::KNOWN);
        };
        let open = variants.iter().enumerate().filter(|(_, variant)| self.wants(variant.slot));
        let chosen = open
            .min_by_key(|(_, variant)| variant.tries)
            .map(|(index, variant)| (Some(index), variant.name, variant.slot));
        let alive = || {
            let is_known = |variant: &&Variant| self.trace.is_done(variant.slot) && !self.trace.is_dead(variant.slot);
            variants.iter().find(is_known).map(|variant| (None, variant.name, variant.slot))
        };
        let (open, name, slot) = chosen.or_else(alive).ok_or(Refused::KNOWN)?;
        drop(slots);
        if let Some(index) = open
            && let Some(Slot { kind: Kind::Enum(variants), .. }) = self.trace.slots.borrow_mut().get_mut(self.slot)
            && let Some(variant) = variants.get_mut(index)
        {
            variant.tries += 1;
        }
        Ok((name, slot))
    }

    fn read_tuple<'de, V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Tuple { len: known, .. } if *known == len),
            || Ok(Kind::Tuple { len, parts: Vec::new() }),
            |tracer| visitor.visit_seq(Tuple { tracer, next: 0, len }),
        )
    }

    fn read_struct<'de, V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let make = || {
            let field = |name: &&'static str| {
                Ok(Field { name, slot: self.trace.new_slot()?, is_alias: false, goes_first: false })
            };
            Ok(Kind::Struct(names.iter().map(field).collect::<Result<_, _>>()?))
        };
        let is_same = |kind: &Kind| matches!(kind, Kind::Struct(fields) if fields.len() == names.len());
        self.level::<V, _>(is_same, make, |tracer| {
            let mut last = None;
            let fields = tracer.fields()?;
            let given = visitor.visit_map(Struct { tracer, left: fields, value: None, last: &mut last });
            if let (Err(Refused { duplicate: Some(first_name), .. }), Some(last), false) =
                (&given, last, tracer.finishing)
            {
                tracer.note_alias(last, first_name);
                return Err(Refused::KNOWN);
            }
            given
        })
    }

    /// A field was there already under another name: either this name is the alias, or the field's own name comes too late.
    fn note_alias(self, given: &'static str, first_name: &'static str) {
        self.trace.learn(self.slot, |slot| {
            if let Kind::Struct(fields) = &mut slot.kind {
                for field in fields.iter_mut().filter(|field| field.name == given) {
                    field.is_alias = given != first_name || field.goes_first;
                    field.goes_first = given == first_name;
                }
            }
        });
    }
}

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
                    tracer.give(part, |tracer| visitor.visit_some(tracer))
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
                let wanted = tracer.wants(key) || tracer.wants(value);
                visitor.visit_map(Map { tracer, key: wanted.then_some(key), value })
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
            Ok(Kind::Enum(variants.iter().map(variant).collect::<Result<_, _>>()?))
        };
        let is_same = |kind: &Kind| matches!(kind, Kind::Enum(known) if known.len() == variants.len());
        self.level::<V, _>(is_same, make, |tracer| visitor.visit_enum(Enum { tracer }))
    }
}

/// One element or none.
struct Seq<'t> {
    tracer: Tracer<'t>,
    part: Option<SlotId>,
}

impl<'de> de::SeqAccess<'de> for Seq<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(part) = self.part.take() else { return Ok(None) };
        self.tracer.give(part, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.part.is_some()))
    }
}

/// One entry or none.
struct Map<'t> {
    tracer: Tracer<'t>,
    key: Option<SlotId>,
    value: SlotId,
}

impl<'de> de::MapAccess<'de> for Map<'_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some(key) = self.key.take() else { return Ok(None) };
        self.tracer.give(key, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.give(self.value, |tracer| seed.deserialize(tracer))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.key.is_some()))
    }
}

/// All parts of a tuple, one after the other.
struct Tuple<'t> {
    tracer: Tracer<'t>,
    next: usize,
    len: usize,
}

impl<'de> de::SeqAccess<'de> for Tuple<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.next >= self.len {
            return Ok(None);
        }
        let part = self.tracer.part(self.next)?;
        self.next += 1;
        self.tracer.give(part, |tracer| seed.deserialize(tracer)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.len - self.next)
    }
}

/// The fields of a struct, by name.
struct Struct<'t, 'a> {
    tracer: Tracer<'t>,
    /// What is still to be given, the next one last.
    left: Vec<(&'static str, SlotId)>,
    value: Option<SlotId>,
    /// The name that was given last and not yet asked a value for.
    last: &'a mut Option<&'static str>,
}

impl<'de> de::MapAccess<'de> for Struct<'_, '_> {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        let Some((name, slot)) = self.left.pop() else { return Ok(None) };
        self.value = Some(slot);
        *self.last = Some(name);
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        *self.last = None;
        let slot = self.value.take().ok_or(Refused::KNOWN)?;
        self.tracer.give(slot, |tracer| seed.deserialize(tracer))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// One variant of an enum.
struct Enum<'t> {
    tracer: Tracer<'t>,
}

impl<'de, 't> de::EnumAccess<'de> for Enum<'t> {
    type Error = Refused;
    type Variant = Payload<'t>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Payload<'t>), Refused> {
        let (name, slot) = self.tracer.variant()?;
        let chosen = seed.deserialize(StrDeserializer::new(name))?;
        Ok((chosen, Payload { tracer: self.tracer, slot }))
    }
}

/// What a variant holds.
struct Payload<'t> {
    tracer: Tracer<'t>,
    slot: SlotId,
}

impl<'de> de::VariantAccess<'de> for Payload<'_> {
    type Error = Refused;

    fn unit_variant(self) -> Result<(), Refused> {
        self.tracer.give(self.slot, |tracer| tracer.note(|kind| matches!(kind, Kind::Unit), || Ok(Kind::Unit)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        self.tracer.give(self.slot, |tracer| {
            tracer.level::<T, _>(
                |kind| matches!(kind, Kind::Newtype(_)),
                || Ok(Kind::Newtype(tracer.trace.new_slot()?)),
                |tracer| tracer.give(tracer.one_part()?, |tracer| seed.deserialize(tracer)),
            )
        })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.tracer.give(self.slot, |tracer| tracer.read_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.tracer.give(self.slot, |tracer| tracer.read_struct(fields, visitor))
    }
}

/// A sequence or map of nothing.
struct Nothing;

impl<'de> de::SeqAccess<'de> for Nothing {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, Refused> {
        Ok(None)
    }
}

impl<'de> de::MapAccess<'de> for Nothing {
    type Error = Refused;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, Refused> {
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<T::Value, Refused> {
        Err(Refused::KNOWN)
    }
}
