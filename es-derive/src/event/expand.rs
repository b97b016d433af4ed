//! The code for an enum or struct with stored names.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Fields, WherePredicate, parse_quote};

use super::parse::{Input, Variant};
use super::validate::ON_VARIANT;
use super::{stream, tags};
use crate::borrowed;
use crate::generate::{as_generated, at, extended, in_const, is_generic, mentions_parameter, without_self};
use crate::name::Name;
use crate::serde_attr::SerdeKeys;

pub(crate) fn expand(event: &Input<'_>) -> TokenStream {
    let private = event.framework.private();
    let ident = event.ident;
    let mirror = mirror(event);
    let (constants, owned) = (constants(event), owned(event));
    let generics = bounded(event);
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let names = event.variants.iter().flat_map(names_of).collect::<Vec<_>>();
    let claims = match names.as_slice() {
        [] => quote!(false),
        names => quote!(::core::matches!(__name, #(#names)|*)),
    };
    let names_parameter = if names.is_empty() { quote!(_) } else { quote!(__name) };
    let event_types = event_types(event);
    let encode = encode(event);
    let decode = decode(event);
    let (write, read) = payload(event);
    let (stream, all_named) = stream::expand(event);
    let names_stream = all_named.then(|| {
        quote! {
            #[automatically_derived]
            impl #impl_generics #private::NamesStream for #ident #ty_generics #where_clause {}
        }
    });
    in_const(
        &event.lints,
        &quote! {
            #constants
            #mirror
            #owned

            #[automatically_derived]
            impl #impl_generics #private::Payloads for #ident #ty_generics #where_clause {
                #event_types
                #write
                #read
            }

            #[automatically_derived]
            impl #impl_generics #private::Event for #ident #ty_generics #where_clause {
                fn names() -> #private::Vec<&'static ::core::primitive::str> {
                    #private::list([#(#names),*])
                }

                fn claims(#names_parameter: &::core::primitive::str) -> ::core::primitive::bool {
                    #claims
                }

                fn event_types() -> #private::Vec<#private::Arc<#private::EventType>> {
                    <[_]>::to_vec(<Self as #private::Payloads>::types())
                }

                fn encode(&self) -> ::core::result::Result<#private::CandidateEvent, #private::EncodeError> {
                    #encode
                }

                #stream

                fn decode(__stored: &#private::StoredEvent) -> ::core::result::Result<Self, #private::DecodeError> {
                    #decode
                }
            }

            #names_stream
        },
    )
}

/// An implementation that compiles, so that the user sees only the mistakes.
pub(crate) fn fallback(event: &Input<'_>, errors: &TokenStream) -> TokenStream {
    let private = event.framework.private();
    let ident = event.ident;
    let generics = extended(event.generics, own_bounds(event));
    let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
    let code = in_const(
        &event.lints,
        &quote! {
            #[automatically_derived]
            impl #impl_generics #private::Event for #ident #ty_generics #where_clause {
                fn names() -> #private::Vec<&'static ::core::primitive::str> {
                    ::core::unreachable!()
                }
                fn event_types() -> #private::Vec<#private::Arc<#private::EventType>> {
                    ::core::unreachable!()
                }
                fn encode(&self) -> ::core::result::Result<#private::CandidateEvent, #private::EncodeError> {
                    ::core::unreachable!()
                }
                fn decode(_: &#private::StoredEvent) -> ::core::result::Result<Self, #private::DecodeError> {
                    ::core::unreachable!()
                }
            }

            #[automatically_derived]
            impl #impl_generics #private::NamesStream for #ident #ty_generics #where_clause {}
        },
    );
    quote!(#errors #code)
}

/// The bounds that `Event` requires of the type itself, if they depend on its parameters.
pub(crate) fn own_bounds(event: &Input<'_>) -> Vec<WherePredicate> {
    if !is_generic(event.generics) {
        return Vec::new();
    }
    let ident = event.ident;
    let (_, ty_generics, _) = event.generics.split_for_impl();
    vec![parse_quote!(#ident #ty_generics: ::core::marker::Send + ::core::marker::Sync + 'static)]
}

/// The generics of the implementations: the bounds that `Event` requires of the type, and serde of its fields.
fn bounded(event: &Input<'_>) -> syn::Generics {
    let (serialize, deserialize) = field_bounds(event);
    let upcasts = event.variants.iter().flat_map(|variant| &variant.keys.old).map(|old| -> WherePredicate {
        let (ident, ty) = (event.ident, &old.ty);
        let (_, ty_generics, _) = event.generics.split_for_impl();
        parse_quote!(#ident #ty_generics: ::core::convert::From<#ty>)
    });
    let upcasts: Vec<_> = if is_generic(event.generics) { upcasts.collect() } else { Vec::new() };
    extended(event.generics, own_bounds(event).into_iter().chain(serialize).chain(deserialize).chain(upcasts))
}

/// The bounds that serde requires of the fields for writing and for reading them, if they depend on a parameter.
fn field_bounds(event: &Input<'_>) -> (Vec<WherePredicate>, Vec<WherePredicate>) {
    let private = event.framework.private();
    let ident = event.ident;
    let (_, ty_generics, _) = event.generics.split_for_impl();
    let this = quote!(#ident #ty_generics);
    let (mut serialize, mut deserialize) = (Vec::new(), Vec::new());
    let fields = event.variants.iter().flat_map(|variant| variant.fields);
    for field in fields.filter(|field| mentions_parameter(&field.ty, event.generics)) {
        let serde = SerdeKeys::of(&field.attrs);
        let ty = without_self(&field.ty, &this);
        if !serde.has_any(&["with", "serialize_with", "skip", "skip_serializing"]) {
            serialize.push(parse_quote!(#ty: #private::serde::Serialize));
        }
        if !serde.has_any(&["with", "deserialize_with", "skip", "skip_deserializing"]) {
            deserialize.push(parse_quote!(#ty: #private::serde::de::DeserializeOwned));
        }
    }
    (serialize, deserialize)
}

/// The mirror: a copy of the type for which serde's traits are derived, so that the user's type does not need to.
fn mirror(event: &Input<'_>) -> TokenStream {
    if event.variants.is_empty() {
        return TokenStream::new();
    }
    let private = event.framework.private();
    let ident = event.ident;
    let (_, ty_generics, where_clause) = event.generics.split_for_impl();
    let this = quote!(#ident #ty_generics);
    let (generics, where_clause) = (without_self(event.generics, &this), without_self(where_clause, &this));
    // Without parameters, because serde adds those of the mirror.
    let remote = ident.to_string();
    let serde = quote!(#private::serde).to_string();
    // The same bounds as on the implementations, in serde's syntax; without them serde would guess.
    let (serialize, deserialize) = field_bounds(event);
    let (serialize, deserialize) = (quote!(#(#serialize),*).to_string(), quote!(#(#deserialize),*).to_string());
    let container = event.serde.stored(event.policy());
    let body = event.variants.iter().map(|variant| {
        let fields = fields(variant.fields, &this);
        if event.is_struct {
            return match variant.fields {
                Fields::Named(_) => quote!(struct __EsFields #generics #where_clause #fields),
                Fields::Unnamed(_) | Fields::Unit => quote!(struct __EsFields #generics #fields #where_clause;),
            };
        }
        let (serde, ident) = (variant.serde.stored(&ON_VARIANT), as_generated(variant.ident));
        quote!(#serde #ident #fields,)
    });
    let body =
        if event.is_struct { quote!(#(#body)*) } else { quote!(enum __EsFields #generics #where_clause { #(#body)* }) };
    quote! {
        #[derive(#private::serde::Serialize, #private::serde::Deserialize)]
        #[serde(crate = #serde, remote = #remote, rename = "Payload")]
        #[serde(bound(serialize = #serialize, deserialize = #deserialize))]
        #container
        #body
    }
}

fn fields(fields: &Fields, this: &TokenStream) -> TokenStream {
    let all = fields.iter().map(|field| {
        let serde = SerdeKeys::of(&field.attrs).pass_through();
        let ty = without_self(&field.ty, this);
        let name = field.ident.as_ref().map(as_generated).map(|name| quote!(#name:));
        quote!(#serde #name #ty)
    });
    match fields {
        Fields::Named(_) => quote!({ #(#all),* }),
        Fields::Unnamed(_) => quote!((#(#all),*)),
        Fields::Unit => TokenStream::new(),
    }
}

/// How the fields are written and read: through the mirror, without the enum's layer.
fn payload(event: &Input<'_>) -> (TokenStream, TokenStream) {
    let private = event.framework.private();
    let (_, ty_generics, _) = event.generics.split_for_impl();
    let mirror = quote!(<__EsFields #ty_generics>);
    let (write, read) = if event.variants.is_empty() {
        (quote!(match *self {}), quote!(#private::no_such_variant(__variant)))
    } else if event.is_struct {
        (quote!(#mirror::serialize(self, __serializer)), quote!(#mirror::deserialize(__deserializer)))
    } else {
        (
            quote!(#mirror::serialize(self, #private::WithoutEnum(__serializer))),
            quote!(#mirror::deserialize(#private::AsVariant::new(__variant, __deserializer))),
        )
    };
    (
        quote! {
            fn write<__S>(&self, __serializer: __S) -> ::core::result::Result<__S::Ok, __S::Error>
            where
                __S: #private::serde::Serializer,
            {
                #write
            }
        },
        quote! {
            fn read<'__de, __D>(__variant: ::core::primitive::u32, __deserializer: __D) -> ::core::result::Result<Self, __D::Error>
            where
                __D: #private::serde::Deserializer<'__de>,
            {
                #read
            }
        },
    )
}

fn event_types(event: &Input<'_>) -> TokenStream {
    let private = event.framework.private();
    let types = event.variants.iter().zip(0_u32..).map(|(variant, index)| {
        let (name, version, codec) = (&variant.keys.name, variant.version(), event.codec_of(variant));
        quote!(#private::event_type::<#codec, Self, #index>(#name, #version))
    });
    let build = quote!(|| #private::list([#(#types),*]));
    let body = if is_generic(event.generics) {
        quote!(#private::types_of::<Self>(#build))
    } else {
        quote! {
            static TYPES: #private::EventTypes = #private::EventTypes::new();
            #private::EventTypes::get_or_build(&TYPES, #build)
        }
    };
    quote! {
        fn types() -> &'static [#private::Arc<#private::EventType>] {
            #body
        }
    }
}

fn encode(event: &Input<'_>) -> TokenStream {
    let private = event.framework.private();
    let arms = event.variants.iter().zip(0_usize..).map(|(variant, index)| {
        let (ident, name, codec) = (variant.ident, &variant.keys.name, event.codec_of(variant));
        let ident = as_generated(ident);
        let path = if event.is_struct { quote!(Self) } else { quote!(Self::#ident) };
        if variant.tags.is_empty() {
            return quote!(#path { .. } => #private::encode::<#codec, Self>(self, #index, #name),);
        }
        let (pattern, collect) = tags::collect(&private, variant);
        quote! {
            #path { #pattern .. } => {
                use #private::tagging::{ByDisplay as _, ByItems as _, ByNothing as _};
                let mut __tags = #private::tagging::Tags::new(#name);
                #collect
                #private::encode_tagged::<#codec, Self>(self, #index, #name, __tags)
            }
        }
    });
    if event.variants.is_empty() {
        return quote!(match *self {});
    }
    quote!(match self { #(#arms)* })
}

fn decode(event: &Input<'_>) -> TokenStream {
    let private = event.framework.private();
    let arms = event.variants.iter().zip(0_u32..).map(|(variant, index)| {
        let (version, codec) = (variant.version(), event.codec_of(variant));
        let names: Vec<_> = variant.keys.name.iter().chain(&variant.keys.aliases).collect();
        let old = variant.keys.old.iter().map(|old| {
            let (version, ty) = (old.version, &old.ty);
            let names = old.name.as_ref().map_or_else(|| names.clone(), |name| vec![name]);
            let upcast = quote_spanned!(ty.span()=> #private::decode_old::<#codec, #ty, Self>);
            quote!((#(#names)|*, #version) => #upcast(__stored),)
        });
        quote! {
            (#(#names)|*, #version) => #private::decode::<#codec, Self, #index>(__stored),
            #(#old)*
        }
    });
    if event.variants.is_empty() {
        return quote!(::core::result::Result::Err(#private::DecodeError::unknown(__stored)));
    }
    quote! {
        match (__stored.name(), __stored.event_type.schema_version()) {
            #(#arms)*
            _ => ::core::result::Result::Err(#private::DecodeError::unknown(__stored)),
        }
    }
}

/// Every name the variant decodes, each once.
fn names_of<'a>(variant: &'a Variant<'a>) -> impl Iterator<Item = &'a Name> {
    let mut seen = std::collections::HashSet::new();
    variant.keys.names().filter(move |name| seen.insert(name.seen()))
}

/// The names that are constants, and a check that no two names are the same.
fn constants(event: &Input<'_>) -> TokenStream {
    let private = event.framework.private();
    let constants = Name::constants(&private, "stored_name", event.names());
    let tags = Name::constants(&private, "tag_name", event.tag_names());
    let first = event.names().find(|name| name.literal().is_none());
    let distinct = first.map(|first| {
        let claims = event.variants.iter().flat_map(|variant| {
            let keys = &variant.keys;
            let current: Vec<_> = keys.name.iter().chain(&keys.aliases).collect();
            let old = keys.old.iter().flat_map(|old| {
                let names = old.name.as_ref().map_or_else(|| current.clone(), |name| vec![name]);
                names.into_iter().map(|name| (name, old.version))
            });
            let all: Vec<_> = current.iter().map(|name| (*name, variant.version())).chain(old).collect();
            all.into_iter().map(|(name, version)| quote!((#name, #version)))
        });
        let distinct = at(first.written().span(), quote!(#private::distinct));
        let check = quote_spanned!(first.written().span()=> #distinct(&[#(#claims),*]));
        quote!(const _: () = #check;)
    });
    quote!(#constants #tags #distinct)
}

/// Reports fields that borrow as mistakes, at the field.
fn owned(event: &Input<'_>) -> TokenStream {
    if is_generic(event.generics) {
        return TokenStream::new();
    }
    let (private, ident) = (event.framework.private(), event.ident);
    let fields = event.variants.iter().flat_map(|variant| variant.fields);
    let assertions: Vec<_> = fields.filter_map(|field| borrowed::assertion(&private, field, &quote!(#ident))).collect();
    if assertions.is_empty() {
        return TokenStream::new();
    }
    quote!(const _: fn() = || { #(#assertions)* };)
}
