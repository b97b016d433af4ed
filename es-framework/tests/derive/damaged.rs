//! Payloads that nobody wrote: an error each, never a panic.

use std::collections::BTreeMap;

use es_framework::{DecodeError, Event};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::support::{payload, round_trip, stored_as};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    None,
    Text(String),
    Many { list: Vec<Self>, map: BTreeMap<String, Option<char>> },
}

#[derive(Debug, Clone, PartialEq, Event)]
enum Damaged {
    #[es(name = "everything")]
    Mixture {
        numbers: (u8, i16, u32, i64, u128, f64),
        text: Box<str>,
        bytes: Vec<u8>,
        kind: Kind,
        lists: Vec<Vec<u64>>,
        units: Vec<()>,
    },
    #[es(name = "numbers")]
    Numbers(Vec<u64>),
    #[es(name = "texts")]
    Texts(Vec<String>),
    #[es(name = "units")]
    Units(Vec<()>),
    #[es(name = "nested")]
    Nested(Nested),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nested(Option<Box<Self>>);

fn decode(name: &str, bytes: Vec<u8>) -> Result<Damaged, DecodeError> {
    Damaged::decode(&stored_as(name, 1, "bincode", bytes))
}

proptest! {
    #[test]
    fn bytes_at_random_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for name in Damaged::names() {
            if let Ok(event) = decode(name, bytes.clone()) {
                prop_assert_eq!(round_trip(&event), event);
            }
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0_usize..200, byte in any::<u8>()) {
        let event = Damaged::Mixture {
            numbers: (1, -2, 3, -4, 5, 0.5),
            text: "some text".into(),
            bytes: vec![1; 20],
            kind: Kind::Many { list: vec![Kind::Text("x".into()), Kind::None], map: BTreeMap::from([("k".into(), Some('c'))]) },
            lists: vec![vec![1, 2, 300], vec![]],
            units: vec![(); 3],
        };
        let mut bytes = payload(&event);
        if let Some(flipped) = bytes.get_mut(at) {
            *flipped = byte;
            drop(decode("everything", bytes));
        }
    }
}

#[test]
fn a_length_that_lies_is_an_error_and_reserves_nothing() {
    for name in ["numbers", "texts", "units"] {
        let error = decode(name, [&[253][..], &[255; 8]].concat()).expect_err("so much there is not");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn a_value_nested_without_end_is_an_error() {
    let error = decode("nested", vec![1; 1 << 20]).expect_err("too deep");
    assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
}

#[test]
fn what_was_written_is_read_however_much_it_is() {
    let event = Damaged::Numbers(vec![1; 6 << 20]);
    assert_eq!(payload(&event).len(), (6 << 20) + 5);
    assert!(round_trip(&event) == event, "six million numbers");
}
