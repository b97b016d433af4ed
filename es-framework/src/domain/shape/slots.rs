//! What is known of a type: its places, and what each of them holds.

use std::cell::Cell;

pub(super) type SlotId = usize;

/// One place of a type.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// How many values were refused.
    pub(super) refusals: usize,
    /// How often a value failed that could have been left out, without anything being learnt.
    pub(super) in_vain: usize,
    /// It is left out from now on, wherever it can be.
    pub(super) given_up: bool,
    /// It was asked for different things at different times, so it has no shape of its own.
    pub(super) changes: bool,
    /// Nothing more can be learnt here; cached, because it never becomes untrue.
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
    pub(super) goes_first: bool,
    /// It goes first and the name that was given before it has not been found out to be an alias.
    pub(super) awaits_alias: bool,
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) slot: SlotId,
    /// How often it was given.
    pub(super) tries: usize,
}

/// How the numbers of an enum's variants, which compact codecs store, belong to their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Not asked yet.
    Unknown,
    /// The last name's number was refused: there are fewer numbers than names, or none.
    LastRefused,
    /// In the order of the names, as far as can be known.
    InOrder,
    /// Some of the names are aliases, and it cannot be known which.
    Aliased,
}
