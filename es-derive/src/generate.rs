//! What all derives do with generics and paths.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::visit::Visit;
use syn::{Generics, Type, WherePredicate};

/// The path of es-framework in the user's crate.
pub(crate) struct Framework(syn::Path);

impl Framework {
    /// The path given with `crate = "…"`, or the crate's own name.
    pub(crate) fn new(path: Option<&syn::Path>) -> Self {
        Self(path.cloned().unwrap_or_else(|| syn::parse_quote!(::es_framework)))
    }

    /// The path of what generated code calls.
    pub(crate) fn private(&self) -> TokenStream {
        let path = &self.0;
        quote!(#path::__private)
    }
}

/// Wraps what is generated: helper items stay out of the user's scope and lints quiet.
pub(crate) fn in_const(items: &TokenStream) -> TokenStream {
    quote! {
        #[doc(hidden)]
        #[allow(
            clippy::all,
            clippy::pedantic,
            clippy::nursery,
            clippy::restriction,
            deprecated,
            missing_docs,
            missing_debug_implementations,
            missing_copy_implementations,
            non_camel_case_types,
            non_snake_case,
            dead_code,
            unreachable_pub,
            unused_lifetimes,
            unused_qualifications,
            single_use_lifetimes,
        )]
        const _: () = {
            #items
        };
    }
}

/// Adds predicates to the type's own `where` clause.
pub(crate) fn extended(generics: &Generics, predicates: impl IntoIterator<Item = WherePredicate>) -> Generics {
    let mut generics = generics.clone();
    let mut predicates = predicates.into_iter().peekable();
    if predicates.peek().is_some() {
        generics.make_where_clause().predicates.extend(predicates);
    }
    generics
}

/// Whether the type has any parameters.
pub(crate) fn is_generic(generics: &Generics) -> bool {
    !generics.params.is_empty()
}

/// Whether a type mentions a parameter, so that what is asked of it depends on the parameter.
pub(crate) fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    struct Mentions<'a> {
        generics: &'a Generics,
        found: bool,
    }
    impl<'ast> Visit<'ast> for Mentions<'_> {
        fn visit_ident(&mut self, ident: &'ast Ident) {
            self.found |= self.generics.type_params().any(|parameter| parameter.ident == *ident)
                || self.generics.const_params().any(|parameter| parameter.ident == *ident);
        }
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            self.found |= self.generics.lifetimes().any(|parameter| parameter.lifetime == *lifetime);
        }
        fn visit_macro(&mut self, node: &'ast syn::Macro) {
            // What a macro makes of its tokens is not known here: take the safe side.
            self.found |= is_generic(self.generics);
            syn::visit::visit_macro(self, node);
        }
    }
    let mut mentions = Mentions { generics, found: false };
    mentions.visit_type(ty);
    mentions.found
}

/// Writes out `Self`, for tokens that move into another type.
pub(crate) fn without_self(tokens: impl ToTokens, this: &TokenStream) -> TokenStream {
    tokens
        .into_token_stream()
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(ident) if ident == "Self" => this.clone(),
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_self(group.stream(), this));
                inner.set_span(group.span());
                TokenTree::Group(inner).into_token_stream()
            }
            other => other.into_token_stream(),
        })
        .collect()
}
