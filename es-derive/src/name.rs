//! Stored names: a literal, which the macro checks, or a constant, which the compiler checks.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Expr, Lit, LitStr};

use crate::generate::at;

/// The value of `name = "account.opened"` or `name = names::OPENED`.
#[derive(Clone)]
pub(crate) enum Name {
    Literal(LitStr),
    Constant(Constant),
}

/// An expression of type `&'static str` in the user's crate.
#[derive(Clone)]
pub(crate) struct Constant {
    expr: Expr,
    /// A constant with the value of the expression, which can be used in patterns too; see [`Name::constants`].
    ident: Ident,
}

impl Name {
    /// Reads a name. If it is not a literal, the name of its constant ends with `number`.
    pub(crate) fn parse(input: ParseStream<'_>, number: usize) -> syn::Result<Self> {
        input.parse::<syn::Token![=]>()?;
        if input.peek(Lit) {
            return input.parse().map(Self::Literal);
        }
        let expr = Expr::parse(input)?;
        Ok(Self::Constant(Constant { expr, ident: Ident::new(&format!("__ES_NAME_{number}"), Span::call_site()) }))
    }

    /// The text, if the macro knows it.
    pub(crate) fn literal(&self) -> Option<String> {
        match self {
            Self::Literal(literal) => Some(literal.value()),
            Self::Constant(_) => None,
        }
    }

    /// The user's tokens, for pointing at them.
    pub(crate) fn written(&self) -> &dyn ToTokens {
        match self {
            Self::Literal(literal) => literal,
            Self::Constant(constant) => &constant.expr,
        }
    }

    /// What distinguishes the name from others, as far as the macro can see.
    pub(crate) fn seen(&self) -> (bool, String) {
        match self {
            Self::Literal(literal) => (true, literal.value()),
            Self::Constant(constant) => (false, constant.expr.to_token_stream().to_string()),
        }
    }

    /// The items for the names' constants, each checked by the given `const fn` of the framework.
    pub(crate) fn constants<'a>(
        private: &TokenStream,
        check: &str,
        names: impl IntoIterator<Item = &'a Self>,
    ) -> TokenStream {
        let check = Ident::new(check, Span::call_site());
        let items = names.into_iter().filter_map(|name| match name {
            Self::Literal(_) => None,
            Self::Constant(Constant { expr, ident }) => {
                let check = at(expr.span(), quote!(#private::#check));
                let value = quote_spanned!(expr.span()=> #check(#expr));
                Some(quote!(const #ident: &'static ::core::primitive::str = #value;))
            }
        });
        quote!(#(#items)*)
    }
}

/// As a pattern or an expression.
impl ToTokens for Name {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Literal(literal) => literal.to_tokens(tokens),
            Self::Constant(constant) => constant.ident.to_tokens(tokens),
        }
    }
}
