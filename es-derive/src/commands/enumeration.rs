//! The enum of all commands in the block.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{Type, TypePath};

use super::handler::{Handler, ungrouped, with_services};
use super::{Commands, EnumName, shown};
use crate::ctxt::Ctxt;
use crate::generate::{as_generated, at, is_generic, without_self};

/// The enum of the handlers' commands.
pub(super) struct Enumeration<'a> {
    commands: &'a Commands<'a>,
    name: &'a EnumName,
    variants: Vec<Variant<'a>>,
    services: Option<&'a Type>,
}

struct Variant<'a> {
    ident: Ident,
    /// The type of the command, without `Self`.
    command: TokenStream,
    handler: &'a Handler,
}

impl<'a> Enumeration<'a> {
    /// Returns [`None`], and reports a mistake, if there can be no enum.
    pub(super) fn new(ctxt: &mut Ctxt, commands: &'a Commands<'a>, name: &'a EnumName) -> Option<Self> {
        if is_generic(&commands.block.generics) {
            ctxt.error(
                &name.ident,
                "a generic aggregate cannot have an enum of its commands: write the enum and its `Handle` by hand",
            );
            return None;
        }
        let mut variants: Vec<Variant<'_>> = Vec::new();
        let mut services: Option<&Type> = None;
        for handler in commands.handlers {
            let Some(ident) = ident_of(ctxt, &handler.command) else { continue };
            if variants.iter().any(|other| other.ident == ident) {
                ctxt.error(
                    &handler.command,
                    format_args!("the enum already has a `{ident}`: give one of them another name, `use other::{ident} as Other{ident}`"),
                );
                continue;
            }
            if let Some(wanted) = &handler.services {
                if let Some(known) = services.filter(|known| shown(known) != shown(wanted)) {
                    let known = shown(known);
                    ctxt.error(wanted, format_args!("all commands of the enum get the same services, here `{known}`"));
                    continue;
                }
                services = Some(wanted);
            }
            let command = without_self(&handler.command, &commands.block.self_ty.to_token_stream());
            variants.push(Variant { ident, command, handler });
        }
        Some(Self { commands, name, variants, services })
    }

    pub(super) fn expand(&self) -> TokenStream {
        let private = self.commands.keys.framework.private();
        let EnumName { visibility, ident } = self.name;
        let block_cfgs = super::cfgs(&self.commands.block.attrs);
        let this = &self.commands.block.self_ty;
        let derives = self.commands.keys.derives.get().map(|derives| quote!(#[derive(#derives)]));
        let about = format!("A command of `{}`.", shown(this));
        let cfgs: Vec<_> = self.variants.iter().map(|variant| &variant.handler.cfgs).collect();
        let lints: Vec<_> = self.variants.iter().map(|variant| &variant.handler.lints).collect();
        let idents: Vec<_> = self.variants.iter().map(|variant| &variant.ident).collect();
        let types: Vec<_> = self.variants.iter().map(|variant| &variant.command).collect();
        let abouts = idents.iter().map(|ident| format!("The command `{ident}`."));
        let names: Vec<_> = types
            .iter()
            .zip(&self.variants)
            .map(|(ty, variant)| quote_spanned!(variant.handler.command.span()=> <#ty as #private::Command>::NAME))
            .collect();
        let text = ident.to_string();
        let distinct = at(ident.span(), quote!(#private::distinct_commands(<#ident as #private::Commands>::NAMES)));
        let handle = self.handle(&private);
        let of_self =
            |arms: TokenStream| if idents.is_empty() { quote!(match *self {}) } else { quote!(match self { #arms }) };
        let name = of_self(quote!(#(#(#cfgs)* Self::#idents(_) => #names,)*));
        let content = of_self(
            quote!(#(#(#cfgs)* Self::#idents(__command) => #private::serde::Serialize::serialize(__command, __serializer),)*),
        );
        quote! {
            #(#block_cfgs)*
            #[doc = #about]
            #derives
            #visibility enum #ident {
                #(#(#cfgs)* #lints #[doc = #abouts] #idents(#types),)*
            }

            #(#block_cfgs)*
            #[doc(hidden)]
            #(#lints)*
            const _: () = {
                #(
                    #(#cfgs)*
                    #[automatically_derived]
                    impl ::core::convert::From<#types> for #ident {
                        fn from(__command: #types) -> Self {
                            Self::#idents(__command)
                        }
                    }
                )*

                const _: () = #distinct;

                #[automatically_derived]
                impl #private::Command for #ident {
                    const NAME: &'static ::core::primitive::str = #text;

                    fn name(&self) -> &'static ::core::primitive::str {
                        #name
                    }

                    fn serialize_content<__R: #private::serde::Serializer>(
                        &self,
                        __serializer: __R,
                    ) -> ::core::result::Result<__R::Ok, __R::Error> {
                        #content
                    }
                }

                #[automatically_derived]
                impl #private::Commands for #ident {
                    const NAMES: &'static [&'static ::core::primitive::str] = &[#(#(#cfgs)* #names),*];

                    fn read<'__de, __R: #private::ReadCommand<'__de>>(
                        __name: &::core::primitive::str,
                        __reader: __R,
                    ) -> ::core::result::Result<Self, __R::Error> {
                        #(
                            #(#cfgs)*
                            if __name == #names {
                                return ::core::result::Result::map(#private::ReadCommand::read(__reader), Self::#idents);
                            }
                        )*
                        #private::unknown_command::<Self, __R::Error>(__name)
                    }
                }

                #[automatically_derived]
                impl #private::serde::Serialize for #ident {
                    fn serialize<__R: #private::serde::Serializer>(
                        &self,
                        __serializer: __R,
                    ) -> ::core::result::Result<__R::Ok, __R::Error> {
                        #private::serialize_command(self, __serializer)
                    }
                }

                #[automatically_derived]
                impl<'__de> #private::serde::Deserialize<'__de> for #ident {
                    fn deserialize<__R: #private::serde::Deserializer<'__de>>(
                        __deserializer: __R,
                    ) -> ::core::result::Result<Self, __R::Error> {
                        #private::deserialize_command(__deserializer)
                    }
                }

                #handle
            };
        }
    }

    /// Makes the aggregate handle the enum as it handles the command inside.
    fn handle(&self, private: &TokenStream) -> TokenStream {
        let this = &self.commands.block.self_ty;
        let ident = &self.name.ident;
        let error = self.commands.error();
        let (generics, services) = with_services(&self.commands.block.generics, self.services);
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let arms = self.variants.iter().map(|variant| {
            let (cfgs, command, inside) = (&variant.handler.cfgs, &variant.command, &variant.ident);
            quote! {
                #(#cfgs)*
                #ident::#inside(__command) =>
                    <Self as #private::Handle<#command, #services>>::handle(self, __command, __context),
            }
        });
        let body =
            if self.variants.is_empty() { quote!(match *__command {}) } else { quote!(match __command { #(#arms)* }) };
        let used = if self.variants.is_empty() { quote!(_) } else { quote!(__context) };
        quote! {
            #[automatically_derived]
            impl #impl_generics #private::Handle<#ident, #services> for #this #where_clause {
                type Error = #error;

                fn handle(
                    &self,
                    __command: &#ident,
                    #used: &#private::Context<'_, Self, #services>,
                ) -> ::core::result::Result<#private::Vec<<Self as #private::State>::Event>, #error> {
                    #body
                }
            }
        }
    }
}

/// The name of a variant: the last segment of the command's path.
fn ident_of(ctxt: &mut Ctxt, command: &Type) -> Option<Ident> {
    struct Lifetimes(bool);
    impl<'ast> Visit<'ast> for Lifetimes {
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            self.0 |= lifetime.ident != "static";
        }
    }
    let mut lifetimes = Lifetimes(false);
    lifetimes.visit_type(command);
    if lifetimes.0 {
        ctxt.error(
            command,
            "the enum owns its commands, but this one borrows: make it own its data, or leave it out of this block",
        );
        return None;
    }
    let Type::Path(TypePath { path, .. }) = ungrouped(command) else {
        ctxt.error(command, "a command of the enum is a type with a name of its own");
        return None;
    };
    path.segments.last().map(|segment| as_generated(&segment.ident))
}
