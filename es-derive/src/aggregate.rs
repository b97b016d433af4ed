//! `#[derive(Aggregate)]`: parse → validate → expand.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{DeriveInput, Expr, ExprLit, ExprPath, Lit, LitInt, Type, parse_quote};

use crate::attr::{Once, crate_path, each_key, keys, no_keys_inside, parenthesized, read_keys, value, version};
use crate::borrowed;
use crate::check;
use crate::ctxt::Ctxt;
use crate::generate::{Framework, at, extended, in_const, is_generic, lints_of};
use crate::name::Name;

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
    category: Once<Name>,
    event: Once<Type>,
    id: Once<Type>,
    snapshot: Option<SnapshotKeys>,
    /// Keys that were present but could not be read, so that they are not reported as missing too.
    broken: Vec<String>,
}

/// `snapshot(every = 100, version = 1, codec = Json)`.
struct SnapshotKeys {
    key: Ident,
    every: Once<Expr>,
    when: Once<ExprPath>,
    version: Once<(u32, LitInt)>,
    codec: Once<Type>,
    is_broken: bool,
}

keys! {
    /// On an aggregate.
    Key { Category = "category", Event = "event", Id = "id", Snapshot = "snapshot", Crate = "crate" }
}

keys! {
    /// In `snapshot(…)`.
    SnapshotKey { Every = "every", When = "when", Version = "version", Codec = "codec" }
}

impl<'a> Aggregate<'a> {
    fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let mut path = Once::default();
        let (mut category, mut event, mut id, mut snapshot) =
            (Once::default(), Once::default(), Once::default(), Once::default());
        let mut broken = Vec::new();
        each_key(ctxt, &input.attrs, "an aggregate", |ctxt, key, ident, input| {
            broken.push(ident.to_string());
            match key {
                Key::Category => {
                    let number = ctxt.number();
                    category.set(ctxt, ident, Name::parse(input, number)?);
                }
                Key::Event => event.set(ctxt, ident, value(input)?),
                Key::Id => id.set(ctxt, ident, value(input)?),
                Key::Snapshot => {
                    let keys = SnapshotKeys::parse(ctxt, ident, parenthesized(input)?);
                    snapshot.set(ctxt, ident, keys);
                }
                Key::Crate => path.set(ctxt, ident, crate_path(input)?),
            }
            Ok(())
        });
        no_keys_inside(ctxt, input, "a variant of an aggregate");
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
            let fields: Vec<_> = match &self.input.data {
                syn::Data::Struct(data) => data.fields.iter().collect(),
                syn::Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
                syn::Data::Union(_) => Vec::new(),
            };
            for field in fields {
                borrowed::check(ctxt, field, "a state that is saved");
            }
        }
    }

    fn expand(&self) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let (category, event, id) = (self.category.get(), self.event.get(), self.id());
        let constants = Name::constants(&private, "category", category);
        let every = self.snapshot.as_ref().and_then(|snapshot| snapshot.check(&private));
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let snapshots = match &self.snapshot {
            None => quote!(::core::option::Option::None),
            Some(snapshot) => snapshot.expand(&private),
        };
        in_const(
            &lints_of(self.input),
            &quote! {
                #constants
            #every

                #[automatically_derived]
                impl #impl_generics #private::State for #ident #ty_generics #where_clause {
                    type Event = #event;
                    type Name = #id;
                    type Kind = #private::OfStream;
                }

                #[automatically_derived]
                impl #impl_generics #private::Aggregate for #ident #ty_generics #where_clause {
                    type Id = #id;
                    const CATEGORY: &'static ::core::primitive::str = #category;
                    const SNAPSHOTS: ::core::option::Option<#private::Snapshots<Self>> = #snapshots;
                }
            },
        )
    }

    /// An implementation that compiles, so that the user sees only the mistakes.
    fn fallback(&self, errors: &TokenStream) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let id = self.id();
        let event = self.event.get().map_or_else(|| quote!(#private::NoEvent), |event| quote!(#event));
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let code = in_const(
            &lints_of(self.input),
            &quote! {
                    #[automatically_derived]
                impl #impl_generics #private::State for #ident #ty_generics #where_clause {
                    type Event = #event;
                    type Name = #id;
                    type Kind = #private::OfStream;
                }

                #[automatically_derived]
                impl #impl_generics #private::Aggregate for #ident #ty_generics #where_clause {
                    type Id = #id;
                    const CATEGORY: &'static ::core::primitive::str = "";
                    const SNAPSHOTS: ::core::option::Option<#private::Snapshots<Self>> = ::core::option::Option::None;
                }
            },
        );
        quote!(#errors #code)
    }

    fn id(&self) -> TokenStream {
        let private = self.framework.private();
        self.id.get().map_or_else(|| quote!(#private::String), |id| quote!(#id))
    }

    /// The bounds that `Aggregate` and its snapshots require of the type, if they depend on its parameters.
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
            read_keys(ctxt, input, "`snapshot`", &mut |ctxt, key, ident, input| {
                // Until the value is read.
                let before = std::mem::replace(&mut all.is_broken, true);
                match key {
                    SnapshotKey::Every => all.every.set(ctxt, ident, value(input)?),
                    SnapshotKey::When => all.when.set(ctxt, ident, value(input)?),
                    SnapshotKey::Version => all.version.set(ctxt, ident, version(input)?),
                    SnapshotKey::Codec => all.codec.set(ctxt, ident, value(input)?),
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
                // An expression that is not a literal is checked by the compiler.
                if let Expr::Lit(ExprLit { lit, .. }) = every {
                    let events = if let Lit::Int(events) = lit { events.base10_parse::<u64>() } else { Ok(0) };
                    if !matches!(events, Ok(1..)) {
                        ctxt.error(every, "a number of events from 1 to 18446744073709551615");
                    }
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

    /// An expression that is not a literal is checked at compile time, rather than when a snapshot is due.
    fn check(&self, private: &TokenStream) -> Option<TokenStream> {
        match self.every.get() {
            None | Some(Expr::Lit(_)) => None,
            Some(every) => {
                let check = at(every.span(), quote!(#private::every::<()>));
                let policy = quote_spanned!(every.span()=> #check(#every));
                Some(quote!(const _: #private::SnapshotPolicy<()> = #policy;))
            }
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
        // If the state does not implement serde's traits, the error points at the key that requires them.
        let new = quote_spanned!(self.key.span()=> #private::Snapshots::<Self>::new::<#codec>);
        // Also compares fields that serde skips.
        let equal = quote!(|__a: &Self, __b: &Self| {
            use #private::same_state::*;
            (&&&&States(__a, __b)).equal()
        });
        quote!(::core::option::Option::Some(#new(#policy, #version).compared_by(#equal)))
    }
}
