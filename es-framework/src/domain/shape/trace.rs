//! Finds out what serde requests: deserializes a type repeatedly from made-up values and records the requests.
//!
//! Each place in the type is a [`Slot`]. In one pass an enum gets one variant, an option something or nothing, a
//! sequence one element or none. The next pass takes what the last one left out, until nothing new is learnt. A value
//! that the type refuses is replaced by another one in the next pass. If all are refused and the value can be left out,
//! it is, so that what follows it is still reached. A type that is found inside itself becomes a reference to the outer
//! one.
//!
//! For example, `struct A { kind: Kind, note: Option<u8> }` with `enum Kind { B(u8), C }` needs at least one pass for
//! each variant of `Kind`, and learns on the way that `note` holds a `u8`.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;

use super::samples::TEXTS;
use super::slots::{Kind, Slot, SlotId};
use super::tracer::{Refused, Tracer};

/// The maximum number of places that are examined.
const MAX_SLOTS: usize = 16_384;
/// The maximum depth to which they are examined.
pub(super) const MAX_DEPTH: usize = 64;
/// The maximum number of passes, enough for an enum with that many variants; each pass is short.
const MAX_PASSES: usize = 20_000;
/// The number of values tried before a type counts as refusing all of them: one more than the longest list of values.
pub(super) const MAX_REFUSALS: usize = TEXTS.len() + 1;

/// All places in a type, the outermost first.
pub(super) fn trace<T: DeserializeOwned>(human_readable: bool) -> Vec<Slot> {
    let trace = Trace {
        slots: RefCell::default(),
        levels: RefCell::default(),
        depth: Cell::new(0),
        learnt: Cell::new(0),
        human_readable,
    };
    let root = trace.new_slot().unwrap_or_default();
    // The number of passes in a row that taught nothing. There may be one for each variant, chosen in vain.
    let mut idle = 0;
    for _ in 0..MAX_PASSES {
        let before = trace.learnt.get();
        // A type's own code may panic on values it does not expect.
        let pass = catch_unwind(AssertUnwindSafe(|| {
            trace.levels.borrow_mut().clear();
            trace.depth.set(0);
            let tracer = Tracer { trace: &trace, slot: root, salt: 0, finishing: false };
            // What was learnt is in the slots, whether or not the pass ran to its end.
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

    /// Notes that parts failed and taught nothing. As every variant can be chosen in vain once, they are given up only
    /// after as many times as there are variants.
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

    /// Whether nothing more can be learnt about a place.
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
