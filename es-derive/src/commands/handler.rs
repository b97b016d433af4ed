//! One method of the block as a handler.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, GenericArgument, GenericParam, ImplItemFn, PathArguments, ReturnType, Type, parse_quote};

use super::{Commands, cfgs, shown};
use crate::ctxt::Ctxt;
use crate::generate::{at, lints};

/// `fn deposit(&self, command: &Deposit, …) -> …`.
pub(super) struct Handler {
    pub(super) method: Ident,
    /// The type of its command, without the reference.
    pub(super) command: Type,
    /// The services it needs, if any.
    pub(super) services: Option<Type>,
    pub(super) cfgs: Vec<Attribute>,
    /// The lints that the user allows, as attributes.
    pub(super) lints: TokenStream,
    arguments: Vec<Argument>,
    output: Span,
}

/// An argument of a handler besides the state and the command.
enum Argument {
    /// A context without services.
    Context,
    /// A context with services.
    ContextOfServices,
    Services,
}

const HELPER: &str = "mark a method that handles no command `#[es(skip)]`, or move it into another `impl` block";

impl Handler {
    /// Reads a method. Returns [`None`], and reports a mistake, if it cannot be a handler.
    pub(super) fn parse(ctxt: &mut Ctxt, method: &ImplItemFn) -> Option<Self> {
        let signature = &method.sig;
        if let Some(keyword) = &signature.asyncness {
            ctxt.error(keyword, "a handler cannot be `async`: it decides from its arguments and has no side effects");
            return None;
        }
        if let Some(keyword) = &signature.unsafety {
            ctxt.error(keyword, "a handler cannot be `unsafe`");
            return None;
        }
        if let Some(parameter) =
            signature.generics.params.iter().find(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
        {
            ctxt.error(
                parameter,
                format_args!("a handler has no parameters of its own, it handles one command; {HELPER}"),
            );
            return None;
        }
        let mut inputs = signature.inputs.iter();
        match inputs.next() {
            // `&self`, also where it is written as `self: &Self`.
            Some(FnArg::Receiver(receiver)) if matches!(ungrouped(&receiver.ty), Type::Reference(it) if it.mutability.is_none()) =>
                {}
            Some(FnArg::Receiver(receiver)) => {
                ctxt.error(receiver, "a handler takes `&self`: it decides, and `apply` changes the state");
                return None;
            }
            _ => {
                ctxt.error(&signature.ident, format_args!("a handler takes `&self` and a command; {HELPER}"));
                return None;
            }
        }
        let Some(FnArg::Typed(command)) = inputs.next() else {
            ctxt.error(&signature.ident, format_args!("a handler takes a command: `command: &Deposit`; {HELPER}"));
            return None;
        };
        let command = borrowed(ctxt, &command.ty, "a handler borrows its command, and may be called with it again")?;
        let mut handler = Self {
            method: signature.ident.clone(),
            command,
            services: None,
            cfgs: cfgs(&method.attrs),
            lints: lints(&method.attrs),
            arguments: Vec::new(),
            output: match &signature.output {
                ReturnType::Default => signature.ident.span(),
                ReturnType::Type(_, ty) => ty.span(),
            },
        };
        for input in inputs {
            if let FnArg::Typed(input) = input {
                handler.take(ctxt, &input.ty)?;
            }
        }
        handler.without_lifetimes(ctxt, signature)?;
        Some(handler)
    }

    /// Takes an argument after the command: the context, which is recognized by its name, or services.
    fn take(&mut self, ctxt: &mut Ctxt, ty: &Type) -> Option<()> {
        let inner = borrowed(ctxt, ty, "a handler borrows its context and its services")?;
        let (argument, services) = argument_of(inner);
        let is_context = |argument: &Argument| !matches!(argument, Argument::Services);
        if is_context(&argument) && self.arguments.iter().any(is_context) {
            ctxt.error(ty, "a handler takes one context");
            return None;
        }
        if let Some(services) = services {
            if self.services.is_some() {
                ctxt.error(
                    ty,
                    "a handler takes a command, a context `&Context<'_, Self>` and one value with its services",
                );
                return None;
            }
            self.services = Some(services);
        }
        self.arguments.push(argument);
        Some(())
    }

    /// Types that are used outside the method cannot name its lifetimes.
    fn without_lifetimes(&self, ctxt: &mut Ctxt, signature: &syn::Signature) -> Option<()> {
        let types = [Some(&self.command), self.services.as_ref()];
        for ty in types.into_iter().flatten() {
            let of_method = syn::Generics { where_clause: None, ..signature.generics.clone() };
            if crate::generate::mentions_parameter(ty, &of_method) {
                ctxt.error(ty, "a handler has no lifetimes of its own here: write `'_`");
                return None;
            }
        }
        Some(())
    }

    /// The implementation of `Handle`.
    pub(super) fn expand(&self, commands: &Commands<'_>) -> TokenStream {
        let private = commands.keys.framework.private();
        let Self { method, command, cfgs, lints, .. } = self;
        let (generics, services) = with_services(&commands.block.generics, self.services.as_ref());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let this = &commands.block.self_ty;
        let error = commands.error();
        let arguments = self.arguments.iter().map(|argument| match argument {
            Argument::Context => quote!(&#private::Context::without_services(__context)),
            Argument::ContextOfServices => quote!(__context),
            Argument::Services => quote!(#private::Context::services(__context)),
        });
        let used = if self.arguments.is_empty() { quote!(_) } else { quote!(__context) };
        // If the method returns another type, the error points at its return type.
        let decide = at(
            self.output,
            quote! {
                #private::IntoDecision::<<Self as #private::State>::Event, #error>::into_decision(
                    Self::#method(self, __command #(, #arguments)*)
                )
            },
        );
        quote! {
            #(#cfgs)*
            #lints
            #[automatically_derived]
            impl #impl_generics #private::Handle<#command, #services> for #this #where_clause {
                type Error = #error;

                fn handle(
                    &self,
                    __command: &#command,
                    #used: &#private::Context<'_, Self, #services>,
                ) -> ::core::result::Result<#private::Vec<<Self as #private::State>::Event>, #error> {
                    #decide
                }
            }
        }
    }
}

/// The generics of an implementation for these services, or for any services if there are none.
pub(super) fn with_services(generics: &syn::Generics, services: Option<&Type>) -> (syn::Generics, TokenStream) {
    let mut generics = generics.clone();
    if let Some(services) = services {
        return (generics, services.to_token_stream());
    }
    generics.params.push(parse_quote!(__S: ?::core::marker::Sized));
    (generics, quote!(__S))
}

/// The type behind a `&`; reports a mistake if there is no `&`.
fn borrowed(ctxt: &mut Ctxt, ty: &Type, why: &str) -> Option<Type> {
    match ty {
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::ImplTrait(_) => {
                ctxt.error(ty, "a handler names the types it takes, it has no `impl Trait`");
                None
            }
            elem => Some(elem.clone()),
        },
        Type::Reference(reference) => {
            ctxt.error(reference.mutability, format_args!("{why}: without `mut`"));
            None
        }
        Type::Paren(inner) => borrowed(ctxt, &inner.elem, why),
        Type::Group(inner) => borrowed(ctxt, &inner.elem, why),
        _ => {
            ctxt.error(ty, format_args!("{why}: write `&{}`; {HELPER}", shown(ty)));
            None
        }
    }
}

/// The type inside invisible groups and parentheses: a type that a user's macro took as `$ty:ty` arrives in such a group.
pub(super) fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        Type::Paren(paren) => ungrouped(&paren.elem),
        ty => ty,
    }
}

/// The kind of argument with this type behind its `&`, with the type of its services.
fn argument_of(ty: Type) -> (Argument, Option<Type>) {
    let context = match ungrouped(&ty) {
        Type::Path(path) => path.path.segments.last().filter(|segment| segment.ident == "Context"),
        _ => None,
    };
    let Some(context) = context else { return (Argument::Services, Some(ty)) };
    let PathArguments::AngleBracketed(arguments) = &context.arguments else { return (Argument::Context, None) };
    let mut types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    // The one after the aggregate.
    match types.nth(1) {
        Some(services) => (Argument::ContextOfServices, Some(services.clone())),
        None => (Argument::Context, None),
    }
}
