//! `#[derive(View)]`: parse → validate → expand.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{DeriveInput, LitStr, Token, Type, parse_quote};

use crate::attr::{Once, crate_path, each_key, keys, no_keys_inside, parenthesized, value};
use crate::check;
use crate::ctxt::Ctxt;
use crate::generate::{Framework, extended, in_const, is_generic, lints_of};
use crate::name::Name;

pub(crate) fn derive(input: &DeriveInput) -> TokenStream {
    let mut ctxt = Ctxt::default();
    let view = View::parse(&mut ctxt, input);
    view.validate(&mut ctxt);
    match ctxt.into_compile_errors() {
        None => view.expand(),
        Some(errors) => view.fallback(&errors),
    }
}

/// The type that derives `View`.
struct View<'a> {
    input: &'a DeriveInput,
    framework: Framework,
    event: Once<Type>,
    /// Whether the key `event` was present but could not be read, so that it is not reported as missing too.
    event_is_broken: bool,
    /// The tags of each criterion; one without tags if there is none.
    criteria: Vec<Vec<Tag>>,
}

/// `course: CourseId = "course"` in `tags(…)`.
struct Tag {
    parameter: Ident,
    ty: Option<Type>,
    name: Name,
}

keys! {
    /// On a view.
    Key { Event = "event", Tags = "tags", Crate = "crate" }
}

impl<'a> View<'a> {
    fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let (mut path, mut event, mut event_is_broken) = (Once::default(), Once::default(), false);
        let mut criteria = Vec::new();
        each_key(ctxt, &input.attrs, "a view", |ctxt, key, ident, input| {
            match key {
                Key::Event => {
                    event_is_broken = true;
                    event.set(ctxt, ident, value(input)?);
                }
                Key::Tags => {
                    let tags = parenthesized(input)?;
                    let parse = |input: ParseStream<'_>| {
                        let mut tags = Vec::new();
                        while !input.is_empty() {
                            tags.push(Tag::parse(ctxt, input)?);
                            if !input.is_empty() {
                                input.parse::<Token![,]>()?;
                            }
                        }
                        Ok(tags)
                    };
                    let tags = parse.parse2(tags)?;
                    if tags.is_empty() {
                        ctxt.error(ident, "`tags` names the tags that the view's events have: `tags(course)`");
                    }
                    criteria.push(tags);
                }
                Key::Crate => path.set(ctxt, ident, crate_path(input)?),
            }
            Ok(())
        });
        no_keys_inside(ctxt, input, "a variant of a view");
        Self { input, framework: Framework::new(path.get()), event, event_is_broken, criteria }
    }

    fn validate(&self, ctxt: &mut Ctxt) {
        if let syn::Data::Union(data) = &self.input.data {
            ctxt.error(data.union_token, "a view is a struct or an enum, not a union");
        }
        if self.event.get().is_none() && !self.event_is_broken {
            ctxt.error(&self.input.ident, "a view needs the type of its events: `#[es(event = …)]`");
        }
        for tags in &self.criteria {
            for (n, tag) in tags.iter().enumerate() {
                check::tag_name(ctxt, &tag.name);
                if tags.iter().take(n).any(|before| before.parameter == tag.parameter) {
                    ctxt.error(&tag.parameter, format_args!("`{}` is given twice", tag.parameter.unraw()));
                }
            }
        }
        for (n, tag) in self.tags().enumerate() {
            let Some(ty) = &tag.ty else { continue };
            let first = self.tags().take(n).find(|before| before.parameter == tag.parameter);
            if first.is_some_and(|first| first.ty.as_ref().is_some_and(|other| other != ty)) {
                ctxt.error(ty, format_args!("`{}` has another type before", tag.parameter.unraw()));
            }
        }
    }

    fn expand(&self) -> TokenStream {
        let private = self.framework.private();
        let (ident, vis, lints) = (&self.input.ident, &self.input.vis, lints_of(self.input));
        let event = self.event.get();
        let constants = Name::constants(&private, "tag_name", self.tags().map(|tag| &tag.name));
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let parameters = self.parameters();
        let arguments = parameters.iter().map(|tag| &tag.parameter).collect::<Vec<_>>();
        let types = parameters.iter().map(|tag| match &tag.ty {
            None => quote!(impl ::core::fmt::Display),
            Some(ty) => quote!(impl ::core::borrow::Borrow<#ty>),
        });
        let criteria = if self.criteria.is_empty() {
            quote!(#private::criterion([]))
        } else {
            let criteria = self.criteria.iter().map(|tags| {
                let tags = tags.iter().map(|tag| tag.text(&parameters));
                quote!(#private::criterion([#(#tags),*]))
            });
            quote!(#(#criteria),*)
        };
        in_const(
            &lints,
            &quote! {
                #constants

                #[automatically_derived]
                impl #impl_generics #private::State for #ident #ty_generics #where_clause {
                    type Event = #event;
                    type Name = #private::ViewOf<Self>;
                    type Kind = #private::OfQuery;
                }

                #[automatically_derived]
                impl #impl_generics #private::View for #ident #ty_generics #where_clause {}

                #lints
                #[automatically_derived]
                impl #impl_generics #ident #ty_generics #where_clause {
                    /// The view over the events with these tags.
                    #vis fn of(#(#arguments: #types),*) -> #private::ViewOf<Self> {
                        #private::ViewOf::<Self>::from_criteria([#criteria])
                    }
                }
            },
        )
    }

    /// An implementation that compiles, so that the user sees only the mistakes.
    fn fallback(&self, errors: &TokenStream) -> TokenStream {
        let private = self.framework.private();
        let ident = &self.input.ident;
        let event = self.event.get().map_or_else(|| quote!(#private::NoEvent), |event| quote!(#event));
        let generics = extended(&self.input.generics, self.bounds());
        let (impl_generics, ty_generics, where_clause) = generics.split_for_impl();
        let code = in_const(
            &lints_of(self.input),
            &quote! {
                #[automatically_derived]
                impl #impl_generics #private::State for #ident #ty_generics #where_clause {
                    type Event = #event;
                    type Name = #private::ViewOf<Self>;
                    type Kind = #private::OfQuery;
                }

                #[automatically_derived]
                impl #impl_generics #private::View for #ident #ty_generics #where_clause {}
            },
        );
        quote!(#errors #code)
    }

    fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.criteria.iter().flatten()
    }

    /// The parameters of `of`: each once, with its type if one is given anywhere.
    fn parameters(&self) -> Vec<&Tag> {
        let mut parameters: Vec<&Tag> = Vec::new();
        for tag in self.tags() {
            match parameters.iter_mut().find(|known| known.parameter == tag.parameter) {
                None => parameters.push(tag),
                Some(known) if known.ty.is_none() => *known = tag,
                Some(_) => {}
            }
        }
        parameters
    }

    /// The bounds that `View` requires of the type, if they depend on its parameters.
    fn bounds(&self) -> Vec<syn::WherePredicate> {
        if !is_generic(&self.input.generics) {
            return Vec::new();
        }
        let ident = &self.input.ident;
        let (_, ty_generics, _) = self.input.generics.split_for_impl();
        vec![parse_quote! {
            #ident #ty_generics: ::core::default::Default
                + ::core::clone::Clone
                + ::core::marker::Send
                + ::core::marker::Sync
                + 'static
        }]
    }
}

impl Tag {
    fn parse(ctxt: &mut Ctxt, input: ParseStream<'_>) -> syn::Result<Self> {
        let parameter = input.call(Ident::parse_any).map_err(|error| {
            syn::Error::new(error.span(), "expected the name of a tag: `tags(course)` or `tags(course: CourseId)`")
        })?;
        let ty = if input.peek(Token![:]) {
            input.parse::<Token![:]>()?;
            Some(input.parse()?)
        } else {
            None
        };
        let number = ctxt.number();
        let name = if input.peek(Token![=]) {
            Name::parse(input, number)?
        } else {
            Name::Literal(LitStr::new(&parameter.unraw().to_string(), parameter.span()))
        };
        Ok(Self { parameter, ty, name })
    }

    /// Its name and its value, which is formatted.
    fn text(&self, parameters: &[&Self]) -> TokenStream {
        let (name, parameter) = (&self.name, &self.parameter);
        let known = parameters.iter().find(|known| known.parameter == *parameter);
        let value = match known.and_then(|known| known.ty.as_ref()) {
            None => quote!(&#parameter),
            // A type that cannot be formatted is reported where it is named.
            Some(ty) => quote_spanned!(ty.span()=> ::core::borrow::Borrow::<#ty>::borrow(&#parameter)),
        };
        quote!((#name, #value as &dyn ::core::fmt::Display))
    }
}
