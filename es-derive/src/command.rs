//! `#[derive(Command)]`: parse → validate → expand.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::DeriveInput;

use crate::attr::{Once, crate_path, each_key, keys, no_keys_inside};
use crate::check;
use crate::ctxt::Ctxt;
use crate::generate::{Framework, in_const, lints_of};
use crate::name::Name;

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let command = Command::parse(&mut ctxt, input);
    command.validate(&mut ctxt);
    // It is expanded even if there are mistakes, so that the user sees only these.
    let code = command.expand();
    let errors = ctxt.into_compile_errors();
    quote!(#errors #code)
}

/// The type that derives `Command`.
struct Command<'a> {
    input: &'a DeriveInput,
    framework: Framework,
    name: Once<Name>,
    /// Whether the key was present but could not be read, so that it is not reported as missing too.
    name_is_broken: bool,
}

keys! {
    /// On a command.
    Key { Name = "name", Crate = "crate" }
}

impl<'a> Command<'a> {
    fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let (mut path, mut name, mut name_is_broken) = (Once::default(), Once::default(), false);
        each_key(ctxt, &input.attrs, "a command", |ctxt, key, ident, input| {
            match key {
                Key::Name => {
                    name_is_broken = true;
                    let number = ctxt.number();
                    name.set(ctxt, ident, Name::parse(input, number)?);
                }
                Key::Crate => path.set(ctxt, ident, crate_path(input)?),
            }
            Ok(())
        });
        no_keys_inside(ctxt, input, "a variant of a command");
        Self { input, framework: Framework::new(path.get()), name, name_is_broken }
    }

    fn validate(&self, ctxt: &mut Ctxt) {
        if let syn::Data::Union(data) = &self.input.data {
            ctxt.error(data.union_token, "a command is a struct or an enum, not a union");
        }
        match self.name.get() {
            Some(name) => check::command_name(ctxt, name),
            None if !self.name_is_broken => ctxt.error(
                &self.input.ident,
                "a command needs a stored name, which stays when the type is renamed: `#[es(name = \"…\")]`",
            ),
            None => {}
        }
    }

    fn expand(&self) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let (impl_generics, ty_generics, where_clause) = self.input.generics.split_for_impl();
        let name = self.name.get().map_or_else(|| quote!(""), ToTokens::to_token_stream);
        let constants = Name::constants(&private, "stored_name", self.name.get());
        in_const(
            &lints_of(self.input),
            &quote! {
                #constants

            #[automatically_derived]
                impl #impl_generics #private::Command for #ident #ty_generics #where_clause {
                    const NAME: &'static ::core::primitive::str = #name;
                }
            },
        )
    }
}
