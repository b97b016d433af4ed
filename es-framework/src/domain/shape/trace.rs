//! Finds out what serde asks for: reads a type again and again from made-up values and writes down the questions.
//!
//! Each place of the type is a [`Slot`]. In one pass an enum gives one variant, an option something or nothing, a sequence one
//! element or none; the next pass takes what the last one left out, until nothing new is learnt. A value that the type refuses
//! is replaced by another at the next pass; where all are refused and the value can be left out, it is, so that what stands
//! behind it is still reached. A type that is met inside itself becomes a reference to the outer one.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use super::samples::TEXTS;
use super::slots::{Kind, Slot, SlotId};
use super::tracer::{Refused, Tracer};

/// More places than this are not looked at.
const MAX_SLOTS: usize = 16_384;
/// Nor is anything nested deeper.
pub(super) const MAX_DEPTH: usize = 64;
/// Enough for an enum with that many variants; each pass is short.
const MAX_PASSES: usize = 20_000;
/// How many values are tried before a type counts as one that refuses all: one more than the longest list of values.
pub(super) const MAX_REFUSALS: usize = TEXTS.len() + 1;

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

pub(super) struct Trace {
    pub(super) slots: RefCell<Vec<Slot>>,
    /// The types being read, the outermost first, by the name of their visitor, with their slots.
    pub(super) levels: RefCell<Vec<(&'static str, SlotId)>>,
    pub(super) depth: Cell<usize>,
    /// Counts what was learnt.
    pub(super) learnt: Cell<usize>,
    pub(super) human_readable: bool,
}

impl Trace {
    pub(super) fn new_slot(&self) -> Result<SlotId, Refused> {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= MAX_SLOTS {
            return Err(Refused::KNOWN);
        }
        slots.push(Slot::unknown());
        Ok(slots.len() - 1)
    }

    pub(super) fn with<R>(&self, slot: SlotId, read: impl FnOnce(&Slot) -> R) -> Result<R, Refused> {
        self.slots.borrow().get(slot).map(read).ok_or(Refused::KNOWN)
    }

    pub(super) fn learn(&self, slot: SlotId, write: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            write(slot);
        }
        self.learnt.set(self.learnt.get() + 1);
    }

    /// The number of variants seen so far.
    pub(super) fn variants(&self) -> usize {
        let count = |slot: &Slot| match &slot.kind {
            Kind::Enum { variants, .. } => variants.len(),
            _ => 0,
        };
        self.slots.borrow().iter().map(count).sum()
    }

    /// Notes that parts failed and taught nothing. As every variant can once be chosen in vain, they are given up only
    /// after as many times.
    pub(super) fn note_in_vain(&self, parts: &[SlotId]) {
        let bound = self.variants();
        for part in parts {
            let tries = self.with(*part, |slot| slot.in_vain).unwrap_or_default();
            if tries < bound {
                if let Some(slot) = self.slots.borrow_mut().get_mut(*part) {
                    slot.in_vain += 1;
                }
            } else if self.with(*part, |slot| !slot.given_up).unwrap_or_default() {
                self.learn(*part, |slot| slot.given_up = true);
            }
        }
    }

    /// Whether nothing more can be learnt in a place.
    pub(super) fn is_done(&self, slot: SlotId) -> bool {
        let slots = self.slots.borrow();
        let Some(slot) = slots.get(slot) else { return true };
        if slot.done.get() || slot.given_up {
            return true;
        }
        let done = match &slot.kind {
            Kind::Unknown => slot.refusals > MAX_REFUSALS,
            Kind::Plain(_) | Kind::Unit | Kind::Back { .. } => true,
            Kind::Option(inner) | Kind::Seq(inner) | Kind::Newtype(inner) => self.is_done(*inner),
            Kind::Map(key, value) => self.is_done(*key) && self.is_done(*value),
            Kind::Tuple { len, parts } => parts.len() == *len && parts.iter().all(|part| self.is_done(*part)),
            Kind::Struct(fields) => {
                fields.iter().all(|field| field.is_alias || (!field.awaits_alias && self.is_done(field.slot)))
            }
            Kind::Enum { variants, .. } => variants.iter().all(|variant| self.is_done(variant.slot)),
        };
        slot.done.set(done);
        done
    }

    /// Whether a place cannot be given a value, as far as is known.
    pub(super) fn is_dead(&self, slot: SlotId) -> bool {
        let slots = self.slots.borrow();
        let Some(slot) = slots.get(slot) else { return true };
        slot.refusals > MAX_REFUSALS
            || slot.given_up
            || slot.changes
            || match &slot.kind {
                Kind::Back { .. } => true,
                Kind::Newtype(inner) => self.is_dead(*inner),
                Kind::Tuple { parts, .. } => parts.iter().any(|part| self.is_dead(*part)),
                Kind::Struct(fields) => fields.iter().any(|field| !field.is_alias && self.is_dead(field.slot)),
                Kind::Enum { variants, .. } => variants.iter().all(|variant| self.is_dead(variant.slot)),
                Kind::Unknown | Kind::Plain(_) | Kind::Unit | Kind::Option(_) | Kind::Seq(_) | Kind::Map(..) => false,
            }
    }
}
