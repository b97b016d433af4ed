//! Answers serde's requests at one place, and records them.

use std::any::type_name;
use std::fmt;

use serde::de::{self, Visitor};

use super::access::{Struct, Tuple};
use super::slots::{Field, Kind, Numbers, Slot, SlotId};
use super::trace::{MAX_DEPTH, MAX_REFUSALS, Trace};

/// A pass cannot continue.
#[derive(Debug)]
pub(super) struct Refused {
    /// The place of the refused value has already recorded it.
    is_known: bool,
    /// A field that was given twice, by its first name.
    duplicate: Option<&'static str>,
}

impl Refused {
    pub(super) const KNOWN: Self = Self { is_known: true, duplicate: None };
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

/// The variant to give.
pub(super) struct Chosen {
    pub(super) by: VariantBy,
    pub(super) slot: SlotId,
}

/// How the variant is identified.
pub(super) enum VariantBy {
    Name(&'static str),
    Number(u32),
}

/// Answers the requests at one place.
#[derive(Clone, Copy)]
pub(super) struct Tracer<'t> {
    pub(super) trace: &'t Trace,
    pub(super) slot: SlotId,
    /// Which of the made-up values to give: the number of refusals here and further out.
    pub(super) salt: usize,
    /// Gives a value from what is already known and learns nothing: used below a reference to an outer type.
    pub(super) finishing: bool,
}

impl Tracer<'_> {
    /// Gives a value to a place; if it is refused, the next pass gives another.
    pub(super) fn give<R>(self, slot: SlotId, ask: impl FnOnce(Self) -> Result<R, Refused>) -> Result<R, Refused> {
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

    /// Gives a value to a part that could be left out. A part that keeps failing is left out from here on.
    pub(super) fn offer<R>(self, part: SlotId, ask: impl FnOnce(Self) -> Result<R, Refused>) -> Result<R, Refused> {
        self.offering(&[part], || self.give(part, ask))
    }

    pub(super) fn offering<R>(self, parts: &[SlotId], ask: impl FnOnce() -> Result<R, Refused>) -> Result<R, Refused> {
        let before = self.trace.learnt.get();
        let given = ask();
        if given.is_err() && !self.finishing && self.trace.learnt.get() == before {
            self.trace.note_in_vain(parts);
        }
        given
    }

    pub(super) fn value<T: Copy>(self, values: &[T]) -> Result<T, Refused> {
        values.get(self.salt % values.len().max(1)).copied().ok_or(Refused::KNOWN)
    }

    /// Records a value without parts.
    pub(super) fn plain(self, name: &'static str) -> Result<(), Refused> {
        self.note(|kind| matches!(kind, Kind::Plain(known) if *known == name), || Ok(Kind::Plain(name)))
    }

    /// Records the first request. A place that requests something else later, such as the content of an adjacently
    /// tagged enum, has no single shape: it becomes `any`.
    pub(super) fn note(
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
            Some(false) if !self.finishing => {
                if self.trace.with(self.slot, |slot| !slot.changes)? {
                    self.trace.learn(self.slot, |slot| (slot.kind, slot.changes) = (Kind::Plain("any"), true));
                }
                Err(Refused::KNOWN)
            }
            _ => Err(Refused::KNOWN),
        }
    }

    /// Reads something with parts: records it, or if it turns out to be an outer type again, gives a value for that.
    pub(super) fn level<V, R>(
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

    /// The place that a reference points to.
    fn followed(self) -> Result<Self, Refused> {
        let target = self.trace.with(self.slot, |slot| match slot.kind {
            Kind::Back { target, .. } => target,
            _ => self.slot,
        })?;
        Ok(Self { slot: target, ..self })
    }

    /// Whether a part is given in this pass: as long as there is something to learn about it.
    pub(super) fn wants(self, part: SlotId) -> bool {
        !self.finishing && !self.trace.is_done(part)
    }

    pub(super) fn one_part(self) -> Result<SlotId, Refused> {
        self.trace.with(self.slot, |slot| match slot.kind {
            Kind::Option(part) | Kind::Seq(part) | Kind::Newtype(part) => Ok(part),
            _ => Err(Refused::KNOWN),
        })?
    }

    /// The next part of a tuple.
    pub(super) fn part(self, index: usize) -> Result<SlotId, Refused> {
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

    /// The fields of a struct in the order they are given: first those with something to learn, last those that will be
    /// refused.
    pub(super) fn fields(self) -> Result<Vec<(&'static str, SlotId)>, Refused> {
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

    /// The variant to give in this pass.
    pub(super) fn variant(self) -> Result<Chosen, Refused> {
        let mut slots = self.trace.slots.borrow_mut();
        let Some(Slot { kind: Kind::Enum { variants, numbers }, .. }) = slots.get_mut(self.slot) else {
            return Err(Refused::KNOWN);
        };
        // The numbers are tested first: the last one, and if that is refused, the first one.
        let asked = match numbers {
            Numbers::Unknown if !self.finishing => variants.len().checked_sub(1),
            Numbers::LastRefused if !self.finishing => Some(0),
            _ => None,
        };
        if let Some((index, variant)) = asked.and_then(|index| Some((index, variants.get_mut(index)?))) {
            variant.tries += 1;
            let by = VariantBy::Number(u32::try_from(index).map_err(|_| Refused::KNOWN)?);
            return Ok(Chosen { by, slot: variant.slot });
        }
        let all: Vec<_> = variants.iter().map(|variant| (variant.name, variant.slot, variant.tries)).collect();
        drop(slots);
        let is_open = |(_, (_, slot, _)): &(usize, &(_, SlotId, _))| self.wants(*slot);
        let open = all.iter().enumerate().filter(is_open).min_by_key(|(_, (.., tries))| *tries);
        if let Some((index, _)) = open
            && let Some(Slot { kind: Kind::Enum { variants, .. }, .. }) =
                self.trace.slots.borrow_mut().get_mut(self.slot)
            && let Some(variant) = variants.get_mut(index)
        {
            variant.tries += 1;
        }
        let is_known = |slot: SlotId| self.trace.is_done(slot) && !self.trace.is_dead(slot);
        let chosen = open.map(|(_, variant)| variant).or_else(|| all.iter().find(|(_, slot, _)| is_known(*slot)));
        chosen.map(|(name, slot, _)| Chosen { by: VariantBy::Name(name), slot: *slot }).ok_or(Refused::KNOWN)
    }

    /// Records whether the number of a variant was accepted.
    pub(super) fn note_number(self, is_taken: bool) {
        self.trace.learn(self.slot, |slot| {
            if let Kind::Enum { numbers, .. } = &mut slot.kind {
                *numbers = match (*numbers, is_taken) {
                    (Numbers::Unknown, false) => Numbers::LastRefused,
                    (Numbers::LastRefused, true) => Numbers::Aliased,
                    _ => Numbers::InOrder,
                };
            }
        });
    }

    pub(super) fn read_tuple<'de, V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.level::<V, _>(
            |kind| matches!(kind, Kind::Tuple { len: known, .. } if *known == len),
            || Ok(Kind::Tuple { len, parts: Vec::new() }),
            |tracer| visitor.visit_seq(Tuple { tracer, next: 0, len }),
        )
    }

    pub(super) fn read_struct<'de, V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let make = || {
            let field = |name: &&'static str| {
                Ok(Field {
                    name,
                    slot: self.trace.new_slot()?,
                    is_alias: false,
                    goes_first: false,
                    awaits_alias: false,
                })
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

    /// A field was already given under another name: either this name is the alias, or the field's own name came too
    /// late.
    fn note_alias(self, given: &'static str, first_name: &'static str) {
        self.trace.learn(self.slot, |slot| {
            if let Kind::Struct(fields) = &mut slot.kind {
                for field in fields.iter_mut().filter(|field| field.name == given) {
                    field.is_alias = given != first_name || field.goes_first;
                    field.goes_first = given == first_name;
                    field.awaits_alias = field.goes_first;
                }
                for field in fields.iter_mut().filter(|field| given != first_name && field.name == first_name) {
                    field.awaits_alias = false;
                }
            }
        });
    }
}
