//! `#[derive(Aggregate)]`: parse → validate → expand.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{DeriveInput, ExprPath, LitInt, LitStr, Type, parse_quote};

use crate::attr::{Once, crate_path, each_key, keys, parenthesized, text, value, version};
use crate::check;
use crate::ctxt::Ctxt;
use crate::generate::{Framework, extended, in_const, is_generic};

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let aggregate = Aggregate::parse(&mut ctxt, input);
    aggregate.validate(&mut ctxt);
    match ctxt.into_compile_errors() {
        None => aggregate.expand(),
        Some(errors) => aggregate.fallback(&errors),
    }
}

/// The type that derives `Aggregate`.
struct Aggregate<'a> {
    input: &'a DeriveInput,
    framework: Framework,
    category: Once<LitStr>,
    event: Once<Type>,
    id: Once<Type>,
    snapshot: Option<SnapshotKeys>,
    /// Keys that were there but could not be read, so that their absence is not another mistake.
    broken: Vec<String>,
}

/// `snapshot(every = 100, version = 1, codec = Json)`.
struct SnapshotKeys {
    key: Ident,
    every: Once<LitInt>,
    when: Once<ExprPath>,
    version: Once<(u32, LitInt)>,
    codec: Once<Type>,
    is_broken: bool,
}

const KEYS: &[&str] = &["category", "event", "id", "snapshot", "crate"];
const SNAPSHOT_KEYS: &[&str] = &["every", "when", "version", "codec"];

impl<'a> Aggregate<'a> {
    fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let mut path = Once::default();
        let (mut category, mut event, mut id, mut snapshot) =
            (Once::default(), Once::default(), Once::default(), Once::default());
        let mut broken = Vec::new();
        each_key(ctxt, &input.attrs, "an aggregate", KEYS, |ctxt, key, input| {
            let name = key.unraw().to_string();
            broken.push(name.clone());
            match name.as_str() {
                "category" => category.set(ctxt, key, text(input)?),
                "event" => event.set(ctxt, key, value(input)?),
                "id" => id.set(ctxt, key, value(input)?),
                "snapshot" => {
                    let keys = SnapshotKeys::parse(ctxt, key, parenthesized(input)?);
                    snapshot.set(ctxt, key, keys);
                }
                _ => path.set(ctxt, key, crate_path(input)?),
            }
            Ok(())
        });
        no_keys_inside(ctxt, input);
        let framework = Framework::new(path.get());
        Self { input, framework, category, event, id, snapshot: snapshot.take(), broken }
    }

    fn validate(&self, ctxt: &mut Ctxt) {
        let missing = |key: &str| !self.broken.iter().any(|broken| broken == key);
        if let syn::Data::Union(data) = &self.input.data {
            ctxt.error(data.union_token, "an aggregate is a struct or an enum, not a union");
        }
        match self.category.get() {
            Some(category) => check::category(ctxt, category),
            None if missing("category") => ctxt.error(
                &self.input.ident,
                "an aggregate needs a category, the first part of its streams' ids: `#[es(category = \"…\")]`",
            ),
            None => {}
        }
        if self.event.get().is_none() && missing("event") {
            ctxt.error(&self.input.ident, "an aggregate needs the type of its events: `#[es(event = …)]`");
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.validate(ctxt);
        }
    }

    fn expand(&self) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let (category, event, id) = (self.category.get(), self.event.get(), self.id());
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let snapshots = match &self.snapshot {
            None => quote!(::core::option::Option::None),
            Some(snapshot) => snapshot.expand(&private),
        };
        in_const(&quote! {
            #[automatically_derived]
            impl #impl_generics #private::Aggregate for #ident #ty_generics #where_clause {
                type Id = #id;
                type Event = #event;
                const CATEGORY: &'static ::core::primitive::str = #category;
                const SNAPSHOTS: ::core::option::Option<#private::Snapshots<Self>> = #snapshots;
            }
        })
    }

    /// An implementation that compiles, so that the mistakes are all the user sees.
    fn fallback(&self, errors: &TokenStream) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let id = self.id();
        let event = self.event.get().map_or_else(|| quote!(#private::NoEvent), |event| quote!(#event));
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let code = in_const(&quote! {
            #[automatically_derived]
            impl #impl_generics #private::Aggregate for #ident #ty_generics #where_clause {
                type Id = #id;
                type Event = #event;
                const CATEGORY: &'static ::core::primitive::str = "";
                const SNAPSHOTS: ::core::option::Option<#private::Snapshots<Self>> = ::core::option::Option::None;
            }
        });
        quote!(#errors #code)
    }

    fn id(&self) -> TokenStream {
        let private = self.framework.private();
        self.id.get().map_or_else(|| quote!(#private::String), |id| quote!(#id))
    }

    /// What `Aggregate` and its snapshots ask of the type, where that depends on its parameters.
    fn bounds(&self) -> Vec<syn::WherePredicate> {
        if !is_generic(&self.input.generics) {
            return Vec::new();
        }
        let private = self.framework.private();
        let ident = &self.input.ident;
        let (_, ty_generics, _) = self.input.generics.split_for_impl();
        let mut bounds = vec![parse_quote! {
            #ident #ty_generics: ::core::default::Default
                + ::core::clone::Clone
                + ::core::marker::Send
                + ::core::marker::Sync
                + 'static
        }];
        if self.snapshot.is_some() {
            bounds.push(parse_quote! {
                #ident #ty_generics: #private::serde::Serialize + #private::serde::de::DeserializeOwned
            });
        }
        bounds
    }
}

impl SnapshotKeys {
    fn parse(ctxt: &mut Ctxt, key: &Ident, tokens: TokenStream) -> Self {
        let mut all = Self {
            key: key.clone(),
            every: Once::default(),
            when: Once::default(),
            version: Once::default(),
            codec: Once::default(),
            is_broken: false,
        };
        let read = (|input: ParseStream<'_>| {
            keys(ctxt, input, "`snapshot`", SNAPSHOT_KEYS, &mut |ctxt, key, input| {
                // Until the value is read.
                let before = std::mem::replace(&mut all.is_broken, true);
                match key.unraw().to_string().as_str() {
                    "every" => all.every.set(ctxt, key, value(input)?),
                    "when" => all.when.set(ctxt, key, value(input)?),
                    "version" => all.version.set(ctxt, key, version(input)?),
                    _ => all.codec.set(ctxt, key, value(input)?),
                }
                all.is_broken = before;
                Ok(())
            });
            Ok(())
        })
        .parse2(tokens);
        if let Err(error) = read {
            ctxt.push(error);
            all.is_broken = true;
        }
        all
    }

    fn validate(&self, ctxt: &mut Ctxt) {
        match (self.every.get(), self.when.get()) {
            (Some(every), None) => {
                if !matches!(every.base10_parse::<u64>(), Ok(1..)) {
                    ctxt.error(every, "a number of events from 1 to 18446744073709551615");
                }
            }
            (None, None) if !self.is_broken => ctxt.error(
                &self.key,
                "`snapshot` says when the state is saved: `snapshot(every = 100)` or `snapshot(when = path::to::function)`",
            ),
            (Some(_), Some(when)) => ctxt.error(when, "`every` and `when` exclude each other"),
            (None, _) => {}
        }
    }

    fn expand(&self, private: &TokenStream) -> TokenStream {
        let codec = self.codec.get().map_or_else(|| quote!(#private::DefaultCodec), |codec| quote!(#codec));
        let version = self.version.get().map_or(1, |(version, _)| *version);
        let every = self.every.get();
        let policy = self
            .when
            .get()
            .map_or_else(|| quote!(#private::every(#every)), |when| quote!(#private::SnapshotPolicy::When(#when)));
        // Where the state is not serde's, the error points at the key that asks for it.
        let new = quote_spanned!(self.key.span()=> #private::Snapshots::<Self>::new::<#codec>);
        // Sees fields that serde skips.
        let equal = quote!(|__a: &Self, __b: &Self| {
            use #private::same_state::*;
            (&&&States(__a, __b)).equal()
        });
        quote!(::core::option::Option::Some(#new(#policy, #version).compared_by(#equal)))
    }
}

fn no_keys_inside(ctxt: &mut Ctxt, input: &DeriveInput) {
    let mut no_keys = |attributes: &[syn::Attribute], place: &str| {
        each_key(ctxt, attributes, place, &[], |_, _, _| Ok(()));
    };
    match &input.data {
        syn::Data::Struct(data) => data.fields.iter().for_each(|field| no_keys(&field.attrs, "a field")),
        syn::Data::Enum(data) => {
            for variant in &data.variants {
                no_keys(&variant.attrs, "a variant of an aggregate");
                variant.fields.iter().for_each(|field| no_keys(&field.attrs, "a field"));
            }
        }
        syn::Data::Union(_) => {}
    }
}
