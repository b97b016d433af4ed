//! What is known about a type: its places, and what each of them holds.

use std::cell::Cell;

pub(super) type SlotId = usize;

/// One place in a type.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// How many values were refused.
    pub(super) refusals: usize,
    /// How many times a value that could have been left out failed without anything being learnt.
    pub(super) in_vain: usize,
    /// From here on it is left out wherever possible.
    pub(super) given_up: bool,
    /// Different things were requested from it at different times, so it has no single shape.
    pub(super) changes: bool,
    /// Nothing more can be learnt here; cached, because this never changes back.
    pub(super) done: Cell<bool>,
}

impl Slot {
    pub(super) fn unknown() -> Self {
        Self { kind: Kind::Unknown, refusals: 0, in_vain: 0, given_up: false, changes: false, done: Cell::new(false) }
    }
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
    Enum {
        variants: Vec<Variant>,
        numbers: Numbers,
    },
    /// The type `levels` levels further out.
    Back {
        levels: usize,
        target: SlotId,
    },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) slot: SlotId,
    /// Another name for a field that is already there.
    pub(super) is_alias: bool,
    /// Given first, so that the field's aliases are recognized as such.
    pub(super) goes_first: bool,
    /// It goes first, but the name that was given before it has not been recognized as an alias yet.
    pub(super) awaits_alias: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) slot: SlotId,
    /// How many times it was given.
    pub(super) tries: usize,
}

/// How the numbers of an enum's variants, which compact codecs store, map to their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Not tested yet.
    Unknown,
    /// The last name's number was refused: there are fewer numbers than names, or none.
    LastRefused,
    /// In the order of the names, as far as can be determined.
    InOrder,
    /// Some of the names are aliases, and it cannot be determined which.
    Aliased,
}
