//! The code for an enum that joins other events, `#[es(join)]`.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Fields, Type, WherePredicate, parse_quote};

use super::expand::own_bounds;
use super::parse::Input;
use super::validate::{ON_ENUM, ON_VARIANT};
use crate::ctxt::Ctxt;
use crate::generate::{extended, in_const, mentions_parameter};
use crate::serde_attr::Policy;

/// The policy for serde's attributes on an enum that joins events.
const ON_JOIN: Policy = Policy {
    place: "an enum that joins events",
    stored: &[],
    why: "the joined events are stored as they are",
    ..ON_ENUM
};

/// The policy for serde's attributes on its variants.
const ON_PART: Policy =
    Policy { place: "a joined event", stored: &[], why: "the joined events are stored as they are", ..ON_VARIANT };

/// One variant: a newtype around another event.
pub(crate) struct Part<'a> {
    ident: &'a Ident,
    ty: &'a Type,
}

pub(crate) fn parts<'a>(ctxt: &mut Ctxt, event: &'a Input<'a>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    if let Some(codec) = &event.codec {
        ctxt.error(codec, "the joined events name their own codecs: `codec` is not allowed with `join`");
    }
    if let Some(stream) = &event.stream {
        ctxt.error(stream, "the joined events name their own streams: `stream` is not allowed with `join`");
    }
    event.serde.check(ctxt, &ON_JOIN);
    for variant in &event.variants {
        variant.serde.check(ctxt, &ON_PART);
        if let Some(key) = &variant.keys.first {
            ctxt.error(key, "a joined event brings its own names: no key is allowed on the variants of `#[es(join)]`");
        }
        for tag in &variant.tags {
            ctxt.error(&tag.key, "a joined event brings its own tags: `tag` is not allowed with `join`");
        }
        match variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                parts.extend(fields.unnamed.first().map(|field| Part { ident: variant.ident, ty: &field.ty }));
            }
            _ => ctxt.error(
                variant.ident,
                format_args!("with `#[es(join)]` each variant holds one other event: `{}(OtherEvent)`", variant.ident),
            ),
        }
    }
    parts
}

pub(crate) fn expand(event: &Input<'_>, parts: &[Part<'_>]) -> TokenStream {
    let private = event.framework.private();
    let ident = event.ident;
    let mut predicates = own_bounds(event);
    predicates.extend(parts.iter().filter(|part| mentions_parameter(part.ty, event.generics)).map(
        |part| -> WherePredicate {
            let ty = part.ty;
            parse_quote!(#ty: #private::Event)
        },
    ));
    let generics = extended(event.generics, predicates);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let as_event: Vec<_> = parts
        .iter()
        .map(|part| {
            let ty = part.ty;
            quote_spanned!(ty.span()=> <#ty as #private::Event>)
        })
        .collect();
    let variants: Vec<_> = parts.iter().map(|part| part.ident).collect();
    let encode = if parts.is_empty() {
        quote!(match *self {})
    } else {
        quote!(match self { #(Self::#variants(__event) => #as_event::encode(__event),)* })
    };
    let stream = if parts.is_empty() {
        quote!(match *self {})
    } else {
        quote!(match self { #(Self::#variants(__event) => #as_event::stream(__event),)* })
    };
    in_const(
        &event.lints,
        &quote! {
            #[automatically_derived]
            impl #impl_generics #private::Event for #ident #ty_generics #where_clause {
                fn names() -> #private::Vec<&'static ::core::primitive::str> {
                    #private::concat([#(#as_event::names()),*])
                }

                fn claims(__name: &::core::primitive::str) -> ::core::primitive::bool {
                    false #(|| #as_event::claims(__name))*
                }

                fn event_types() -> #private::Vec<#private::Arc<#private::EventType>> {
                    #private::concat([#(#as_event::event_types()),*])
                }

                fn encode(&self) -> ::core::result::Result<#private::CandidateEvent, #private::EncodeError> {
                    #encode
                }

                fn stream(&self) -> ::core::result::Result<::core::option::Option<#private::StreamId>, #private::InvalidName> {
                    #stream
                }

                fn decode(__stored: &#private::StoredEvent) -> ::core::result::Result<Self, #private::DecodeError> {
                    #(
                        if #as_event::claims(__stored.name()) {
                            return ::core::result::Result::map(#as_event::decode(__stored), Self::#variants);
                        }
                    )*
                    ::core::result::Result::Err(#private::DecodeError::unknown(__stored))
                }
            }

            #[automatically_derived]
            impl #impl_generics #private::NamesStream for #ident #ty_generics #where_clause {}
        },
    )
}
