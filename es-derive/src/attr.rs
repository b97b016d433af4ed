//! Reads `#[es(key = value, key(…), key)]`: unknown and duplicate keys are errors on the key, and a mistake in one key does
//! not hide the next.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, DeriveInput, Ident, LitInt, LitStr, Token};

use crate::ctxt::Ctxt;

/// A value that may be given once.
pub(crate) struct Once<T>(Option<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Once<T> {
    /// Takes the value of a key; a second one is a mistake on the second key.
    pub(crate) fn set(&mut self, ctxt: &mut Ctxt, key: &Ident, value: T) {
        if self.0.is_some() {
            ctxt.error(key, format_args!("`{}` is given twice", key.unraw()));
        } else {
            self.0 = Some(value);
        }
    }

    /// The value, if it was given.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// The value itself, if it was given.
    pub(crate) fn take(self) -> Option<T> {
        self.0
    }
}

/// The keys that can stand at one place of an attribute; made by [`keys!`].
pub(crate) trait Keys: Copy + 'static {
    /// Each key as it is written.
    const ALL: &'static [(&'static str, Self)];
}

/// Declares the keys of one place as an enum, so that the `match` that reads them has an arm for each.
macro_rules! keys {
    ($(#[$doc:meta])* $name:ident { $($key:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        enum $name { $($key),* }

        impl $crate::attr::Keys for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$key)),*];
        }
    };
}
pub(crate) use keys;

keys! {
    /// Where no key can stand.
    NoKey {}
}

/// Calls `take` for each key of all `#[es(…)]` attributes; `take` reads the value.
pub(crate) fn each_key<K: Keys>(
    ctxt: &mut Ctxt,
    attributes: &[Attribute],
    place: &str,
    mut take: impl FnMut(&mut Ctxt, K, &Ident, ParseStream<'_>) -> syn::Result<()>,
) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("es")) {
        match &attribute.meta {
            syn::Meta::List(list) => {
                let parsed = (|input: ParseStream<'_>| {
                    read_keys(ctxt, input, place, &mut take);
                    Ok(())
                })
                .parse2(list.tokens.clone());
                if let Err(error) = parsed {
                    ctxt.push(error);
                }
            }
            meta => ctxt.error(meta, format_args!("expected `#[es(…)]` with {}", one_of(&texts::<K>()))),
        }
    }
}

/// Refuses `#[es(…)]` where there are no keys.
pub(crate) fn no_keys(ctxt: &mut Ctxt, attributes: &[Attribute], place: &str) {
    each_key(ctxt, attributes, place, |_, key: NoKey, _, _| match key {});
}

/// Refuses `#[es(…)]` on fields and variants, where the derive has no keys.
pub(crate) fn no_keys_inside(ctxt: &mut Ctxt, input: &DeriveInput, variant: &str) {
    match &input.data {
        syn::Data::Struct(data) => data.fields.iter().for_each(|field| no_keys(ctxt, &field.attrs, "a field")),
        syn::Data::Enum(data) => {
            for inside in &data.variants {
                no_keys(ctxt, &inside.attrs, variant);
                inside.fields.iter().for_each(|field| no_keys(ctxt, &field.attrs, "a field"));
            }
        }
        syn::Data::Union(_) => {}
    }
}

/// Reads the keys of one pair of parentheses to its end, whatever they are.
pub(crate) fn read_keys<K: Keys>(
    ctxt: &mut Ctxt,
    input: ParseStream<'_>,
    place: &str,
    take: &mut dyn FnMut(&mut Ctxt, K, &Ident, ParseStream<'_>) -> syn::Result<()>,
) {
    while !input.is_empty() {
        match input.call(Ident::parse_any) {
            Err(error) => {
                ctxt.push(syn::Error::new(error.span(), format!("expected a key: {}", one_of(&texts::<K>()))));
                skip(input);
            }
            Ok(ident) => {
                let name = ident.unraw().to_string();
                if let Some((_, key)) = K::ALL.iter().find(|(text, _)| *text == name) {
                    let taken = take(ctxt, *key, &ident, input);
                    let taken = taken.and_then(|()| {
                        if input.is_empty() || input.peek(Token![,]) {
                            Ok(())
                        } else {
                            Err(input.error("expected `,`"))
                        }
                    });
                    if let Err(error) = taken {
                        ctxt.push(error);
                        skip(input);
                    }
                } else {
                    ctxt.error(&ident, unknown(&name, place, &texts::<K>()));
                    skip(input);
                }
            }
        }
        // Either the end or a comma is next.
        if input.parse::<Option<Token![,]>>().is_err() {
            return;
        }
    }
}

fn texts<K: Keys>() -> Vec<&'static str> {
    K::ALL.iter().map(|(text, _)| *text).collect()
}

/// Reads `= value`.
pub(crate) fn value<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// Reads `= 2`: a version, 1 or more.
pub(crate) fn version(input: ParseStream<'_>) -> syn::Result<(u32, LitInt)> {
    input.parse::<Token![=]>()?;
    let literal: LitInt = input
        .parse()
        .map_err(|error| syn::Error::new(error.span(), "a version is a number that is written out: `version = 2`"))?;
    match literal.base10_parse::<u32>() {
        Ok(0) => Err(syn::Error::new(literal.span(), "a version is 1 or more")),
        Ok(version) => Ok((version, literal)),
        Err(_) => Err(syn::Error::new(literal.span(), "a version is a whole number from 1 to 4294967295")),
    }
}

/// Reads `(…)` and gives what stands inside.
pub(crate) fn parenthesized(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    match input.parse()? {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => Ok(group.stream()),
        other => Err(syn::Error::new(other.span(), "expected `(…)`")),
    }
}

/// Reads `= "path::to::es_framework"`.
pub(crate) fn crate_path(input: ParseStream<'_>) -> syn::Result<syn::Path> {
    value::<LitStr>(input)?.parse_with(syn::Path::parse_mod_style)
}

/// Names what is expected, and the nearest to what was written.
fn unknown(name: &str, place: &str, expected: &[&str]) -> String {
    let near = expected.iter().filter(|key| distance(name, key) <= 2).min_by_key(|key| distance(name, key));
    match near {
        Some(near) => {
            format!("unknown key `{name}`: did you mean `{near}`? On {place}, {} can stand", one_of(expected))
        }
        None => format!("unknown key `{name}`: on {place}, {} can stand", one_of(expected)),
    }
}

/// `a`, `b` or `c`, in backticks.
fn one_of(keys: &[&str]) -> String {
    match keys {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(|key| format!("`{key}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

fn skip(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if input.parse::<TokenTree>().is_err() {
            return;
        }
    }
}

/// The edit distance of two short texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_two_words_is_the_number_of_edits() {
        for (a, b, edits) in
            [("name", "name", 0), ("nmae", "name", 2), ("versoin", "version", 2), ("", "id", 2), ("alis", "alias", 1)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
