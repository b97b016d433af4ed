//! What the user wrote, as own structs.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::{Attribute, DeriveInput, Fields, Generics, LitInt, LitStr, Type};

use crate::attr::{Once, crate_path, each_key, keys, parenthesized, text, value, version};
use crate::ctxt::Ctxt;
use crate::generate::Framework;
use crate::serde_attr::SerdeKeys;

/// The type that derives `Event`.
pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) framework: Framework,
    /// The key `join`, on an enum of other events.
    pub(crate) join: Option<Ident>,
    /// The codec of all variants that do not name their own.
    pub(crate) codec: Option<Type>,
    pub(crate) serde: SerdeKeys<'a>,
    pub(crate) is_struct: bool,
    /// The variants of an enum, or the one event of a struct.
    pub(crate) variants: Vec<Variant<'a>>,
}

/// One event: a variant, or the struct itself.
pub(crate) struct Variant<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) fields: &'a Fields,
    pub(crate) serde: SerdeKeys<'a>,
    pub(crate) keys: EventKeys,
}

/// The keys of one event.
#[derive(Default)]
pub(crate) struct EventKeys {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<(u32, LitInt)>,
    pub(crate) aliases: Vec<LitStr>,
    pub(crate) old: Vec<Old>,
    pub(crate) codec: Option<Type>,
    /// The first key that stands here, to point at where none can.
    pub(crate) first: Option<Ident>,
    /// Whether a key was there but could not be read, so that its absence is not another mistake.
    pub(crate) name_is_broken: bool,
}

/// `from(version = 1, type = T, name = "old.name")`.
pub(crate) struct Old {
    pub(crate) version: u32,
    pub(crate) version_literal: LitInt,
    pub(crate) ty: Type,
    pub(crate) name: Option<LitStr>,
}

const EVENT_KEYS: &[&str] = &["name", "version", "alias", "from", "codec"];
const ENUM_KEYS: &[&str] = &["codec", "join", "crate"];
const STRUCT_KEYS: &[&str] = &["name", "version", "alias", "from", "codec", "crate"];
const OLD_KEYS: &[&str] = &["version", "type", "name"];

impl<'a> Input<'a> {
    pub(crate) fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let mut path = Once::default();
        let mut join = Once::default();
        let mut codec = Once::default();
        let mut variants = Vec::new();
        let mut is_struct = false;
        match &input.data {
            syn::Data::Enum(data) => {
                each_key(ctxt, &input.attrs, "an enum of events", ENUM_KEYS, |ctxt, key, input| {
                    match key.unraw().to_string().as_str() {
                        "crate" => path.set(ctxt, key, crate_path(input)?),
                        "codec" => codec.set(ctxt, key, value(input)?),
                        _ => join.set(ctxt, key, key.clone()),
                    }
                    Ok(())
                });
                for variant in &data.variants {
                    variants.push(Variant {
                        ident: &variant.ident,
                        fields: &variant.fields,
                        serde: SerdeKeys::of(&variant.attrs),
                        keys: EventKeys::parse(ctxt, &variant.attrs, "a variant", EVENT_KEYS, &mut path),
                    });
                }
            }
            syn::Data::Struct(data) => {
                is_struct = true;
                variants.push(Variant {
                    ident: &input.ident,
                    fields: &data.fields,
                    serde: SerdeKeys::of(&[]),
                    keys: EventKeys::parse(ctxt, &input.attrs, "an event struct", STRUCT_KEYS, &mut path),
                });
            }
            syn::Data::Union(data) => ctxt.error(data.union_token, "an event is an enum or a struct, not a union"),
        }
        for field in variants.iter().flat_map(|variant| variant.fields) {
            each_key(ctxt, &field.attrs, "a field", &[], |_, _, _| Ok(()));
        }
        Self {
            ident: &input.ident,
            generics: &input.generics,
            framework: Framework::new(path.get()),
            join: join.get().cloned(),
            codec: codec.get().cloned(),
            serde: SerdeKeys::of(&input.attrs),
            is_struct,
            variants,
        }
    }

    /// The type of the codec that writes a variant.
    pub(crate) fn codec_of(&self, variant: &Variant<'_>) -> TokenStream {
        let private = self.framework.private();
        let named = variant.keys.codec.as_ref().or(self.codec.as_ref());
        named.map_or_else(|| quote!(#private::DefaultCodec), ToTokens::to_token_stream)
    }

    /// Whether a variant is written by bincode, as far as its name tells.
    pub(crate) fn is_bincode(&self, variant: &Variant<'_>) -> bool {
        match variant.keys.codec.as_ref().or(self.codec.as_ref()) {
            None => true,
            Some(Type::Path(path)) => path.path.segments.last().is_some_and(|segment| segment.ident == "Bincode"),
            Some(_) => false,
        }
    }
}

impl Variant<'_> {
    /// The schema version it is written with.
    pub(crate) fn version(&self) -> u32 {
        self.keys.version.as_ref().map_or(1, |(version, _)| *version)
    }
}

impl EventKeys {
    fn parse(
        ctxt: &mut Ctxt,
        attributes: &[Attribute],
        place: &str,
        expected: &[&str],
        path: &mut Once<syn::Path>,
    ) -> Self {
        let (mut name, mut schema_version, mut codec) = (Once::default(), Once::default(), Once::default());
        let mut all = Self::default();
        each_key(ctxt, attributes, place, expected, |ctxt, key, input| {
            all.first.get_or_insert_with(|| key.clone());
            match key.unraw().to_string().as_str() {
                "name" => {
                    all.name_is_broken = true;
                    name.set(ctxt, key, text(input)?);
                }
                "version" => schema_version.set(ctxt, key, version(input)?),
                "alias" => all.aliases.push(text(input)?),
                "from" => all.old.extend(Old::parse(ctxt, key, parenthesized(input)?)),
                "codec" => codec.set(ctxt, key, value(input)?),
                _ => path.set(ctxt, key, crate_path(input)?),
            }
            Ok(())
        });
        all.name = name.get().cloned();
        all.version = schema_version.get().cloned();
        all.codec = codec.get().cloned();
        all
    }
}

impl Old {
    fn parse(ctxt: &mut Ctxt, key: &Ident, tokens: TokenStream) -> Option<Self> {
        let (mut old_version, mut ty, mut name) = (Once::default(), Once::default(), Once::default());
        let mut broken = false;
        let read = (|input: syn::parse::ParseStream<'_>| {
            keys(ctxt, input, "`from`", OLD_KEYS, &mut |ctxt, key, input| {
                // Until the value is read.
                let before = std::mem::replace(&mut broken, true);
                match key.unraw().to_string().as_str() {
                    "version" => old_version.set(ctxt, key, version(input)?),
                    "type" => ty.set(ctxt, key, value(input)?),
                    _ => name.set(ctxt, key, text(input)?),
                }
                broken = before;
                Ok(())
            });
            Ok(())
        })
        .parse2(tokens);
        if let Err(error) = read {
            ctxt.push(error);
            return None;
        }
        match (old_version.get(), ty.get()) {
            (Some((version, version_literal)), Some(ty)) => Some(Self {
                version: *version,
                version_literal: version_literal.clone(),
                ty: Type::clone(ty),
                name: name.get().cloned(),
            }),
            _ if broken => None,
            _ => {
                ctxt.error(
                    key,
                    "`from` says which version it reads and as what: `from(version = 1, type = OldFields)`",
                );
                None
            }
        }
    }
}
