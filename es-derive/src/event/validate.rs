//! Checks for mistakes that the parser accepts, such as names that no store could tell apart.

use quote::ToTokens;

use super::parse::{Input, Variant};
use crate::ctxt::Ctxt;
use crate::name::Name;
use crate::serde_attr::{Policy, SerdeKeys};
use crate::{borrowed, check};

const WHY: &str = "an event is stored as the fields of its variant, under the name given by `#[es(name = \"…\")]`";

/// The policy for serde's attributes on an enum of events.
pub(crate) const ON_ENUM: Policy = Policy {
    place: "an enum of events",
    stored: &["rename_all_fields", "deny_unknown_fields"],
    elsewhere: &["tag", "content", "untagged", "rename", "rename_all", "crate", "bound", "expecting"],
    why: WHY,
};

/// The policy for serde's attributes on a variant.
pub(crate) const ON_VARIANT: Policy = Policy {
    place: "a variant",
    stored: &["rename_all"],
    elsewhere: &["rename", "alias", "skip", "skip_serializing", "skip_deserializing", "other", "untagged", "bound"],
    why: WHY,
};

/// The policy for serde's attributes on a struct that is an event.
pub(crate) const ON_STRUCT: Policy = Policy {
    place: "an event struct",
    stored: &["rename_all", "deny_unknown_fields", "default"],
    elsewhere: &["tag", "rename", "crate", "bound", "expecting"],
    why: "it is stored as its fields, under the name given by `#[es(name = \"…\")]`",
};

pub(crate) fn check(ctxt: &mut Ctxt, event: &Input<'_>) {
    event.serde.check(ctxt, event.policy());
    let mut claims = Claims::default();
    for variant in &event.variants {
        variant.serde.check(ctxt, &ON_VARIANT);
        check_fields(ctxt, event, variant);
        check_keys(ctxt, variant);
        if let Some(stream) = &variant.stream {
            stream.check_fields(ctxt, variant);
        }
        claims.add(ctxt, variant);
    }
}

fn check_fields(ctxt: &mut Ctxt, event: &Input<'_>, variant: &Variant<'_>) {
    for field in variant.fields {
        SerdeKeys::of(&field.attrs).check_field(ctxt, event.is_bincode(variant));
        borrowed::check(ctxt, field, "an event");
    }
}

fn check_keys(ctxt: &mut Ctxt, variant: &Variant<'_>) {
    let keys = &variant.keys;
    if keys.name.is_none() && !keys.name_is_broken {
        ctxt.error(
            variant.ident,
            format_args!(
                "`{}` needs a stored name, which does not change when it is renamed in Rust: `#[es(name = \"…\")]`",
                variant.ident
            ),
        );
    }
    for name in keys.names() {
        check::event_name(ctxt, name);
    }
    for old in &keys.old {
        if old.name.is_none() && old.version > variant.version() {
            ctxt.error(
                &old.version_literal,
                format_args!("`from` reads older versions: the event itself has version {}", variant.version()),
            );
        }
    }
}

/// Which variant decodes which name in which version, as far as the names are literals.
#[derive(Default)]
struct Claims(Vec<((bool, String), u32, String)>);

impl Claims {
    fn add(&mut self, ctxt: &mut Ctxt, variant: &Variant<'_>) {
        let keys = &variant.keys;
        let current: Vec<&Name> = keys.name.iter().chain(&keys.aliases).collect();
        for name in &current {
            self.claim(ctxt, name, variant.version(), name.written(), variant);
        }
        for old in &keys.old {
            match &old.name {
                Some(name) => self.claim(ctxt, name, old.version, name.written(), variant),
                None => {
                    for name in &current {
                        self.claim(ctxt, name, old.version, &old.version_literal, variant);
                    }
                }
            }
        }
    }

    fn claim(&mut self, ctxt: &mut Ctxt, name: &Name, version: u32, at: &dyn ToTokens, variant: &Variant<'_>) {
        let seen = name.seen();
        let taken = self.0.iter().find(|(name, taken, _)| *name == seen && *taken == version);
        if let Some((_, _, by)) = taken {
            let text = if seen.0 { format!("{:?}", seen.1) } else { format!("`{}`", seen.1) };
            ctxt.error(at, format_args!("version {version} of {text} is already read by `{by}`"));
        } else {
            self.0.push((seen, version, variant.ident.to_string()));
        }
    }
}

impl Input<'_> {
    /// The policy for serde's attributes on the type.
    pub(crate) fn policy(&self) -> &'static Policy {
        if self.is_struct { &ON_STRUCT } else { &ON_ENUM }
    }
}
