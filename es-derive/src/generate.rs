//! Generics and paths, handled the same way by all derives.

use proc_macro2::{Group, Ident, Spacing, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::visit::Visit;
use syn::{Attribute, Data, DeriveInput, Generics, Meta, Type, WherePredicate};

/// The path of es-framework in the user's crate.
pub(crate) struct Framework(syn::Path);

impl Framework {
    /// The path given with `crate = "…"`, or the crate's own name.
    pub(crate) fn new(path: Option<&syn::Path>) -> Self {
        Self(path.cloned().unwrap_or_else(|| syn::parse_quote!(::es_framework)))
    }

    /// The path of the items that generated code uses.
    pub(crate) fn private(&self) -> TokenStream {
        let path = &self.0;
        quote!(#path::__private)
    }
}

/// Wraps generated items, so that helpers stay out of the user's scope.
///
/// No lint is disabled here, because `#![forbid(…)]` in the user's crate would reject that. The compiler does not
/// report lints on tokens from another crate's macro, so it is enough that [generated](as_generated) tokens carry no
/// span in the user's source. Only the lints that the user allows, `lints`, are allowed here too.
pub(crate) fn in_const(lints: &TokenStream, items: &TokenStream) -> TokenStream {
    quote! {
        #[doc(hidden)]
        #lints
        const _: () = {
            #items
        };
    }
}

/// The lints that these attributes allow, for copies of the items they are on.
pub(crate) fn lints<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> TokenStream {
    let mut allowed = TokenStream::new();
    for attribute in attributes {
        match &attribute.meta {
            Meta::List(list) if list.path.is_ident("allow") || list.path.is_ident("expect") => {
                let lints = list.tokens.clone();
                allowed.extend(quote!(#[allow(#lints)]));
            }
            meta if meta.path().is_ident("deprecated") => allowed.extend(quote!(#[allow(deprecated)])),
            _ => {}
        }
    }
    allowed
}

/// The same for all parts of a type.
pub(crate) fn lints_of(input: &DeriveInput) -> TokenStream {
    let inside: Vec<&Attribute> = match &input.data {
        Data::Struct(data) => data.fields.iter().flat_map(|field| &field.attrs).collect(),
        Data::Enum(data) => {
            let of_fields = data.variants.iter().flat_map(|variant| &variant.fields).flat_map(|field| &field.attrs);
            data.variants.iter().flat_map(|variant| &variant.attrs).chain(of_fields).collect()
        }
        Data::Union(_) => Vec::new(),
    };
    lints(input.attrs.iter().chain(inside))
}

/// The same tokens with a span in the user's source, so that the compiler reports errors there.
pub(crate) fn at(span: Span, tokens: TokenStream) -> TokenStream {
    let move_token = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            token = Group::new(group.delimiter(), at(span, group.stream())).into();
        }
        // Where the place is inside of a user's macro, the variables would not be those of the generated function.
        let is_variable =
            matches!(&token, TokenTree::Ident(ident) if *ident == "self" || ident.to_string().starts_with("__"));
        token.set_span(if is_variable { span.resolved_at(token.span()) } else { span });
        token
    };
    tokens.into_iter().map(move_token).collect()
}

/// The same name without the user's span, so that no lint is reported twice.
pub(crate) fn as_generated(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(Span::call_site());
    ident
}

/// Adds predicates to the type's own `where` clause, for an implementation.
pub(crate) fn extended(generics: &Generics, predicates: impl IntoIterator<Item = WherePredicate>) -> Generics {
    let mut generics = generics.clone();
    // With `'static` required of the type, a lifetime parameter would be reported as redundant.
    generics.lifetimes_mut().for_each(|parameter| parameter.lifetime.set_span(Span::call_site()));
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

/// Whether a type mentions a parameter, so that its bounds depend on the parameter.
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
            // What a macro expands to is not known here: err on the safe side.
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
    let mut written = TokenStream::new();
    let mut tokens = tokens.into_token_stream().into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                // For a generic type, `Self::Item` can only be written as `<Type<T>>::Item`.
                let is_path = match tokens.peek() {
                    Some(TokenTree::Punct(next)) => next.as_char() == ':' && next.spacing() == Spacing::Joint,
                    _ => false,
                };
                written.extend(if is_path { quote!(<#this>) } else { this.clone() });
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_self(group.stream(), this));
                inner.set_span(group.span());
                written.extend([TokenTree::Group(inner)]);
            }
            other => written.extend([other]),
        }
    }
    written
}
