#![expect(dead_code, reason = "the types are read by serde only")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::*;
use crate::domain::CodecError;

struct Readable;
pub(super) struct Compact;

macro_rules! codec {
    ($codec:ident, $human_readable:literal) => {
        impl Codec for $codec {
            const ID: &'static str = "test";
            const HUMAN_READABLE: bool = $human_readable;
            fn encode<T: Serialize + ?Sized>(_: &T) -> Result<Vec<u8>, CodecError> {
                unreachable!("nothing is written for a shape")
            }
            fn decode<T: DeserializeOwned>(_: &[u8]) -> Result<T, CodecError> {
                unreachable!("nothing is read for a shape")
            }
        }
    };
}

codec!(Readable, true);
codec!(Compact, false);

fn shape<T: DeserializeOwned>() -> String {
    checked(&Shape::of::<Compact, T>())
}

fn readable<T: DeserializeOwned>() -> String {
    checked(&Shape::of::<Readable, T>())
}

/// The text of a shape, which can be read back.
fn checked(shape: &Shape) -> String {
    let read = StoredShape::parse(shape.as_str()).unwrap_or_else(|error| panic!("{error}: {shape:?}"));
    assert_eq!(read.to_string(), shape.as_str());
    shape.as_str().to_owned()
}

#[test]
fn values_are_called_by_their_exact_type() {
    assert_eq!(shape::<(bool, char, String, ())>(), "(bool,char,str,())");
    assert_eq!(shape::<(u8, u16, u32, u64, u128)>(), "(u8,u16,u32,u64,u128)");
    assert_eq!(shape::<(i8, i16, i32, i64, i128)>(), "(i8,i16,i32,i64,i128)");
    assert_eq!(shape::<(f32, f64)>(), "(f32,f64)");
    assert_eq!(shape::<(usize,)>(), "(u64,)");
    assert_eq!(shape::<Cow<'static, str>>(), "str");
}

#[test]
fn containers_show_what_they_hold() {
    assert_eq!(shape::<Option<u64>>(), "?u64");
    assert_eq!(shape::<Vec<Option<Vec<u8>>>>(), "[?[u8]]");
    assert_eq!(shape::<BTreeMap<String, HashSet<u32>>>(), "[str:[u32]]");
    assert_eq!(shape::<[u8; 32]>(), "(u8;32)");
    assert_eq!(shape::<(u8, u8, u8)>(), "(u8,u8,u8)");
    assert_eq!(shape::<(String, [u8; 4], u8, u8, u8, u8)>(), "(str,(u8;4),u8;4)");
    assert_eq!(shape::<Box<Rc<u8>>>(), "u8");
    assert_eq!(shape::<Duration>(), "{secs:u64,nanos:u32}");
}

#[derive(Deserialize)]
struct Unit;
#[derive(Deserialize)]
struct Newtype(u8);
#[derive(Deserialize)]
struct Pair(u8, String);
#[derive(Deserialize)]
struct Account {
    owner: Option<String>,
    cents: Newtype,
    r#type: Unit,
    #[serde(rename = "a,b")]
    pair: Pair,
}

#[test]
fn structs_show_their_fields() {
    assert_eq!(shape::<Account>(), r#"{owner:?str,cents:(u8),type:(),"a,b":(u8,str)}"#);
}

#[test]
fn a_change_far_inside_changes_the_shape() {
    #[derive(Deserialize)]
    struct Outer<T> {
        list: Vec<Option<Middle<T>>>,
    }
    #[derive(Deserialize)]
    enum Middle<T> {
        Inner { value: T },
    }
    assert_eq!(shape::<Outer<u32>>(), "{list:[?enum{Inner{value:u32}}]}");
    assert_eq!(shape::<Outer<u64>>(), "{list:[?enum{Inner{value:u64}}]}");
}

#[test]
fn renaming_a_rust_type_does_not_change_the_shape() {
    #[derive(Deserialize)]
    struct Old {
        kind: OldKind,
    }
    #[derive(Deserialize)]
    enum OldKind {
        A,
    }
    #[derive(Deserialize)]
    struct New {
        kind: NewKind,
    }
    #[derive(Deserialize)]
    enum NewKind {
        A,
    }
    assert_eq!(shape::<Old>(), shape::<New>());
}

#[test]
fn the_order_and_the_names_of_fields_and_variants_count() {
    #[derive(Deserialize)]
    struct Ab {
        a: u8,
        b: u8,
    }
    #[derive(Deserialize)]
    struct Ba {
        b: u8,
        a: u8,
    }
    #[derive(Deserialize)]
    enum Xy {
        X,
        Y,
    }
    #[derive(Deserialize)]
    enum Yx {
        Y,
        X,
    }
    assert_eq!(shape::<Ab>(), "{a:u8,b:u8}");
    assert_eq!(shape::<Ba>(), "{b:u8,a:u8}");
    assert_eq!(shape::<Xy>(), "enum{X,Y}");
    assert_eq!(shape::<Yx>(), "enum{Y,X}");
}

#[derive(Deserialize)]
enum Kind {
    A,
    B(String),
    C(u8, Option<bool>),
    D { x: u8, y: Inner },
}
#[derive(Deserialize)]
enum Inner {
    P(u16),
    Q { z: Vec<Unit> },
}

#[test]
fn all_variants_of_an_enum_are_explored() {
    let kind = "enum{A,B(str),C(u8,?bool),D{x:u8,y:enum{P(u16),Q{z:[()]}}}}";
    assert_eq!(shape::<Kind>(), kind);
    assert_eq!(shape::<(Kind, Option<Kind>)>(), format!("({kind},?{kind})"));
    assert_eq!(shape::<Result<u8, String>>(), "enum{Ok(u8),Err(str)}");
}

#[test]
fn an_enum_without_variants_ends() {
    #[derive(Deserialize)]
    enum Never {}
    #[derive(Deserialize)]
    struct Holder {
        never: Never,
        after: u8,
    }
    assert_eq!(shape::<Never>(), "enum{}");
    assert_eq!(shape::<Holder>(), "{never:enum{},after:u8}");
}

#[test]
fn a_recursive_type_refers_to_itself() {
    #[derive(Deserialize)]
    struct Node {
        next: Option<Box<Self>>,
        children: Vec<Self>,
        value: u64,
    }
    #[derive(Deserialize)]
    enum Expression {
        Add(Box<Self>, Box<Self>),
        Negate { inner: Box<Self>, sign: char },
        Not(Box<Self>),
        Number(i64),
    }
    #[derive(Deserialize)]
    struct Endless {
        inner: Box<Self>,
        after: u8,
    }
    #[derive(Deserialize)]
    struct Ping {
        pong: Option<Box<Pong>>,
    }
    #[derive(Deserialize)]
    struct Pong {
        ping: Option<Box<Ping>>,
        name: String,
    }
    assert_eq!(shape::<Node>(), "{next:?^2,children:[^2],value:u64}");
    assert_eq!(shape::<Expression>(), "enum{Add(^2,^2),Negate{inner:^2,sign:char},Not(^2),Number(i64)}");
    assert_eq!(shape::<Endless>(), "{inner:^1,after:u8}");
    assert_eq!(shape::<Ping>(), "{pong:?{ping:?^4,name:str}}");
    assert_eq!(shape::<(Node, u8)>(), "({next:?^2,children:[^2],value:u64},u8)");
}

#[test]
fn the_same_generic_type_inside_itself_is_no_recursion() {
    #[derive(Deserialize)]
    struct Wrapper<T> {
        inner: T,
    }
    assert_eq!(shape::<Wrapper<Wrapper<Vec<Vec<u8>>>>>(), "{inner:{inner:[[u8]]}}");
}

#[test]
fn a_type_that_is_picky_is_given_another_value() {
    assert_eq!(shape::<(NonZeroU32, u8)>(), "(u32,u8)");
    assert_eq!(shape::<(IpAddr, u8)>(), "(enum{V4((u8;4)),V6((u8;16))},u8)");
    assert_eq!(readable::<(IpAddr, u8)>(), "(str,u8)");
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Picky(String);

impl TryFrom<String> for Picky {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Err(format!("{text} is not the one"))
    }
}

#[test]
fn what_a_type_refuses_hides_as_little_as_possible() {
    #[derive(Deserialize)]
    struct Customer {
        email: Picky,
        others: Vec<Picky>,
        pair: (Picky, u8),
        nested: Nested,
        kind: Kind,
        count: NonZeroU64,
    }
    #[derive(Deserialize)]
    struct Nested {
        first: Picky,
        second: Option<u8>,
    }
    #[derive(Deserialize)]
    enum Kind {
        Picky(Picky),
        Both { a: Picky, b: u16 },
        Plain,
    }
    assert_eq!(
        shape::<Customer>(),
        "{email:str,others:[str],pair:(str,opaque),nested:{first:str,second:?u8},\
         kind:enum{Picky(str),Both{a:str,b:u16},Plain},count:u64}"
    );
}

/// A key that refused every made-up text used to make its value and every field after the map opaque.
#[test]
fn a_map_whose_keys_are_picky_hides_nothing() {
    #[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[serde(try_from = "String")]
    struct Key(String);
    impl TryFrom<String> for Key {
        type Error = &'static str;
        fn try_from(_: String) -> Result<Self, &'static str> {
            Err("not the one")
        }
    }
    #[derive(Deserialize)]
    struct Line {
        debit: u64,
        credit: u64,
    }
    #[derive(Deserialize)]
    struct Ledger {
        by_key: BTreeMap<Key, Line>,
        keys: HashSet<Key>,
        nested: Option<BTreeMap<Key, Vec<BTreeMap<Key, Line>>>>,
        pairs: Vec<(Key, u8)>,
        one: Option<(u8, Key, u8)>,
        in_map: BTreeMap<(Key, u8), Line>,
        which: Which,
        line: Line,
    }
    #[derive(Deserialize)]
    enum Which {
        A(Key, u8),
        B(BTreeMap<Key, Self>),
        C { line: Line },
    }
    assert_eq!(
        shape::<Ledger>(),
        "{by_key:[str:{debit:u64,credit:u64}],keys:[str],nested:?[str:[[str:{debit:u64,credit:u64}]]],\
         pairs:[(str,opaque)],one:?(u8,str,opaque),in_map:[(str,opaque):{debit:u64,credit:u64}],\
         which:enum{A(str,opaque),B([str:^3]),C{line:{debit:u64,credit:u64}}},line:{debit:u64,credit:u64}}"
    );
    assert_eq!(
        shape::<(BTreeMap<Key, u8>, Vec<(Key, u8)>, Option<(Key, u8)>, Line)>(),
        "([str:u8],[(str,opaque)],?(str,opaque),{debit:u64,credit:u64})"
    );
}

/// A long enum used to be cut at 60,000 bytes, so that a change after them did not change the shape.
#[test]
fn a_long_shape_is_not_cut() {
    #[derive(Deserialize)]
    struct Long<T> {
        #[serde(
            rename = "a name that is as long as a name of a field in a sensible program hardly ever is, and then some"
        )]
        long: T,
        last: T,
    }
    type Four<T> = Long<Long<Long<Long<T>>>>;
    type Twelve<T> = Four<Four<Four<T>>>;
    let (one, other) = (shape::<Twelve<u8>>(), shape::<Twelve<u16>>());
    assert!(one.len() > 300_000 && one.ends_with("last:u8}}}}}}}}}}}}"), "{}", one.len());
    assert_eq!(one.replace("u8", "u16"), other);
}

/// A tag decides what the content is, but the shape used to show the content of the first tag.
#[test]
fn what_depends_on_another_field_is_any() {
    #[derive(Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        A { x: u8 },
        B(String),
    }
    #[derive(Deserialize)]
    struct Holder {
        adjacent: Adjacent,
        after: u8,
    }
    assert_eq!(shape::<Holder>(), "{adjacent:{t:enum{A,B},c:any},after:u8}");
}

/// Names of variants are listed with their aliases, so the second name is not always the second variant.
#[test]
fn an_enum_with_aliases_says_so() {
    #[derive(Deserialize)]
    enum Aliased {
        #[serde(alias = "Old")]
        New(u8),
        #[serde(alias = "Other")]
        B,
    }
    #[derive(Deserialize)]
    struct Holder {
        aliased: Option<Aliased>,
        after: Kind,
    }
    assert_eq!(shape::<Aliased>(), "enum*{New(u8),Old(u8),B,Other}");
    assert!(shape::<Holder>().ends_with("B,Other},after:enum{A,B(str),C(u8,?bool),D{x:u8,y:enum{P(u16),Q{z:[()]}}}}}"));
}

#[test]
fn a_type_that_reads_whatever_is_there_is_any() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
        Text(String),
    }
    #[derive(Deserialize)]
    struct Holder {
        json: serde_json::Value,
        untagged: Untagged,
        after: u8,
    }
    assert_eq!(readable::<Holder>(), "{json:any,untagged:any,after:u8}");
}

#[test]
fn aliases_and_skipped_fields_are_left_out() {
    #[derive(Deserialize)]
    struct Renamed {
        #[serde(alias = "amount", alias = "value")]
        cents: u64,
        #[serde(skip)]
        cache: Option<u8>,
        #[serde(default)]
        owner: String,
    }
    // An alias that sorts before the name, next to a field that accepts none of the first values.
    #[derive(Deserialize)]
    struct Picked {
        number: NonZeroU32,
        #[serde(alias = "customer", alias = "client", alias = "zz")]
        who: String,
        #[serde(alias = "a")]
        b: String,
    }
    assert_eq!(shape::<Renamed>(), "{cents:u64,owner:str}");
    assert_eq!(shape::<Picked>(), "{number:u32,who:str,b:str}");
}

#[test]
fn a_type_that_panics_or_never_ends_is_opaque() {
    struct Panics;
    impl<'de> Deserialize<'de> for Panics {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            panic!("{text:?} was never expected");
        }
    }
    struct Deep(Vec<Self>);
    impl<'de> Deserialize<'de> for Deep {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Vec::deserialize(deserializer).map(Self)
        }
    }
    /// Requests itself with a visitor of another type each time.
    struct Wide;
    impl<'de> Deserialize<'de> for Wide {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct All;
            impl<'de> Visitor<'de> for All {
                type Value = Wide;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("many parts")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Wide, A::Error> {
                    while seq.next_element::<u8>()?.is_some() {}
                    Ok(Wide)
                }
            }
            deserializer.deserialize_tuple(usize::MAX, All)
        }
    }
    struct Refuses;
    impl<'de> Deserialize<'de> for Refuses {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(de::Error::custom("no"))
        }
    }
    #[derive(Deserialize)]
    struct After<T> {
        odd: T,
        after: u8,
    }
    assert_eq!(shape::<After<Refuses>>(), "{odd:opaque,after:u8}");
    assert_eq!(shape::<Deep>(), "[^1]");
    assert!(shape::<Wide>().starts_with("(u8;"), "{}", shape::<Wide>());
    assert!(shape::<After<Panics>>().starts_with("{odd:str,after:"), "{}", shape::<After<Panics>>());
}

#[test]
fn a_shape_is_the_same_each_time() {
    assert_eq!(shape::<Kind>(), shape::<Kind>());
    assert_eq!(shape::<Account>(), shape::<Account>());
}
