//! Tags: fields by whose values an event can be found, `#[es(tag)]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Field, Fields, LitStr, Member, Token};

use super::parse::Variant;
use crate::attr::{Once, each_key, keys};
use crate::check;
use crate::ctxt::Ctxt;
use crate::generate::{as_generated, at};
use crate::name::Name;

keys! {
    /// On a field of an event.
    FieldKey { Tag = "tag" }
}

/// A field with a tag.
pub(crate) struct Tagged<'a> {
    /// The key, for pointing at it.
    pub(crate) key: Ident,
    pub(crate) name: Name,
    member: Member,
    field: &'a Field,
}

/// The tagged fields of a variant, in order.
pub(crate) fn parse<'a>(ctxt: &mut Ctxt, fields: &'a Fields) -> Vec<Tagged<'a>> {
    let mut tagged = Vec::new();
    for (field, member) in fields.iter().zip(fields.members()) {
        let mut found = Once::default();
        each_key(ctxt, &field.attrs, "a field", |ctxt, key, ident, input| {
            let FieldKey::Tag = key;
            let number = ctxt.number();
            let name = if input.peek(Token![=]) {
                Name::parse(input, number)?
            } else if let Member::Named(name) = &member {
                Name::Literal(LitStr::new(&name.unraw().to_string(), name.span()))
            } else {
                return Err(syn::Error::new(
                    ident.span(),
                    "a field without a name names its tag: `#[es(tag = \"…\")]`",
                ));
            };
            found.set(ctxt, ident, (ident.clone(), name));
            Ok(())
        });
        if let Some((key, name)) = found.take() {
            check::tag_name(ctxt, &name);
            tagged.push(Tagged { key, name, member, field });
        }
    }
    tagged
}

/// Statements that collect the tags of a variant in `__tags`, and the pattern of the fields they need.
pub(crate) fn collect(private: &TokenStream, variant: &Variant<'_>) -> (TokenStream, TokenStream) {
    let (mut pattern, mut statements) = (TokenStream::new(), TokenStream::new());
    for (n, Tagged { name, member, field, .. }) in variant.tags.iter().enumerate() {
        // If no tag can be made of the field, the error points at its type.
        let span = field.ty.span();
        let variable = variable("__tag_", n, span);
        let member = generated(member);
        pattern.extend(quote!(#member: #variable,));
        let value = at(span, quote!(#private::tagging::Value(#variable)));
        let add = quote_spanned!(span=> (&&&#value).add);
        statements.extend(quote!(#add(#name, &mut __tags);));
    }
    (pattern, statements)
}

/// A variable of generated code, for errors about a field of this type.
pub(crate) fn variable(name: &str, number: usize, ty: Span) -> Ident {
    Ident::new(&format!("{name}{number}"), Span::call_site().located_at(ty))
}

/// The member without the user's span, so that no lint is reported twice.
pub(crate) fn generated(member: &Member) -> Member {
    match member {
        Member::Named(ident) => Member::Named(as_generated(ident)),
        Member::Unnamed(index) => Member::Unnamed(index.clone()),
    }
}
