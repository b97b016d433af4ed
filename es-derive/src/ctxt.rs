//! Collects every mistake of one input, so that all are reported in one build.

use proc_macro2::TokenStream;
use quote::ToTokens;

/// The mistakes found so far.
#[derive(Default)]
pub(crate) struct Ctxt {
    errors: Vec<syn::Error>,
    numbers: usize,
}

impl Ctxt {
    /// Adds a mistake at the user's own token.
    pub(crate) fn error(&mut self, at: impl ToTokens, message: impl std::fmt::Display) {
        self.errors.push(syn::Error::new_spanned(at, message));
    }

    /// An unused number, for the name of a helper item.
    pub(crate) fn number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    /// Adds a mistake found by the parser.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.errors.push(error);
    }

    /// The `compile_error!`s of all mistakes, or nothing if there were none.
    pub(crate) fn into_compile_errors(self) -> Option<TokenStream> {
        let all = self.errors.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        })?;
        Some(all.into_compile_error())
    }
}
