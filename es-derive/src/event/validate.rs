//! What the parser lets through and no store could keep apart.

use syn::LitStr;

use super::parse::{Input, Variant};
use crate::check;
use crate::ctxt::Ctxt;

pub(crate) fn check(ctxt: &mut Ctxt, event: &Input<'_>) {
    let only_fields = "what is stored is the fields of one variant, under the name that `#[es(name = \"…\")]` gives";
    if event.is_struct {
        event.serde.allow_only(
            ctxt,
            "an event struct",
            &["rename_all", "deny_unknown_fields", "default"],
            "its stored name comes from `#[es(name = \"…\")]`",
        );
    } else {
        event.serde.allow_only(ctxt, "an enum of events", &["rename_all_fields", "deny_unknown_fields"], only_fields);
    }
    let mut claims = Claims::default();
    for variant in &event.variants {
        variant.serde.allow_only(ctxt, "a variant", &["rename_all"], only_fields);
        check_fields(ctxt, event, variant);
        check_keys(ctxt, variant);
        claims.add(ctxt, variant);
    }
}

fn check_fields(ctxt: &mut Ctxt, event: &Input<'_>, variant: &Variant<'_>) {
    for field in variant.fields {
        crate::serde_attr::SerdeKeys::of(&field.attrs).check_field(ctxt, event.is_bincode(variant));
    }
}

fn check_keys(ctxt: &mut Ctxt, variant: &Variant<'_>) {
    let keys = &variant.keys;
    if keys.name.is_none() && !keys.name_is_broken {
        ctxt.error(
            variant.ident,
            format_args!(
                "`{}` needs a stored name, which no renaming in Rust will change: `#[es(name = \"…\")]`",
                variant.ident
            ),
        );
    }
    let names = keys.name.iter().chain(&keys.aliases).chain(keys.old.iter().filter_map(|old| old.name.as_ref()));
    for name in names {
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

/// Who decodes which name in which version.
#[derive(Default)]
struct Claims(Vec<(String, u32, String)>);

impl Claims {
    fn add(&mut self, ctxt: &mut Ctxt, variant: &Variant<'_>) {
        let keys = &variant.keys;
        let current: Vec<&LitStr> = keys.name.iter().chain(&keys.aliases).collect();
        for name in &current {
            self.claim(ctxt, name, variant.version(), name, variant);
        }
        for old in &keys.old {
            match &old.name {
                Some(name) => self.claim(ctxt, name, old.version, name, variant),
                None => {
                    for name in &current {
                        self.claim(ctxt, name, old.version, &old.version_literal, variant);
                    }
                }
            }
        }
    }

    fn claim(&mut self, ctxt: &mut Ctxt, name: &LitStr, version: u32, at: &dyn quote::ToTokens, variant: &Variant<'_>) {
        let text = name.value();
        let taken = self.0.iter().find(|(name, taken, _)| *name == text && *taken == version);
        if let Some((_, _, by)) = taken {
            ctxt.error(at, format_args!("version {version} of {text:?} is already read by `{by}`"));
        } else {
            self.0.push((text, version, variant.ident.to_string()));
        }
    }
}
