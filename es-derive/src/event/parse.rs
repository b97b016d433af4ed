//! Parses the user's input into structs.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, DeriveInput, Fields, Generics, LitInt, Type};

use super::stream::Template;
use super::tags::{self, Tagged};
use crate::attr::{Once, crate_path, each_key, keys, parenthesized, read_keys, value, version};
use crate::ctxt::Ctxt;
use crate::generate::{Framework, lints_of};
use crate::name::Name;
use crate::serde_attr::SerdeKeys;

/// The type that derives `Event`.
pub(crate) struct Input<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) framework: Framework,
    /// The lints that the user allows, as attributes.
    pub(crate) lints: TokenStream,
    /// The key `join`, on an enum that joins other events.
    pub(crate) join: Option<Ident>,
    /// The codec of all variants that do not name their own.
    pub(crate) codec: Option<Type>,
    /// The key `stream`, on an enum.
    pub(crate) stream: Option<Ident>,
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
    /// The fields with tags.
    pub(crate) tags: Vec<Tagged<'a>>,
    /// The stream it names, or the one that all variants of its enum name.
    pub(crate) stream: Option<Template>,
}

/// The keys of one event.
#[derive(Default)]
pub(crate) struct EventKeys {
    pub(crate) name: Option<Name>,
    pub(crate) version: Option<(u32, LitInt)>,
    pub(crate) aliases: Vec<Name>,
    pub(crate) old: Vec<Old>,
    pub(crate) codec: Option<Type>,
    pub(crate) stream: Option<Template>,
    /// The first key, for pointing at it where none is allowed.
    pub(crate) first: Option<Ident>,
    /// Whether a key was present but could not be read, so that it is not reported as missing too.
    pub(crate) name_is_broken: bool,
}

/// `from(version = 1, type = T, name = "old.name")`.
pub(crate) struct Old {
    pub(crate) version: u32,
    pub(crate) version_literal: LitInt,
    pub(crate) ty: Type,
    pub(crate) name: Option<Name>,
}

keys! {
    /// On an enum of events.
    EnumKey { Codec = "codec", Stream = "stream", Join = "join", Crate = "crate" }
}

keys! {
    /// On a variant.
    VariantKey {
        Name = "name", Version = "version", Alias = "alias", From = "from", Codec = "codec", Stream = "stream",
    }
}

keys! {
    /// On a struct that is an event.
    StructKey {
        Name = "name", Version = "version", Alias = "alias", From = "from", Codec = "codec", Stream = "stream",
        Crate = "crate",
    }
}

keys! {
    /// In `from(…)`.
    OldKey { Version = "version", Type = "type", Name = "name" }
}

impl<'a> Input<'a> {
    pub(crate) fn parse(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let mut path = Once::default();
        let mut join = Once::default();
        let mut codec = Once::default();
        let mut stream = Once::default();
        let mut variants = Vec::new();
        let mut is_struct = false;
        match &input.data {
            syn::Data::Enum(data) => {
                each_key(ctxt, &input.attrs, "an enum of events", |ctxt, key, ident, input| {
                    match key {
                        EnumKey::Crate => path.set(ctxt, ident, crate_path(input)?),
                        EnumKey::Codec => codec.set(ctxt, ident, value(input)?),
                        EnumKey::Stream => {
                            let template = Template::parse(ctxt, value(input)?);
                            stream.set(ctxt, ident, (ident.clone(), template));
                        }
                        EnumKey::Join => join.set(ctxt, ident, ident.clone()),
                    }
                    Ok(())
                });
                for variant in &data.variants {
                    let mut keys = EventKeys::of_variant(ctxt, &variant.attrs);
                    let own = keys.stream.take();
                    variants.push(Variant {
                        ident: &variant.ident,
                        fields: &variant.fields,
                        serde: SerdeKeys::of(&variant.attrs),
                        keys,
                        tags: tags::parse(ctxt, &variant.fields),
                        stream: own.or_else(|| stream.get().map(|(_, template)| Template::clone(template))),
                    });
                }
            }
            syn::Data::Struct(data) => {
                is_struct = true;
                let mut keys = EventKeys::of_struct(ctxt, &input.attrs, &mut path);
                variants.push(Variant {
                    ident: &input.ident,
                    fields: &data.fields,
                    serde: SerdeKeys::of(&[]),
                    stream: keys.stream.take(),
                    keys,
                    tags: tags::parse(ctxt, &data.fields),
                });
            }
            syn::Data::Union(data) => ctxt.error(data.union_token, "an event is an enum or a struct, not a union"),
        }
        Self {
            ident: &input.ident,
            generics: &input.generics,
            framework: Framework::new(path.get()),
            lints: lints_of(input),
            join: join.get().cloned(),
            codec: codec.get().cloned(),
            stream: stream.get().map(|(key, _)| Ident::clone(key)),
            serde: SerdeKeys::of(&input.attrs),
            is_struct,
            variants,
        }
    }

    /// Every name given in a key.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.variants.iter().flat_map(|variant| variant.keys.names())
    }

    /// The name of every tag.
    pub(crate) fn tag_names(&self) -> impl Iterator<Item = &Name> {
        self.variants.iter().flat_map(|variant| &variant.tags).map(|tag| &tag.name)
    }

    /// The type of the codec that writes a variant.
    pub(crate) fn codec_of(&self, variant: &Variant<'_>) -> TokenStream {
        let private = self.framework.private();
        let named = variant.keys.codec.as_ref().or(self.codec.as_ref());
        named.map_or_else(|| quote!(#private::DefaultCodec), ToTokens::to_token_stream)
    }

    /// Whether a variant is written by bincode, judging by the codec's name.
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
    /// Every name given in a key.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.name.iter().chain(&self.aliases).chain(self.old.iter().filter_map(|old| old.name.as_ref()))
    }

    fn of_variant(ctxt: &mut Ctxt, attributes: &[Attribute]) -> Self {
        let mut all = Collected::default();
        each_key(ctxt, attributes, "a variant", |ctxt, key, ident, input| all.read(ctxt, key, ident, input));
        all.into_keys()
    }

    fn of_struct(ctxt: &mut Ctxt, attributes: &[Attribute], path: &mut Once<syn::Path>) -> Self {
        let mut all = Collected::default();
        each_key(ctxt, attributes, "an event struct", |ctxt, key, ident, input| {
            let key = match key {
                StructKey::Crate => {
                    path.set(ctxt, ident, crate_path(input)?);
                    return Ok(());
                }
                StructKey::Name => VariantKey::Name,
                StructKey::Version => VariantKey::Version,
                StructKey::Alias => VariantKey::Alias,
                StructKey::From => VariantKey::From,
                StructKey::Codec => VariantKey::Codec,
                StructKey::Stream => VariantKey::Stream,
            };
            all.read(ctxt, key, ident, input)
        });
        all.into_keys()
    }
}

/// The keys of one event while they are being read.
#[derive(Default)]
struct Collected {
    name: Once<Name>,
    version: Once<(u32, LitInt)>,
    codec: Once<Type>,
    stream: Once<Template>,
    keys: EventKeys,
}

impl Collected {
    fn read(&mut self, ctxt: &mut Ctxt, key: VariantKey, ident: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        self.keys.first.get_or_insert_with(|| ident.clone());
        let number = ctxt.number();
        match key {
            VariantKey::Name => {
                self.keys.name_is_broken = true;
                self.name.set(ctxt, ident, Name::parse(input, number)?);
            }
            VariantKey::Version => self.version.set(ctxt, ident, version(input)?),
            VariantKey::Alias => self.keys.aliases.push(Name::parse(input, number)?),
            VariantKey::From => self.keys.old.extend(Old::parse(ctxt, ident, parenthesized(input)?)),
            VariantKey::Codec => self.codec.set(ctxt, ident, value(input)?),
            VariantKey::Stream => {
                let template = Template::parse(ctxt, value(input)?);
                self.stream.set(ctxt, ident, template);
            }
        }
        Ok(())
    }

    fn into_keys(self) -> EventKeys {
        let (name, version, codec) = (self.name.take(), self.version.take(), self.codec.take());
        EventKeys { name, version, codec, stream: self.stream.take(), ..self.keys }
    }
}

impl Old {
    fn parse(ctxt: &mut Ctxt, key: &Ident, tokens: TokenStream) -> Option<Self> {
        let (mut old_version, mut ty, mut name) = (Once::default(), Once::default(), Once::default());
        let mut broken = false;
        let read = (|input: ParseStream<'_>| {
            read_keys(ctxt, input, "`from`", &mut |ctxt, key, ident, input| {
                // Until the value is read.
                let before = std::mem::replace(&mut broken, true);
                match key {
                    OldKey::Version => old_version.set(ctxt, ident, version(input)?),
                    OldKey::Type => ty.set(ctxt, ident, value(input)?),
                    OldKey::Name => {
                        let number = ctxt.number();
                        name.set(ctxt, ident, Name::parse(input, number)?);
                    }
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
