use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde::Serialize;

use super::*;

fn hex<T: Serialize>(value: T) -> String {
    let mut hex = String::new();
    for byte in canonical(&value).unwrap() {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Newtype(u8);

#[derive(Serialize)]
struct Pair(u8, bool);

#[derive(Serialize)]
struct Named {
    b: bool,
    a: Option<u8>,
}

#[derive(Serialize)]
enum Any {
    Unit,
    Newtype(u8),
    Tuple(u8, u8),
    Struct { y: u8, x: u8 },
}

struct Bytes;

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(b"ab")
    }
}

/// Fingerprints are stored, so the form must never change: a mistake here turns every retry of a known command into an
/// error.
#[test]
fn the_form_never_changes() {
    let zero = "0".repeat(30);
    let one = format!("06{zero}01");
    let two = format!("06{zero}02");
    let length = |n: u8| format!("{n:016x}");
    let vectors = [
        (hex(()), "00".to_owned()),
        (hex(Unit), "01".into()),
        (hex(None::<u8>), "02".into()),
        (hex(Some(())), "0300".into()),
        (hex(Some(None::<u8>)), "0302".into()),
        (hex(false), "04".into()),
        (hex(true), "05".into()),
        (hex(1_u8), one.clone()),
        (hex(u128::MAX), format!("06{}", "f".repeat(32))),
        (hex(-1_i8), format!("07{zero}01")),
        (hex(i128::MIN), format!("0780{zero}")),
        (hex(1.5_f64), "083ff8000000000000".into()),
        (hex(-0.0_f64), "088000000000000000".into()),
        (hex(f64::INFINITY), "087ff0000000000000".into()),
        (hex(f64::NEG_INFINITY), "08fff0000000000000".into()),
        (hex(f64::NAN), "087ff8000000000000".into()),
        (hex('é'), "0a000000e9".into()),
        (hex("é"), format!("0b{}c3a9", length(2))),
        (hex(Bytes), format!("0c{}6162", length(2))),
        (hex(vec![1_u8, 2]), format!("0d{}{one}{two}", length(2))),
        (hex(Vec::<u8>::new()), format!("0d{}", length(0))),
        (hex((1_u8, true)), format!("0e{}{one}05", length(2))),
        (hex(Pair(1, true)), format!("0e{}{one}05", length(2))),
        (hex(Newtype(1)), one.clone()),
        (hex(BTreeMap::from([(2_u8, true), (1, false)])), format!("0f{}{one}04{two}05", length(2))),
        (hex(Named { b: true, a: None }), format!("10{}{}6102{}6205", length(2), length(1), length(1))),
        (hex(Any::Unit), format!("11{}556e6974", length(4))),
        (hex(Any::Newtype(1)), format!("12{}4e657774797065{one}", length(7))),
        (hex(Any::Tuple(1, 2)), format!("13{}5475706c65{}{one}{two}", length(5), length(2))),
        (
            hex(Any::Struct { y: 1, x: 2 }),
            format!("14{}537472756374{}{}78{two}{}79{one}", length(6), length(2), length(1), length(1)),
        ),
    ];
    for (n, (found, expected)) in vectors.iter().enumerate() {
        assert_eq!(found, expected, "vector {n}");
    }
    // All of them are different, except for the tuples and the newtype struct.
    let different: std::collections::HashSet<_> = vectors.iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(different.len(), vectors.len() - 2);
}

#[derive(Serialize)]
struct Reordered {
    a: Option<u64>,
    b: bool,
}

#[derive(Serialize)]
enum Renumbered {
    Struct { x: i64, y: u128 },
}

#[test]
fn what_makes_no_difference() {
    assert_eq!(hex(7_u8), hex(7_i128));
    assert_eq!(hex(-7_i8), hex(-7_i64));
    assert_eq!(hex(0.5_f32), hex(0.5_f64));
    assert_eq!(hex(f32::NAN), hex(-f64::NAN));
    assert_eq!(hex(Named { b: true, a: Some(3) }), hex(Reordered { a: Some(3), b: true }));
    assert_eq!(hex(Any::Struct { y: 1, x: 2 }), hex(Renumbered::Struct { x: 2, y: 1 }));
    let forward: HashMap<u32, u32> = (0..100).map(|n| (n, n)).collect();
    let backward: HashMap<u32, u32> = (0..100).rev().map(|n| (n, n)).collect();
    assert_eq!(hex(forward), hex(backward));
}

#[test]
fn keys_of_maps_are_of_any_type() {
    let tuples = HashMap::from([((1, "a"), 1), ((1, "b"), 2), ((0, "z"), 3)]);
    let sorted = BTreeMap::from([((0, "z"), 3), ((1, "a"), 1), ((1, "b"), 2)]);
    assert_eq!(hex(tuples), hex(sorted));
    assert_ne!(hex(BTreeMap::from([(Some(1), 1)])), hex(BTreeMap::from([(1, 1)])));
    assert_ne!(hex(BTreeMap::from([("1", 1)])), hex(BTreeMap::from([(1, 1)])));
    assert_ne!(hex(HashMap::from([(1, 2)])), hex(HashMap::from([(2, 1)])));
}

/// Data cannot be moved from one value into the next.
#[test]
fn where_a_value_ends_is_said() {
    assert_ne!(hex(("ab", "c")), hex(("a", "bc")));
    assert_ne!(hex((vec![1], vec![2, 3])), hex((vec![1, 2], vec![3])));
    assert_ne!(hex(vec![vec![1, 2]]), hex(vec![vec![1], vec![2]]));
    assert_ne!(hex((None::<u8>, Some(1))), hex((Some(1), None::<u8>)));
    assert_ne!(hex(""), hex(()));
}

#[test]
fn types_with_two_forms_take_the_one_for_people() {
    let address: std::net::IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(hex(address), hex("127.0.0.1"));
}

/// The feature `preserve_order` of serde_json keeps the order of keys in the source text.
#[test]
fn a_json_value_is_the_same_in_every_order_and_under_every_feature() {
    let json = |text: &str| hex(serde_json::from_str::<serde_json::Value>(text).unwrap());
    assert_eq!(json(r#"{"a":1,"b":[2.5,"x",null]}"#), json(r#"{"b":[2.50,"x",null],"a":1}"#));
    assert_eq!(json("1"), hex(1));
    assert_eq!(json("-1"), hex(-1));
    for (text, float) in [("1.0", 1.0), ("1e3", 1000.0), ("0.1", 0.1), ("-0", -0.0), ("-0.0", -0.0), ("5e-324", 5e-324)]
    {
        assert_eq!(json(text), hex::<f64>(float), "{text}");
    }
    assert_ne!(json("1"), json("1.0"));
}

/// As serde_json writes a number under `arbitrary_precision`.
struct Arbitrary(&'static str);

impl Serialize for Arbitrary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use ser::SerializeStruct;
        let mut number = serializer.serialize_struct(JSON_NUMBER, 1)?;
        number.serialize_field(JSON_NUMBER, self.0)?;
        number.end()
    }
}

#[test]
fn a_number_that_is_given_as_a_text_is_the_number() {
    assert_eq!(hex(Arbitrary("18446744073709551615")), hex(u64::MAX));
    assert_eq!(hex(Arbitrary("-9223372036854775808")), hex(i64::MIN));
    assert_eq!(hex(Arbitrary("0")), hex(0));
    assert_eq!(hex(Arbitrary("-0")), hex(-0.0));
    assert_eq!(hex(Arbitrary("0.1000")), hex(0.1));
    assert_eq!(hex(Arbitrary("100.0e-3")), hex(0.1));
    assert_eq!(hex(Arbitrary("1E400")), hex(Arbitrary("10e399")), "in one form, although no float holds it");
    assert_ne!(hex(Arbitrary("0.10000000000000000001")), hex(0.1), "no digit is lost");
    assert_ne!(hex(Arbitrary("1e400")), hex(Arbitrary("-1e400")));
    assert_ne!(hex(Arbitrary("1e400")), hex(f64::INFINITY));
    assert_ne!(hex(Arbitrary("1e99999999999999999999")), hex(Arbitrary("1e99999999999999999998")));
    assert_eq!(hex(Arbitrary("0e99999999999999999999")), hex(0.0));
}

struct Refuses;

impl Serialize for Refuses {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("not today"))
    }
}

#[test]
fn only_the_value_itself_can_refuse() {
    assert_eq!(canonical(&vec![Some(Refuses)]).unwrap_err().to_string(), "not today");
}
