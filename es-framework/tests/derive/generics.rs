//! Parameters, lifetimes, raw identifiers and a hostile scope.

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use es_framework::Event;
use serde::{Deserialize, Serialize};

use crate::events::Text;
use crate::support::{payload, round_trip};

/// Has none of serde's traits: the `with` module below does the work.
#[derive(Debug, Clone, PartialEq)]
struct Marker<T>(PhantomData<T>);

mod marker {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Marker, PhantomData};

    pub(super) fn serialize<T, S: Serializer>(_: &Marker<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<Marker<T>, D::Error> {
        bool::deserialize(deserializer).map(|_| Marker(PhantomData))
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(codec = Text)]
enum Generic<'a, T, U, const N: usize = 2>
where
    T: Debug + Clone,
{
    #[es(name = "generic.first")]
    First { one: T, many: Vec<Option<T>>, text: Cow<'a, str> },
    #[es(name = "generic.second")]
    Second(#[serde(with = "marker")] Marker<U>, #[serde(skip)] Option<PhantomData<[U; N]>>, Box<T>),
}

/// No serde: only named, never stored.
#[derive(Debug, Clone, PartialEq)]
struct Plain;

#[test]
fn an_event_can_have_parameters() {
    type Numbers = Generic<'static, u32, Plain, 3>;
    let event = Numbers::First { one: 1, many: vec![None, Some(2)], text: "x".into() };
    assert_eq!(payload(&event), br#"{"one":1,"many":[null,2],"text":"x"}"#);
    assert_eq!(round_trip(&event), event);
    let event = Numbers::Second(Marker(PhantomData), None, Box::new(7));
    assert_eq!(payload(&event), b"[true,7]");
    assert_eq!(round_trip(&event), event);
}

#[test]
fn instances_of_a_generic_event_have_shapes_of_their_own() {
    fn shape<T>() -> Option<String>
    where
        Generic<'static, T, Plain>: Event,
        T: Debug + Clone,
    {
        let types = Generic::<'static, T, Plain>::event_types();
        types[0].shape().map(str::to_owned)
    }
    for _ in 0..2 {
        assert_eq!(shape::<u32>().as_deref(), Some("{one:u32,many:[?u32],text:str}"));
        assert_eq!(shape::<String>().as_deref(), Some("{one:str,many:[?str],text:str}"));
    }
}

trait Kind {
    type Value: Debug + Clone + PartialEq + Serialize + for<'de> Deserialize<'de> + Send + Sync + 'static;
}

#[derive(Debug, Clone, PartialEq)]
struct Numbers;

impl Kind for Numbers {
    type Value = u16;
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "measured", codec = Text)]
struct Measured<K: Kind> {
    value: K::Value,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

#[test]
fn a_field_can_be_an_associated_type_of_a_parameter() {
    let event = Measured::<Numbers> { value: 7, kind: PhantomData };
    assert_eq!(payload(&event), br#"{"value":7}"#);
    assert_eq!(round_trip(&event), event);
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum Raw {
    #[es(name = "raw.type")]
    r#Type { r#fn: u8, r#match: String },
    #[es(name = "raw.box")]
    r#Box(u8),
}

#[derive(Debug, PartialEq, Event)]
#[es(name = "raw.struct", codec = Text)]
#[expect(non_camel_case_types, reason = "the name is the point")]
struct r#struct {
    r#type: u8,
}

#[test]
fn raw_identifiers_are_names_like_others() {
    let event = Raw::r#Type { r#fn: 1, r#match: "x".into() };
    assert_eq!(payload(&event), br#"{"fn":1,"match":"x"}"#);
    assert_eq!(round_trip(&event), event);
    assert_eq!(round_trip(&Raw::r#Box(3)), Raw::r#Box(3));
    assert_eq!(payload(&r#struct { r#type: 1 }), br#"{"type":1}"#);
    assert_eq!(round_trip(&r#struct { r#type: 1 }), r#struct { r#type: 1 });
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum Itself {
    #[es(name = "itself")]
    Of { marker: PhantomData<Self>, size: [u8; Self::SIZE] },
}

impl Itself {
    const SIZE: usize = 2;
}

#[test]
fn a_field_can_name_the_type_as_self() {
    let event = Itself::Of { marker: PhantomData, size: [1, 2] };
    assert_eq!(round_trip(&event), event);
}

/// Bounds that name the type itself, as serde's derives take them.
trait Marked {}

trait Has<T: ?Sized> {
    type Item;
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum Bounded<T: Has<Self>, U = u8>
where
    Self: Marked,
    Vec<Self>: Sized,
{
    #[es(name = "bounded.first")]
    First { value: T, size: PhantomData<<T as Has<Self>>::Item> },
    #[es(name = "bounded.second")]
    Second(U),
}

impl<T: Has<Self>, U> Marked for Bounded<T, U> {}

#[derive(Debug, PartialEq, Event)]
#[es(name = "bounded.alone", codec = Text)]
struct BoundedAlone<T: Has<Self>>(T, PhantomData<Self>)
where
    Self: Marked;

impl<T: Has<Self>> Marked for BoundedAlone<T> {}

#[derive(Debug, PartialEq, Event)]
#[es(name = "bounded.plain", codec = Text)]
struct BoundedPlain
where
    Self: Marked,
{
    size: [u8; Self::SIZE],
}

impl BoundedPlain {
    const SIZE: usize = 2;
}

impl Marked for BoundedPlain {}

#[derive(Debug, Clone, Default, es_framework::Aggregate)]
#[es(category = "bounded", event = crate::events::Counted)]
struct BoundedState<T: Has<Self> + Clone + Default + Send + Sync + 'static>(T)
where
    Self: Marked;

impl<T: Has<Self> + Clone + Default + Send + Sync + 'static> Marked for BoundedState<T> {}

#[derive(es_framework::Command)]
#[es(name = "bounded.command")]
struct BoundedCommand<T: Has<Self>>(PhantomData<T>)
where
    Self: Marked;

impl<T: Has<Self>> Marked for BoundedCommand<T> {}

/// What is joined may ask for the enum that joins it.
#[derive(Debug, PartialEq, Event)]
#[es(join)]
enum BoundedJoined<T: Event + Has<Self>>
where
    Self: Marked,
{
    Of(T),
}

impl<T: Event + Has<Self>> Marked for BoundedJoined<T> {}

impl<T> Has<T> for u8 {
    type Item = Self;
}

impl<T> Has<T> for BoundedPlain {
    type Item = u8;
}

#[test]
fn bounds_can_name_the_type_as_self() {
    let first = Bounded::<u8, u16>::First { value: 1, size: PhantomData };
    assert_eq!(round_trip(&first), first);
    assert_eq!(round_trip(&Bounded::<u8>::Second(1)), Bounded::Second(1));
    let alone = BoundedAlone(1_u8, PhantomData);
    assert_eq!(round_trip(&alone), alone);
    let joined = BoundedJoined::Of(BoundedPlain { size: [1, 2] });
    assert_eq!(round_trip(&joined), joined);
    assert_eq!(<BoundedState<u8> as es_framework::Aggregate>::CATEGORY, "bounded");
    assert_eq!(<BoundedCommand<u8> as es_framework::Command>::NAME, "bounded.command");
}

/// Nothing of the prelude, and names that generated code could stumble over.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, non_camel_case_types, reason = "only there to be stumbled over")]

    pub(super) struct Vec;
    pub(super) struct String;
    pub(super) struct Option;
    pub(super) struct Result;
    pub(super) struct Box;
    pub(super) struct Some;
    pub(super) struct None;
    pub(super) struct Ok;
    pub(super) struct Err;
    pub(super) mod core {}
    pub(super) mod std {}
    pub(super) mod serde {}
    pub(super) mod es_framework {}

    #[derive(::es_framework::Event)]
    #[es(codec = super::Text)]
    pub(super) enum Hostile<T> {
        #[es(name = "hostile.struct", version = 2, from(version = 1, type = Old), alias = "hostile.alias")]
        Struct {
            #[serde(skip_serializing_if = "::std::option::Option::is_none", default)]
            text: ::std::option::Option<::std::string::String>,
            value: T,
        },
        #[es(name = "hostile.unit")]
        Unit,
        #[es(name = "hostile.newtype")]
        Newtype(u16),
    }

    #[derive(::serde::Deserialize)]
    pub(super) struct Old {}

    impl<T: ::std::default::Default> ::std::convert::From<Old> for Hostile<T> {
        fn from(_: Old) -> Self {
            Self::Unit
        }
    }

    #[derive(::std::default::Default, ::std::clone::Clone, ::es_framework::Aggregate)]
    #[es(category = "hostile", event = Hostile<()>)]
    pub(super) struct State;

    #[derive(::es_framework::Event)]
    #[es(join)]
    pub(super) enum Joined {
        Hostile(Hostile<()>),
        Counted(crate::events::Counted),
    }
}

fn write<E: Event + Display>(event: &E) -> Vec<u8> {
    payload(event)
}

impl<T> Display for hostile::Hostile<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hostile")
    }
}

#[test]
fn generated_code_needs_no_prelude() {
    assert_eq!(write(&hostile::Hostile::Struct { text: None, value: () }), br#"{"value":null}"#);
    assert_eq!(write(&hostile::Hostile::<()>::Newtype(7)), b"7");
    assert_eq!(<hostile::State as es_framework::Aggregate>::CATEGORY, "hostile");
    assert_eq!(hostile::Joined::names().len(), 4 + 2);
}
