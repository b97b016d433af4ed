//! The attributes of serde mean on an event what they mean everywhere.

use es_framework::{DecodeError, Event};
use serde::{Deserialize, Serialize};

use crate::events::Text;
use crate::support::{payload, round_trip, stored_as};

/// Not serde's own.
#[derive(Debug, Clone, Default, PartialEq)]
struct Cents(u64);

mod euros {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Cents;

    pub(super) fn serialize<S: Serializer>(cents: &Cents, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}.{:02}", cents.0 / 100, cents.0 % 100))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cents, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().map(Cents).map_err(serde::de::Error::custom)
    }
}

fn seven() -> u32 {
    7
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    city: String,
    zip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(codec = Text)]
enum Order {
    #[es(name = "order.placed")]
    #[serde(rename_all = "camelCase")]
    Placed {
        #[serde(with = "euros")]
        total_price: Cents,
        #[serde(rename = "who", alias = "customer")]
        by: String,
        #[serde(default = "seven")]
        days_open: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(skip)]
        cache: Cents,
    },
    #[es(name = "order.sent")]
    Sent {
        #[serde(flatten)]
        to: Address,
        parcels: u8,
    },
    #[es(name = "order.paid")]
    Paid(#[serde(serialize_with = "euros::serialize", deserialize_with = "euros::deserialize")] Cents),
    #[es(name = "order.split")]
    Split(u8, #[serde(skip)] Cents, #[serde(with = "euros")] Cents),
    #[es(name = "order.forgotten")]
    Forgotten(#[serde(skip)] Cents),
    #[es(name = "order.written")]
    Written {
        #[serde(skip_serializing)]
        #[serde(default)]
        read: u8,
        #[serde(skip_deserializing)]
        written: u8,
    },
}

fn read(name: &str, json: &str) -> Result<Order, DecodeError> {
    Order::decode(&stored_as(name, 1, "text", json.to_owned()))
}

#[test]
fn with_rename_alias_default_and_skip_mean_what_they_mean_in_serde() {
    let placed = |cents, days_open, note: Option<&str>| Order::Placed {
        total_price: Cents(cents),
        by: "Bob".into(),
        days_open,
        note: note.map(Into::into),
        cache: Cents(0),
    };
    let event = placed(1234, 3, Some("x"));
    assert_eq!(
        String::from_utf8(payload(&event)).expect("JSON"),
        r#"{"totalPrice":"12.34","who":"Bob","daysOpen":3,"note":"x"}"#
    );
    assert_eq!(round_trip(&event), event);
    let event = placed(1, 3, None);
    assert_eq!(String::from_utf8(payload(&event)).expect("JSON"), r#"{"totalPrice":"0.01","who":"Bob","daysOpen":3}"#);
    assert_eq!(read("order.placed", r#"{"customer":"Bob","totalPrice":"0.50"}"#).expect("valid"), placed(50, 7, None));
}

#[test]
fn what_is_skipped_is_not_stored() {
    let event = Order::Placed { total_price: Cents(1), by: String::new(), days_open: 1, note: None, cache: Cents(99) };
    let Order::Placed { cache, .. } = round_trip(&event) else { panic!("another variant") };
    assert_eq!(cache, Cents(0));
    assert_eq!(round_trip(&Order::Forgotten(Cents(3))), Order::Forgotten(Cents(0)));
    let event = Order::Written { read: 3, written: 4 };
    assert_eq!(payload(&event), br#"{"written":4}"#);
    assert_eq!(round_trip(&event), Order::Written { read: 0, written: 0 });
}

#[test]
fn a_flattened_field_stands_beside_the_others() {
    let event = Order::Sent { to: Address { city: "Rome".into(), zip: None }, parcels: 2 };
    assert_eq!(payload(&event), br#"{"city":"Rome","zip":null,"parcels":2}"#);
    assert_eq!(round_trip(&event), event);
}

#[test]
fn attributes_work_in_tuple_variants() {
    assert_eq!(payload(&Order::Paid(Cents(250))), br#""2.50""#);
    assert_eq!(round_trip(&Order::Paid(Cents(250))), Order::Paid(Cents(250)));
    let event = Order::Split(1, Cents(0), Cents(250));
    assert_eq!(payload(&event), br#"[1,"2.50"]"#);
    assert_eq!(round_trip(&event), event);
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
#[serde(rename_all_fields = "kebab-case", deny_unknown_fields)]
enum Strict {
    #[es(name = "strict.one")]
    One { first_field: u8 },
}

#[derive(Debug, Default, PartialEq, Event)]
#[es(name = "lenient", codec = Text)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
struct Lenient {
    first_field: u8,
    second_field: Option<u8>,
}

#[test]
fn attributes_of_the_type_that_concern_the_fields_pass_through() {
    assert_eq!(payload(&Strict::One { first_field: 1 }), br#"{"first-field":1}"#);
    let read = |json: &'static str| Strict::decode(&stored_as("strict.one", 1, "text", json));
    assert_eq!(read(r#"{"first-field":1}"#).expect("valid"), Strict::One { first_field: 1 });
    read(r#"{"first-field":1,"x":2}"#).expect_err("an unknown field");

    let lenient = Lenient { first_field: 1, second_field: None };
    assert_eq!(payload(&lenient), br#"{"FIRST_FIELD":1,"SECOND_FIELD":null}"#);
    let read = Lenient::decode(&stored_as("lenient", 1, "text", r#"{"FIRST_FIELD":1,"x":2}"#)).expect("valid");
    assert_eq!(read, lenient);
}

/// Events that are the JSON of an API too, where serde's own derives read the attributes.
mod elsewhere {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[es(codec = Text)]
    #[serde(
        tag = "type",
        content = "data",
        rename = "Order",
        rename_all = "snake_case",
        rename_all_fields = "camelCase"
    )]
    enum Tagged {
        #[es(name = "order.placed")]
        OrderPlaced { total_cents: u64 },
        #[es(name = "order.sent")]
        #[serde(rename = "gone", alias = "away", rename_all = "SCREAMING_SNAKE_CASE")]
        OrderSent { by_ship: bool },
        #[es(name = "order.lost")]
        #[serde(skip)]
        OrderLost { at_sea: bool },
        #[es(name = "order.other")]
        #[serde(other)]
        Other,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[es(codec = Text)]
    #[serde(untagged, bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"), expecting = "a reading")]
    enum Untagged<T> {
        #[es(name = "reading.one")]
        One { value: T },
        #[es(name = "reading.none")]
        None,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[es(name = "order.paid", codec = Text)]
    #[serde(tag = "type", rename = "paid", rename_all = "camelCase")]
    struct Paid {
        in_cents: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[es(join)]
    #[serde(untagged)]
    enum Joined {
        #[serde(rename = "paid")]
        Paid(Paid),
        Order(Tagged),
    }

    #[test]
    fn how_the_type_looks_elsewhere_changes_nothing_that_is_stored() {
        let json = |event: &dyn Fn() -> serde_json::Result<String>| event().expect("JSON");
        let placed = Tagged::OrderPlaced { total_cents: 3 };
        assert_eq!(json(&|| serde_json::to_string(&placed)), r#"{"type":"order_placed","data":{"totalCents":3}}"#);
        assert_eq!(payload(&placed), br#"{"totalCents":3}"#);
        assert_eq!(round_trip(&placed), placed);

        let sent = Tagged::OrderSent { by_ship: true };
        assert_eq!(json(&|| serde_json::to_string(&sent)), r#"{"type":"gone","data":{"BY_SHIP":true}}"#);
        assert_eq!(payload(&sent), br#"{"BY_SHIP":true}"#);
        assert_eq!(round_trip(&sent), sent);

        let lost = Tagged::OrderLost { at_sea: true };
        assert_eq!(payload(&lost), br#"{"atSea":true}"#);
        assert_eq!(round_trip(&lost), lost);
        assert_eq!(round_trip(&Tagged::Other), Tagged::Other);

        let one = Untagged::One { value: 3_u8 };
        assert_eq!(json(&|| serde_json::to_string(&one)), r#"{"value":3}"#);
        assert_eq!(round_trip(&one), one);
        assert_eq!(round_trip(&Untagged::<u8>::None), Untagged::None);

        let paid = Paid { in_cents: 3 };
        assert_eq!(json(&|| serde_json::to_string(&paid)), r#"{"type":"paid","inCents":3}"#);
        assert_eq!(payload(&paid), br#"{"inCents":3}"#);
        let joined = Joined::Paid(paid);
        assert_eq!(json(&|| serde_json::to_string(&joined)), r#"{"type":"paid","inCents":3}"#);
        assert_eq!(round_trip(&joined), joined);
        assert_eq!(round_trip(&Joined::Order(sent.clone())), Joined::Order(sent));
        assert_eq!(Joined::names(), ["order.paid", "order.placed", "order.sent", "order.lost", "order.other"]);
    }

    #[cfg(feature = "bincode")]
    #[test]
    fn nor_does_it_where_fields_are_written_without_names() {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Tagged {
            #[es(name = "order.placed")]
            OrderPlaced { total_cents: u64 },
            #[es(name = "order.lost")]
            OrderLost,
        }
        let placed = Tagged::OrderPlaced { total_cents: 3 };
        assert_eq!(payload(&placed), b"\x03");
        assert_eq!(round_trip(&placed), placed);
        assert_eq!(round_trip(&Tagged::OrderLost), Tagged::OrderLost);
        assert_eq!(serde_json::to_string(&placed).expect("JSON"), r#"{"type":"order_placed","total_cents":3}"#);
    }
}

#[cfg(feature = "bincode")]
mod bincode {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Event)]
    enum Order {
        #[es(name = "order.placed")]
        Placed {
            #[serde(with = "euros")]
            price: Cents,
            #[serde(skip)]
            cache: Cents,
            #[serde(rename = "who", alias = "customer", default)]
            by: String,
        },
        #[es(name = "order.split")]
        Split(u8, #[serde(skip)] Cents, #[serde(with = "euros")] Cents),
        #[es(name = "order.forgotten")]
        Forgotten(#[serde(skip)] Cents),
    }

    #[test]
    fn attributes_work_in_a_format_without_names() {
        let event = Order::Placed { price: Cents(5), cache: Cents(0), by: "Bob".into() };
        assert_eq!(payload(&event), b"\x040.05\x03Bob");
        assert_eq!(round_trip(&event), event);
        let event = Order::Split(1, Cents(0), Cents(250));
        assert_eq!(payload(&event), b"\x01\x042.50");
        assert_eq!(round_trip(&event), event);
        assert_eq!(payload(&Order::Forgotten(Cents(3))), b"");
        assert_eq!(round_trip(&Order::Forgotten(Cents(3))), Order::Forgotten(Cents(0)));
    }
}
