//! The codec that wrote an event reads it.

use es_framework::{Bincode, DecodeError, Event, Json};

use crate::support::{payload, round_trip, stored_as};

#[derive(Debug, Clone, PartialEq, Event)]
#[es(codec = Json)]
enum Mixed {
    #[es(name = "mixed.json")]
    Json { value: u8, when: std::net::IpAddr },
    #[es(name = "mixed.bincode", codec = Bincode)]
    Bincode { value: u8, when: std::net::IpAddr },
    #[es(name = "mixed.unit")]
    Unit,
    #[es(name = "mixed.newtype")]
    Newtype(String),
    #[es(name = "mixed.tuple")]
    Tuple(u8, Option<u8>),
}

#[derive(Debug, Clone, PartialEq, Event)]
enum Later {
    #[es(name = "mixed.json")]
    Json { value: u8, when: std::net::IpAddr },
}

fn home() -> std::net::IpAddr {
    [127, 0, 0, 1].into()
}

#[test]
fn json_payloads_can_be_read_by_people() {
    for (event, json) in [
        (Mixed::Json { value: 1, when: home() }, r#"{"value":1,"when":"127.0.0.1"}"#),
        (Mixed::Unit, "null"),
        (Mixed::Newtype("x".into()), r#""x""#),
        (Mixed::Tuple(1, None), "[1,null]"),
    ] {
        assert_eq!(payload(&event), json.as_bytes());
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn a_variant_can_name_its_own_codec() {
    let event = Mixed::Bincode { value: 1, when: home() };
    assert_eq!(payload(&event), [1, 0, 127, 0, 0, 1]);
    assert_eq!(round_trip(&event), event);
    let types: Vec<_> =
        Mixed::event_types().iter().map(|ty| (ty.codec().to_owned(), ty.shape().map(str::to_owned))).collect();
    assert_eq!(types[0], ("json".into(), Some("{value:u8,when:str}".into())));
    assert_eq!(types[1], ("bincode".into(), Some("{value:u8,when:enum{V4((u8;4)),V6((u8;16))}}".into())));
}

#[test]
fn the_codec_that_wrote_an_event_reads_it() {
    let old = Mixed::Json { value: 1, when: home() }.encode().expect("can be written");
    let read = Later::decode(&crate::support::stored(&old)).expect("JSON is still read");
    assert_eq!(read, Later::Json { value: 1, when: home() });
    let new = read.encode().expect("can be written");
    assert_eq!(new.event_type().codec(), "bincode");
    Mixed::decode(&crate::support::stored(&new)).expect("and the other way");
}

#[test]
fn left_over_json_is_an_error() {
    let error = Mixed::decode(&stored_as("mixed.unit", 1, "json", "null null")).expect_err("something is left over");
    assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
}
