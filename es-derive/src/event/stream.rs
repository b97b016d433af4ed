//! The stream that an event names from its own fields, `#[es(stream = "course-{course}")]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Fields, LitStr, Member};

use super::parse::{Input, Variant};
use super::tags::{generated, variable};
use crate::check::MAX_NAME_BYTES;
use crate::ctxt::Ctxt;
use crate::generate::as_generated;

/// The id of a stream with placeholders for fields.
#[derive(Clone)]
pub(crate) struct Template {
    literal: LitStr,
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Text(String),
    /// The name of a field, or its index.
    Field(String),
}

impl Template {
    /// Reads a template; a mistake is reported, and the parts before it are kept.
    pub(crate) fn parse(ctxt: &mut Ctxt, literal: LitStr) -> Self {
        let value = literal.value();
        let parts = parts(&value).unwrap_or_else(|mistake| {
            ctxt.error(&literal, mistake);
            Vec::new()
        });
        let template = Self { literal, parts };
        if !template.parts.is_empty() || value.is_empty() {
            template.check(ctxt);
        }
        template
    }

    fn check(&self, ctxt: &mut Ctxt) {
        let texts = || self.parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
        let placeholders = self.parts.len() - texts().count();
        let bytes = texts().map(String::len).sum::<usize>() + placeholders;
        let Some(Part::Text(first)) = self.parts.first() else {
            ctxt.error(&self.literal, "a stream's id begins with its category: `#[es(stream = \"course-{course}\")]`");
            return;
        };
        if first.starts_with('@') {
            ctxt.error(&self.literal, "a stream's id cannot start with `@`, which is reserved for the store");
        } else if placeholders > 0 && (!first.contains('-') || first.starts_with('-')) {
            ctxt.error(
                &self.literal,
                "a placeholder cannot come before the first `-`, which ends the category: `course-{course}`",
            );
        }
        if let Some(character) = texts().flat_map(|text| text.chars()).find(|c| *c < ' ') {
            ctxt.error(
                &self.literal,
                format_args!("a stream's id cannot contain control characters, found {character:?}"),
            );
        }
        if bytes > MAX_NAME_BYTES {
            ctxt.error(&self.literal, format_args!("a stream's id has at most {MAX_NAME_BYTES} bytes"));
        }
    }

    /// Checks that the fields of a variant fill the placeholders.
    pub(crate) fn check_fields(&self, ctxt: &mut Ctxt, variant: &Variant<'_>) {
        for part in &self.parts {
            if let Part::Field(name) = part
                && member(variant.fields, name).is_none()
            {
                let names: Vec<_> = variant.fields.members().map(|member| format!("`{}`", spelled(&member))).collect();
                let fields =
                    if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
                ctxt.error(
                    &self.literal,
                    format_args!("`{}` has no field `{name}` for this placeholder: {fields}", variant.ident),
                );
            }
        }
    }

    /// The pattern of the fields it needs, and the stream's id.
    fn expand(&self, private: &TokenStream, fields: &Fields) -> (TokenStream, TokenStream) {
        let (mut pattern, mut statements) = (TokenStream::new(), TokenStream::new());
        let mut bound = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => statements.extend(quote!(__id.text(#text);)),
                Part::Field(name) => {
                    // Checked before.
                    let Some((field, member)) = member(fields, name) else { continue };
                    let index = bound.iter().position(|known| known == name);
                    let variable = variable("__field_", index.unwrap_or(bound.len()), field.ty.span());
                    if index.is_none() {
                        bound.push(name.clone());
                        let member = generated(&member);
                        pattern.extend(quote!(#member: #variable,));
                    }
                    // If the field cannot be formatted, the error points at its type.
                    let ty = &field.ty;
                    let shown = quote_spanned!(ty.span()=> <#ty as #private::StreamValue>::shown);
                    statements.extend(quote!(__id.field(#name, #shown(#variable));));
                }
            }
        }
        let id = quote!({
            let mut __id = #private::StreamText::new();
            #statements
            __id.finish()
        });
        (pattern, id)
    }
}

/// `Event::stream` of an event some of whose variants name their streams, and whether all do.
pub(crate) fn expand(event: &Input<'_>) -> (TokenStream, bool) {
    let private = event.framework.private();
    let named = event.variants.iter().filter(|variant| variant.stream.is_some()).count();
    let all = named == event.variants.len();
    if named == 0 {
        return (TokenStream::new(), all);
    }
    let arms = event.variants.iter().filter_map(|variant| {
        let template = variant.stream.as_ref()?;
        let ident = as_generated(variant.ident);
        let (pattern, id) = template.expand(&private, variant.fields);
        let path = if event.is_struct { quote!(Self) } else { quote!(Self::#ident) };
        Some(quote!(#path { #pattern .. } => #id,))
    });
    let rest = (!all).then(|| quote!(_ => ::core::result::Result::Ok(::core::option::Option::None),));
    let method = quote! {
        fn stream(&self) -> ::core::result::Result<::core::option::Option<#private::StreamId>, #private::InvalidName> {
            match self { #(#arms)* #rest }
        }
    };
    (method, all)
}

fn member<'a>(fields: &'a Fields, name: &str) -> Option<(&'a syn::Field, Member)> {
    fields.iter().zip(fields.members()).find(|(_, member)| spelled(member) == name)
}

fn spelled(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

/// Splits a template into text and placeholders; `{{` and `}}` are braces.
fn parts(template: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = template.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '{' | '}' if rest.next_if_eq(&c).is_some() => text.push(c),
            '{' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('}') => break,
                        Some(c) if c.is_alphanumeric() || c == '_' => name.push(c),
                        Some(c) => {
                            return Err(format!(
                                "a placeholder is the name of a field, found `{c}` in it: `{{course}}`"
                            ));
                        }
                        None => return Err(format!("the placeholder `{{{name}` has no end, expected `}}`")),
                    }
                }
                if name.is_empty() {
                    return Err("a placeholder is the name of a field: `{course}`".to_owned());
                }
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Field(name));
            }
            '}' => return Err("a `}` without a placeholder; write `}}` for a brace".to_owned()),
            c => text.push(c),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_placeholders() {
        let spelled = |template| {
            parts(template).map(|parts| {
                let spell = |part: Part| match part {
                    Part::Text(text) => text,
                    Part::Field(name) => format!("<{name}>"),
                };
                parts.into_iter().map(spell).collect::<Vec<_>>().join("|")
            })
        };
        assert_eq!(spelled("course-{course}").unwrap(), "course-|<course>");
        assert_eq!(spelled("a-{0}-{b}{c}-d").unwrap(), "a-|<0>|-|<b>|<c>|-d");
        assert_eq!(spelled("{{x}}").unwrap(), "{x}");
        assert_eq!(spelled("").unwrap(), "");
        for broken in ["{", "}", "{}", "{a b}", "{a:?}", "a-{b", "{{{"] {
            assert!(parts(broken).is_err(), "{broken}");
        }
    }
}
