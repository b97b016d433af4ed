//! A crate that forbids what it can: a derive that switches a lint off would not compile here, and one that needs to would
//! not either.
//!
//! Not in the list is what serde's own derives switch off (`non_camel_case_types`, `non_upper_case_globals`,
//! `unused_attributes`, `unused_extern_crates`, `unused_qualifications`).
#![forbid(
    absolute_paths_not_starting_with_crate,
    ambiguous_negative_literals,
    dead_code,
    deprecated,
    elided_lifetimes_in_paths,
    explicit_outlives_requirements,
    let_underscore_drop,
    macro_use_extern_crate,
    meta_variable_misuse,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    non_snake_case,
    path_statements,
    private_bounds,
    private_interfaces,
    redundant_imports,
    redundant_lifetimes,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unit_bindings,
    unreachable_code,
    unreachable_patterns,
    unreachable_pub,
    unsafe_code,
    unstable_features,
    unused_assignments,
    unused_import_braces,
    unused_imports,
    unused_lifetimes,
    unused_macro_rules,
    unused_must_use,
    unused_mut,
    unused_parens,
    unused_results,
    unused_unsafe,
    unused_variables,
    variant_size_differences
)]

use std::borrow::Cow;
use std::fmt;

use es_framework::{Aggregate, Apply, Command, Context, Envelope, Event, Scenario, View, commands};
use serde::{Deserialize, Serialize};

use crate::events::Text;
use crate::support::round_trip;

/// Events.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(codec = Text)]
pub(crate) enum LintedEvent {
    /// A struct.
    #[es(name = "linted.struct", version = 2, alias = "linted.alias", from(version = 1, type = u8))]
    Struct {
        /// A field.
        text: Cow<'static, str>,
    },
    /// A tuple.
    #[es(name = "linted.tuple", stream = "linted-{0}")]
    Tuple(#[es(tag = "number")] u8, String),
    /// A newtype.
    #[es(name = "linted.newtype")]
    Newtype(u8),
    /// A unit.
    #[es(name = "linted.unit")]
    Unit,
}

impl From<u8> for LintedEvent {
    fn from(number: u8) -> Self {
        Self::Newtype(number)
    }
}

/// One event with parameters.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(name = "linted.generic", codec = Text)]
pub(crate) struct LintedGeneric<'a, T: fmt::Debug> {
    /// A field.
    pub(crate) value: T,
    /// Another.
    pub(crate) text: Cow<'a, str>,
}

/// Both.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[es(join)]
pub(crate) enum LintedJoined {
    /// The first.
    First(LintedEvent),
    /// The second.
    Second(LintedGeneric<'static, u8>),
}

/// None.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Event)]
pub(crate) enum LintedNothing {}

/// A state.
#[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
#[es(category = "linted", event = LintedEvent, snapshot(every = 10, codec = Text))]
pub(crate) struct Linted {
    /// A field.
    number: u8,
}

impl Apply for Linted {
    fn apply(&mut self, event: &LintedEvent, _: Envelope<'_>) {
        if let LintedEvent::Newtype(number) = event {
            self.number = *number;
        }
    }
}

/// A view.
#[derive(Debug, Default, Clone, Copy, View)]
#[es(event = LintedEvent, tags(number: u8), tags(text))]
pub(crate) struct LintedView {
    /// A field.
    number: u8,
}

impl Apply for LintedView {
    fn apply(&mut self, _: &LintedEvent, _: Envelope<'_>) {
        self.number += 1;
    }
}

/// A command.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Command)]
#[es(name = "linted.set")]
pub(crate) struct SetLinted {
    /// A field.
    number: u8,
}

/// Another.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, Command)]
#[es(name = "linted.clear")]
pub(crate) struct ClearLinted;

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

#[commands(error = Refused, enum = pub(crate) LintedCommand, derive(Debug, Clone, Copy))]
impl Linted {
    /// Sets.
    fn set(&self, command: &SetLinted, context: &Context<'_, Self>, most: &u8) -> Result<LintedEvent, Refused> {
        if command.number > *most || context.version().get() > 100 {
            return Err(Refused);
        }
        Ok(LintedEvent::Newtype(command.number + self.number))
    }

    /// Clears.
    fn clear(&self, _: &ClearLinted) -> Option<LintedEvent> {
        (self.number > 0).then_some(LintedEvent::Newtype(0))
    }
}

#[test]
fn generated_code_compiles_where_lints_are_forbidden() {
    let events = [
        LintedEvent::Struct { text: "x".into() },
        LintedEvent::Tuple(1, "x".into()),
        LintedEvent::Newtype(1),
        LintedEvent::Unit,
    ];
    for event in events {
        assert_eq!(round_trip(&LintedJoined::First(event.clone())), LintedJoined::First(event));
    }
    let generic = LintedGeneric { value: 1, text: "x".into() };
    assert_eq!(round_trip(&LintedJoined::Second(generic.clone())), LintedJoined::Second(generic));
    assert_eq!(LintedNothing::names().len(), 0);
    assert_eq!(LintedView::of(1, "x").query().unwrap().criteria().len(), 2);
    let linted = Scenario::<Linted>::new("x");
    assert_eq!(linted.when_with(&LintedCommand::from(SetLinted { number: 3 }), &2), Err(Refused));
    assert_eq!(linted.when_with(&SetLinted { number: 1 }, &2), Ok(vec![LintedEvent::Newtype(1)]));
    assert_eq!(linted.when(&ClearLinted), Ok(vec![]));
}
