//! Checks `#[serde(…)]` attributes: most pass through to serde, but some would write data that cannot be read back.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Token};

use crate::ctxt::Ctxt;

/// The `#[serde(…)]` attributes of one field, variant or type.
pub(crate) struct SerdeKeys<'a> {
    attributes: Vec<&'a Attribute>,
    keys: Vec<SerdeKey>,
}

/// One `key`, `key = value` or `key(…)`.
struct SerdeKey {
    ident: Ident,
    name: String,
    /// The key with its value.
    tokens: TokenStream,
}

/// How the attributes on a type or a variant are handled.
pub(crate) struct Policy {
    /// Where they are.
    pub(crate) place: &'static str,
    /// Keys that control how fields are written, so they affect what is stored too.
    pub(crate) stored: &'static [&'static str],
    /// Keys that control how the type looks elsewhere, where the user derives serde's traits: they do not affect what
    /// is stored.
    pub(crate) elsewhere: &'static [&'static str],
    /// Why other keys are not allowed here.
    pub(crate) why: &'static str,
}

impl<'a> SerdeKeys<'a> {
    /// Reads them all; malformed ones are left for serde to report.
    pub(crate) fn of(attributes: &'a [Attribute]) -> Self {
        let attributes: Vec<_> = attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).collect();
        let mut keys = Vec::new();
        for attribute in &attributes {
            if let syn::Meta::List(list) = &attribute.meta {
                // An attribute that cannot be read passes through too: serde's own message is better.
                drop((|input: ParseStream<'_>| read(input, &mut keys)).parse2(list.tokens.clone()));
            }
        }
        Self { attributes, keys }
    }

    fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Whether one of the keys is present.
    pub(crate) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    /// Refuses keys that would have to change what is stored but cannot.
    pub(crate) fn check(&self, ctxt: &mut Ctxt, policy: &Policy) {
        for key in &self.keys {
            let name = key.name.as_str();
            if !policy.stored.contains(&name) && !policy.elsewhere.contains(&name) {
                let Policy { place, why, .. } = policy;
                ctxt.error(&key.ident, format_args!("`#[serde({name})]` is not allowed on {place}: {why}"));
            }
        }
    }

    /// Refuses keys that no stored field can have, and keys that a codec that writes fields without their names does
    /// not support.
    pub(crate) fn check_field(&self, ctxt: &mut Ctxt, codec_is_bincode: bool) {
        for key in &self.keys {
            let name = key.name.as_str();
            match name {
                "borrow" => {
                    ctxt.error(&key.ident, "an event must own its data: `#[serde(borrow)]` is not allowed here");
                }
                "bound" => ctxt.error(
                    &key.ident,
                    "write the bound in the type's `where` clause: `#[serde(bound)]` is not allowed here",
                ),
                "getter" => {
                    ctxt.error(&key.ident, "`#[serde(getter)]` is not allowed here: the field is read directly");
                }
                "flatten" | "skip_serializing_if" if codec_is_bincode => ctxt.error(
                    &key.ident,
                    format_args!("`#[serde({name})]` needs a self-describing codec: `codec = Json`"),
                ),
                "skip_serializing" | "skip_deserializing"
                    if codec_is_bincode && !(self.has("skip_serializing") && self.has("skip_deserializing")) =>
                {
                    ctxt.error(
                        &key.ident,
                        format_args!(
                            "`#[serde({name})]` alone needs a self-describing codec: `codec = Json`; \
                             or leave the field out both ways with `#[serde(skip)]`"
                        ),
                    );
                }
                _ => {}
            }
        }
    }

    /// The attributes of a field unchanged, for the mirror type.
    pub(crate) fn pass_through(&self) -> TokenStream {
        let attributes = &self.attributes;
        quote!(#(#attributes)*)
    }

    /// The attributes of a type or a variant that affect what is stored, for the mirror type.
    pub(crate) fn stored(&self, policy: &Policy) -> TokenStream {
        let keys = self.keys.iter().filter(|key| policy.stored.contains(&key.name.as_str())).map(|key| &key.tokens);
        quote!(#(#[serde(#keys)])*)
    }
}

fn read(input: ParseStream<'_>, keys: &mut Vec<SerdeKey>) -> syn::Result<()> {
    while !input.is_empty() {
        let ident = input.call(Ident::parse_any)?;
        let mut tokens = ident.to_token_stream();
        while !input.is_empty() && !input.peek(Token![,]) {
            tokens.extend([input.parse::<TokenTree>()?]);
        }
        let name = ident.unraw().to_string();
        keys.push(SerdeKey { ident, name, tokens });
        input.parse::<Option<Token![,]>>()?;
    }
    Ok(())
}
