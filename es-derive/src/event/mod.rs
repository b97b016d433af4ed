//! `#[derive(Event)]`: parse → validate → expand.

mod expand;
mod join;
mod parse;
mod stream;
mod tags;
mod validate;

use proc_macro2::TokenStream;
use syn::DeriveInput;

use crate::ctxt::Ctxt;

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let event = parse::Input::parse(&mut ctxt, input);
    if event.join.is_some() {
        let parts = join::parts(&mut ctxt, &event);
        return match ctxt.into_compile_errors() {
            None => join::expand(&event, &parts),
            Some(errors) => expand::fallback(&event, &errors),
        };
    }
    validate::check(&mut ctxt, &event);
    match ctxt.into_compile_errors() {
        None => expand::expand(&event),
        Some(errors) => expand::fallback(&event, &errors),
    }
}
