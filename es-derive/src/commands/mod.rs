//! `#[commands(…)]` on an `impl` block: parse → expand. Methods with mistakes are left out of the generated code.

mod enumeration;
mod handler;

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, ImplItem, ItemImpl, Token, Type, Visibility, parse_quote};

use self::enumeration::Enumeration;
use self::handler::Handler;
use crate::attr::{Once, crate_path, each_key, keys, parenthesized, read_keys, value};
use crate::ctxt::Ctxt;
use crate::generate::Framework;

pub(crate) fn expand(keys: TokenStream, item: &TokenStream) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let Ok(mut block) = syn::parse2::<ItemImpl>(item.clone()) else {
        let error = syn::Error::new_spanned(
            item,
            "`commands` belongs on an `impl` block of an aggregate: `impl Account { … }`",
        );
        let error = error.into_compile_error();
        return quote!(#item #error);
    };
    let keys = BlockKeys::parse(&mut ctxt, keys);
    let mut handlers = Vec::new();
    if let Some((_, path, _)) = &block.trait_ {
        ctxt.error(
            path,
            "`commands` belongs on the aggregate's own `impl` block, not on the implementation of a trait",
        );
    } else {
        handlers = handlers_of(&mut ctxt, &mut block);
    }
    let block_cfgs = cfgs(&block.attrs);
    let commands = Commands { block: &block, keys: &keys, handlers: &handlers };
    let enumeration = keys.name.get().and_then(|name| Enumeration::new(&mut ctxt, &commands, name));
    let impls = handlers.iter().map(|handler| handler.expand(&commands));
    let enumeration = enumeration.map(|enumeration| enumeration.expand());
    let code = quote! {
        #(#block_cfgs)*
        #[doc(hidden)]
        const _: () = {
            #(#impls)*
        };
        #enumeration
    };
    let errors = ctxt.into_compile_errors();
    quote!(#block #code #errors)
}

/// The block and its handlers.
struct Commands<'a> {
    block: &'a ItemImpl,
    keys: &'a BlockKeys,
    handlers: &'a [Handler],
}

/// The keys of the attribute.
struct BlockKeys {
    framework: Framework,
    error: Once<Type>,
    name: Once<EnumName>,
    derives: Once<TokenStream>,
}

/// `enum = pub AccountCommand`.
struct EnumName {
    visibility: Visibility,
    ident: Ident,
}

keys! {
    /// On the block.
    Key { Error = "error", Enum = "enum", Derive = "derive", Crate = "crate" }
}

keys! {
    /// On a method of the block.
    MethodKey { Skip = "skip" }
}

impl BlockKeys {
    fn parse(ctxt: &mut Ctxt, tokens: TokenStream) -> Self {
        let (mut path, mut error, mut name, mut derives) =
            (Once::default(), Once::default(), Once::default(), Once::default());
        let mut derive_key = None;
        let read = (|input: ParseStream<'_>| {
            read_keys(ctxt, input, "`commands`", &mut |ctxt, key, ident, input| {
                match key {
                    Key::Error => error.set(ctxt, ident, value(input)?),
                    Key::Enum => {
                        input.parse::<Token![=]>()?;
                        name.set(ctxt, ident, EnumName { visibility: input.parse()?, ident: input.parse()? });
                    }
                    Key::Derive => {
                        derive_key.get_or_insert_with(|| ident.clone());
                        derives.set(ctxt, ident, parenthesized(input)?);
                    }
                    Key::Crate => path.set(ctxt, ident, crate_path(input)?),
                }
                Ok(())
            });
            Ok(())
        })
        .parse2(tokens);
        if let Err(error) = read {
            ctxt.push(error);
        }
        if let (Some(key), None) = (&derive_key, name.get()) {
            ctxt.error(key, "`derive` is for the enum of commands: `enum = AccountCommand, derive(Debug)`");
        }
        Self { framework: Framework::new(path.get()), error, name, derives }
    }
}

impl Commands<'_> {
    /// The type of rejections.
    fn error(&self) -> TokenStream {
        self.keys.error.get().map_or_else(|| quote!(::core::convert::Infallible), ToTokens::to_token_stream)
    }
}

/// Reads the methods, and removes the macro's own attributes from them.
fn handlers_of(ctxt: &mut Ctxt, block: &mut ItemImpl) -> Vec<Handler> {
    let mut handlers: Vec<Handler> = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        let mut is_skipped = false;
        each_key(ctxt, &method.attrs, "a method", |_, key, _, _| {
            match key {
                MethodKey::Skip => is_skipped = true,
            }
            Ok(())
        });
        method.attrs.retain(|attribute| !attribute.path().is_ident("es"));
        if is_skipped {
            continue;
        }
        let Some(handler) = Handler::parse(ctxt, method) else { continue };
        // Not the user's choice: a handler that does not use the state takes it anyway.
        method.attrs.push(parse_quote!(#[allow(clippy::unused_self, clippy::trivially_copy_pass_by_ref)]));
        let command = shown(&handler.command);
        let twin = handlers
            .iter()
            .find(|other| other.cfgs.is_empty() && handler.cfgs.is_empty() && shown(&other.command) == command);
        if let Some(twin) = twin {
            ctxt.error(&handler.command, format_args!("`{command}` is already handled by `{}`", twin.method));
        } else {
            handlers.push(handler);
        }
    }
    handlers
}

/// The conditions under which an item is compiled, for the code generated from it.
fn cfgs(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect()
}

/// Tokens as a person would write them.
fn shown(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(" :: ", "::").replace(" < ", "<").replace(" >", ">")
}
