#![cfg(feature = "bincode")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bincode::config::standard;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tests::Compact;
use super::*;
use crate::log::EventType;

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, standard()).unwrap()
}

fn read<T: Serialize + DeserializeOwned>(value: &T) -> PayloadJson {
    let shape = StoredShape::parse(Shape::of::<Compact, T>().as_str()).unwrap();
    let read = shape.to_json("bincode", &bytes(value)).unwrap();
    serde_json::from_str::<serde::de::IgnoredAny>(&read.json).unwrap_or_else(|error| panic!("{error}: {}", read.json));
    read
}

/// The payload of a value becomes the JSON that serde_json writes for the value itself.
fn same<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let read = read(value);
    assert!(read.is_whole);
    // Whether serde_json writes the plus of an exponent depends on its version.
    assert_eq!(read.json, serde_json::to_string(value).unwrap().replace("e+", "e"), "{value:?}");
}

fn by_shape(shape: &str, payload: &[u8]) -> Result<PayloadJson, PayloadError> {
    StoredShape::parse(shape).unwrap().to_json("bincode", payload)
}

fn json_of(shape: &str, payload: &[u8]) -> String {
    by_shape(shape, payload).unwrap().json
}

#[derive(Debug, Serialize, Deserialize)]
struct Unit;
#[derive(Debug, Serialize, Deserialize)]
struct Newtype(u8);
#[derive(Debug, Serialize, Deserialize)]
struct Pair(u8, String);
#[derive(Debug, Serialize, Deserialize)]
struct Account {
    owner: Option<String>,
    cents: Newtype,
    r#type: Unit,
    #[serde(rename = "a,b\"\n☃")]
    pair: Pair,
}
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    A,
    B(String),
    C(u8, Option<bool>),
    D { x: u8, y: Inner },
    E(),
    F {},
    G(()),
}
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Inner {
    P(u16),
    Q { z: Vec<()> },
}
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Day {
    Mon,
    Tue,
}
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Node(Box<Self>, Box<Self>),
    Named { name: String, inner: Option<Box<Self>> },
    Leaf(i64),
}

#[test]
fn every_kind_of_value_becomes_what_serde_json_writes() {
    same(&(true, false, 'a', '"', '☃', '😀', String::from("é\n\"☃"), ()));
    for n in [0, 1, 250, 251, 252, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        same(&(u8::try_from(n).ok(), u16::try_from(n).ok(), u32::try_from(n).ok(), n, u128::from(n) << 64));
    }
    for n in [0, -1, 1, -126, 127, -32_768, i64::from(i32::MIN), i64::MIN, i64::MAX] {
        same(&(i8::try_from(n).ok(), i16::try_from(n).ok(), i32::try_from(n).ok(), n, i128::from(n) * 5));
    }
    same(&(u128::MAX, i128::MIN, i128::MAX, usize::MAX));
    same(&(0.0, -0.0, 0.1, 1e300, 5e-324, f64::MAX, 1.5_f32, 0.25_f32));
    same(&(Some(1_u8), None::<u8>, Some(Some(())), vec![vec![1_u8], vec![]], [7_u8; 32]));
    same(&(Unit, Newtype(3), Pair(1, "x".into()), (1_u8,), Duration::new(3, 4)));
    same(&Account { owner: Some("Ann".into()), cents: Newtype(9), r#type: Unit, pair: Pair(1, "b".into()) });
    for kind in [
        Kind::A,
        Kind::B("b".into()),
        Kind::C(1, Some(true)),
        Kind::D { x: 3, y: Inner::P(300) },
        Kind::D { x: 3, y: Inner::Q { z: vec![(), ()] } },
        Kind::E(),
        Kind::F {},
        Kind::G(()),
    ] {
        same(&kind);
    }
    same(&(Ok::<u8, String>(1), Err::<u8, String>("no".into())));
}

#[test]
fn a_recursive_value_is_followed() {
    let leaf = |n| Box::new(Tree::Leaf(n));
    let named = |inner| Box::new(Tree::Named { name: "n".into(), inner });
    same(&Tree::Node(Box::new(Tree::Node(leaf(-1), named(None))), named(Some(named(Some(leaf(i64::MIN)))))));
}

#[test]
fn keys_of_maps_are_texts_where_they_can_be() {
    same(&(BTreeMap::from([("a".to_owned(), 1)]), BTreeMap::from([('x', 1)]), BTreeMap::from([(true, 1)])));
    same(&(BTreeMap::from([(-5_i8, 1)]), BTreeMap::from([(u64::MAX, 1), (0, 2)]), BTreeMap::from([(Day::Tue, 1)])));
    let by_pair = BTreeMap::from([((1_u8, Day::Mon), "x"), ((2, Day::Tue), "y")]);
    let shape = "[(u8,enum{Mon,Tue}):str]";
    assert_eq!(json_of(shape, &bytes(&by_pair)), r#"[[[1,"Mon"],"x"],[[2,"Tue"],"y"]]"#);
    assert_eq!(json_of("[[u8]:u8]", &bytes(&BTreeMap::from([(vec![1_u8], 2_u8)]))), "[[[1],2]]");
}

#[test]
fn what_json_has_no_number_for_is_a_text() {
    let floats = (f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f32::NAN);
    assert_eq!(read(&floats).json, r#"["NaN","Infinity","-Infinity","NaN"]"#);
}

/// A type that refuses made-up values leaves part of its shape unknown: what comes before it is read anyway.
#[test]
fn what_comes_before_an_unknown_part_is_read() {
    let payload = bytes(&("Ann", (1_u8, 2_u8), 3_u8));
    let read = by_shape("{name:str,pair:(u8,opaque),last:u8}", &payload).unwrap();
    assert_eq!(read.json, r#"{"name":"Ann","pair":[1,{"$unread":"0203"}]}"#);
    assert!(!read.is_whole);
    assert_eq!(json_of("[[opaque:u8]]", &[1, 1, 7, 8]), r#"[[[{"$unread":"0708"}]]]"#);
    assert_eq!(json_of("{list:[{a:any,b:u8}],after:u8}", &[2, 9]), r#"{"list":[{"a":{"$unread":"09"}}]}"#);
    assert_eq!(json_of("(u8,enum*{New(u8),Old(u8),B})", &[1, 1]), r#"[1,{"$unread":"01"}]"#);
    assert_eq!(json_of("(enum*{New,Old,B},u8)", &[1, 5]), r##"["#1",5]"##);
}

#[test]
fn other_codecs_need_no_shape() {
    let of = |codec: &str, shape: Option<&str>, payload: &[u8]| {
        let event_type = EventType::new("t", 1, codec).unwrap();
        payload_to_json(&shape.map_or(event_type.clone(), |shape| event_type.with_shape(shape)), payload)
    };
    let whole = of("json", Some("{a:u8}"), br#"{"a": 1}"#).unwrap();
    assert_eq!((whole.json.as_str(), whole.is_whole), (r#"{"a": 1}"#, true));
    assert_eq!(of("json", None, b"{").unwrap_err(), PayloadError::NotJson);
    assert_eq!(of("json", None, b"\"\xff\"").unwrap_err(), PayloadError::NotJson);
    let unknown = of("my \"codec\"", Some("{a:u8}"), &[0, 255]).unwrap();
    assert_eq!((unknown.json.as_str(), unknown.is_whole), (r#"{"$codec":"my \"codec\"","$bytes":"00ff"}"#, false));
    assert_eq!(of("bincode", None, &[1]).unwrap().json, r#"{"$codec":"bincode","$bytes":"01"}"#);
    assert!(matches!(
        of("bincode", Some("{a:u9}"), &[1]),
        Err(PayloadError::Shape(InvalidShape::Syntax { at: 3, .. }))
    ));
}

#[test]
fn a_payload_that_does_not_fit_is_refused_with_its_byte() {
    let unfit = |shape: &str, payload: &[u8]| match by_shape(shape, payload) {
        Err(PayloadError::Unfit { at, .. }) => at,
        other => panic!("{shape}: {other:?}"),
    };
    assert_eq!(unfit("{a:u8,b:bool}", &[1, 2]), 2);
    assert_eq!(unfit("(u8,?u8)", &[1, 9]), 2);
    assert_eq!(unfit("(u8,enum{A,B})", &[1, 2]), 1);
    assert_eq!(unfit("u16", &[252, 0, 0, 0, 0]), 0);
    assert_eq!(unfit("u64", &[255]), 0);
    assert_eq!(unfit("str", &[3, b'a']), 1);
    assert_eq!(unfit("str", &[2, 0xc3, 0x28]), 0);
    assert_eq!(unfit("str", &[253, 255, 255, 255, 255, 255, 255, 255, 255]), 9);
    assert_eq!(unfit("[u8]", &[2, 1]), 2);
    assert_eq!(unfit("char", &[0xff]), 0);
    assert_eq!(by_shape("u8", &[1, 2]), Err(PayloadError::LeftOver { left: 1 }));
}

/// A damaged payload or a forged shape takes only bounded time and memory.
#[test]
fn hostile_payloads_and_shapes_are_bounded() {
    let endless = [253, 255, 255, 255, 255, 255, 255, 255, 127];
    for shape in ["[()]", "[[()]]", "[{}]", "[((();9))]", "[[]", "[(((((u8)))))]"] {
        let Ok(shape) = StoredShape::parse(shape) else { continue };
        shape.to_json("bincode", &endless).unwrap_err();
    }
    assert_eq!(by_shape("(();99999999999999)", &[]), Err(PayloadError::TooLong));
    assert_eq!(by_shape("((^1))", &[]), Err(PayloadError::TooDeep { at: 0 }));
    assert!(matches!(by_shape("[^1]", &[1; 1_000]), Err(PayloadError::TooDeep { at: 128.. })));
    for (open, close) in [("(", ")"), ("[", "]"), ("?", ""), ("{a:", "}"), ("enum{A(", ")}")] {
        let text = open.repeat(100_000) + "u8" + &close.repeat(100_000);
        assert!(matches!(StoredShape::parse(&text), Err(InvalidShape::TooDeep { .. })), "{open}");
    }
}

#[test]
fn a_text_that_is_no_shape_is_refused_with_its_byte() {
    for (text, byte) in [
        ("", 0),
        ("u9", 0),
        ("u8 ", 2),
        ("u8,u8", 2),
        ("(u8", 3),
        ("(u8,,)", 4),
        ("(u8;x)", 4),
        ("(u8;99999999999999999999999)", 27),
        ("[u8", 3),
        ("[u8:u8:u8]", 6),
        ("{a}", 2),
        ("{:u8}", 1),
        ("{a:u8,}", 6),
        ("{\"a:u8}", 7),
        ("{\"\\x\":u8}", 3),
        ("{\"\\u{d800}\":u8}", 9),
        ("enum{A,}", 7),
        ("enum{A(u8}", 9),
        ("enum", 0),
        ("?", 1),
        ("^", 1),
    ] {
        let refused = StoredShape::parse(text).map(|shape| shape.to_string());
        assert!(matches!(refused, Err(InvalidShape::Syntax { at, .. }) if at == byte), "{text}: {refused:?}");
    }
    for text in ["^0", "^1", "[^2]", "{a:^0}", "{a:(^3)}"] {
        assert!(matches!(StoredShape::parse(text), Err(InvalidShape::Beyond { .. })), "{text}");
    }
}

fn shapes() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "bool",
        "u8",
        "u16",
        "u64",
        "u128",
        "i8",
        "i32",
        "i128",
        "f32",
        "f64",
        "char",
        "str",
        "bytes",
        "()",
        "^1",
        "^2",
        "any",
        "opaque",
        "enum{A,B}",
        "{}",
        "(();9)",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 20, 3, |inner| {
        let both = (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|a| format!("?{a}")),
            inner.clone().prop_map(|a| format!("[{a}]")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("({a},)")),
            both.clone().prop_map(|(a, b)| format!("[{a}:{b}]")),
            both.clone().prop_map(|(a, b)| format!("({a},{b};5)")),
            both.clone().prop_map(|(a, b)| format!("{{a:{a},\"b \\\"\":{b}}}")),
            both.prop_map(|(a, b)| format!("enum{{A,B({a}),C({a},{b}),D{{x:{b}}}}}")),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_json_or_a_typed_error(shape in shapes(), payload in prop::collection::vec(any::<u8>(), 0..60)) {
        // A reference may point beyond the outermost type.
        if let Ok(parsed) = StoredShape::parse(&shape) {
            prop_assert_eq!(parsed.to_string(), shape);
            if let Ok(read) = parsed.to_json("bincode", &payload) {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&read.json).is_ok(), "{}", read.json);
            }
        }
    }

    #[test]
    fn any_text_is_a_shape_or_a_typed_error(text in r#"[(){}\[\]?^,:;"\\uenum*0-9strA-C]{0,30}"#) {
        if let Ok(shape) = StoredShape::parse(&text) {
            let again = shape.to_string();
            prop_assert_eq!(StoredShape::parse(&again).unwrap().to_string(), again);
        }
    }

    /// Reading by the shape agrees with bincode reading by the type.
    #[test]
    fn bytes_are_read_as_the_codec_reads_them(payload in prop::collection::vec(any::<u8>(), 0..24)) {
        type Mixed = (u16, Option<i32>, Vec<(char, bool)>, String, Result<i64, u8>);
        let by_type = bincode::serde::decode_from_slice::<Mixed, _>(&payload, standard());
        let shape = StoredShape::parse(Shape::of::<Compact, Mixed>().as_str()).unwrap();
        match by_type {
            Ok((value, read)) => {
                let json = shape.to_json("bincode", &payload[..read]).unwrap().json;
                prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!(value));
            }
            Err(_) => prop_assert!(shape.to_json("bincode", &payload).is_err()),
        }
    }
}
