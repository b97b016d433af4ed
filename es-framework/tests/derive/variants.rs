//! What is stored for each kind of variant, in the default codec.

use es_framework::{Bincode, DecodeError, Event, Shape};
use serde::{Deserialize, Serialize};

use crate::support::{payload, round_trip, stored, stored_as};

#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { owner: String },
    #[es(name = "account.deposited")]
    Deposited { cents: u64, currency: String },
    #[es(name = "account.moved")]
    Moved(u32, Option<String>),
    #[es(name = "account.renamed")]
    Renamed(String),
    #[es(name = "account.closed")]
    Closed,
    #[es(name = "account.touched")]
    Touched {},
    #[es(name = "account.poked")]
    Poked(),
}

/// The same events after a few years: in another order, under other Rust names, with a new one.
#[derive(Debug, Clone, PartialEq, Event)]
enum Reordered {
    #[es(name = "account.closed")]
    Shut,
    #[es(name = "account.frozen")]
    Frozen { by: String },
    #[es(name = "account.renamed")]
    NameChanged(String),
    #[es(name = "account.deposited")]
    PaidIn { amount: u64, iso_code: String },
    #[es(name = "account.opened")]
    Opened { owner: String },
}

fn all() -> Vec<(AccountEvent, &'static [u8])> {
    vec![
        (AccountEvent::Opened { owner: "Alice".into() }, b"\x05Alice"),
        (AccountEvent::Deposited { cents: 500, currency: "EUR".into() }, b"\xfb\xf4\x01\x03EUR"),
        (AccountEvent::Moved(3, Some("x".into())), b"\x03\x01\x01x"),
        (AccountEvent::Renamed("Bob".into()), b"\x03Bob"),
        (AccountEvent::Closed, b""),
        (AccountEvent::Touched {}, b""),
        (AccountEvent::Poked(), b""),
    ]
}

#[test]
fn only_the_fields_of_a_variant_are_stored() {
    for (event, bytes) in all() {
        assert_eq!(payload(&event), bytes, "{event:?}");
    }
}

#[test]
fn every_kind_of_variant_is_read_as_it_was_written() {
    for (event, bytes) in all() {
        assert_eq!(round_trip(&event), event);
        let name = event.encode().expect("can be written").event_type().name().to_owned();
        assert_eq!(AccountEvent::decode(&stored_as(&name, 1, "bincode", bytes)).expect("can be read"), event);
    }
}

#[test]
fn reordering_variants_does_not_change_how_old_events_decode() {
    for (name, bytes, event) in [
        ("account.opened", &b"\x05Alice"[..], Reordered::Opened { owner: "Alice".into() }),
        ("account.deposited", b"\xfb\xf4\x01\x03EUR", Reordered::PaidIn { amount: 500, iso_code: "EUR".into() }),
        ("account.renamed", b"\x03Bob", Reordered::NameChanged("Bob".into())),
        ("account.closed", b"", Reordered::Shut),
    ] {
        let old = stored_as(name, 1, "bincode", bytes);
        assert_eq!(Reordered::decode(&old).expect("old events can be read"), event);
        assert_eq!(payload(&event), bytes, "and are written the same");
    }
}

#[test]
fn left_over_bytes_are_an_error() {
    for (event, bytes) in all() {
        let name = event.encode().expect("can be written").event_type().name().to_owned();
        let longer = [bytes, &[0]].concat();
        let error = AccountEvent::decode(&stored_as(&name, 1, "bincode", longer)).expect_err("a byte is left over");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn missing_bytes_are_an_error() {
    for (event, bytes) in all().into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let name = event.encode().expect("can be written").event_type().name().to_owned();
        let shorter = bytes[..bytes.len() - 1].to_vec();
        let error = AccountEvent::decode(&stored_as(&name, 1, "bincode", shorter)).expect_err("a byte is missing");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

#[test]
fn an_unknown_name_is_a_typed_error() {
    let error = AccountEvent::decode(&stored_as("account.exploded", 1, "bincode", "")).expect_err("no such name");
    let DecodeError::Unknown { stream, position, name, schema_version, .. } = error else { panic!("{error:?}") };
    assert_eq!(
        (stream.as_str(), position.get(), name.as_str(), schema_version),
        ("account-alice", 17, "account.exploded", 1)
    );
}

#[test]
fn an_unknown_version_is_a_typed_error() {
    let error = AccountEvent::decode(&stored_as("account.closed", 2, "bincode", "")).expect_err("no such version");
    assert!(matches!(error, DecodeError::Unknown { schema_version: 2, .. }), "{error:?}");
}

#[test]
fn an_unknown_codec_is_a_typed_error() {
    let error = AccountEvent::decode(&stored_as("account.closed", 1, "cbor", "")).expect_err("no such codec");
    assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
}

#[test]
fn the_names_and_types_of_an_event_can_be_asked() {
    let names = AccountEvent::names();
    assert_eq!(names.len(), 7);
    assert_eq!(names[0], "account.opened");
    assert!(names.iter().all(|name| AccountEvent::claims(name)));
    assert!(!AccountEvent::claims("account.frozen"));
    let types: Vec<_> = AccountEvent::event_types()
        .iter()
        .map(|ty| format!("{} {} {} {}", ty.name(), ty.schema_version(), ty.codec(), ty.shape().unwrap_or("none")))
        .collect();
    assert_eq!(
        types,
        [
            "account.opened 1 bincode {owner:str}",
            "account.deposited 1 bincode {cents:u64,currency:str}",
            "account.moved 1 bincode (u32,?str)",
            "account.renamed 1 bincode (str)",
            "account.closed 1 bincode ()",
            "account.touched 1 bincode {}",
            "account.poked 1 bincode ()",
        ]
    );
}

#[test]
fn the_type_of_an_event_is_made_once() {
    let one = AccountEvent::Closed.encode().expect("can be written");
    let two = AccountEvent::Closed.encode().expect("can be written");
    assert!(std::sync::Arc::ptr_eq(one.event_type(), two.event_type()));
}

#[derive(Debug, PartialEq, Event)]
#[es(name = "rows.imported", version = 2, alias = "rows.loaded", from(version = 1, type = u32))]
struct Imported {
    rows: u64,
    file: String,
}

impl From<u32> for Imported {
    fn from(rows: u32) -> Self {
        Self { rows: rows.into(), file: String::new() }
    }
}

#[derive(Debug, PartialEq, Event)]
#[es(name = "started")]
struct Started;

#[derive(Debug, PartialEq, Event)]
#[es(name = "named")]
struct Named(String);

#[derive(Debug, PartialEq, Event)]
#[es(name = "placed")]
struct Placed(u8, Option<u16>);

#[test]
fn a_struct_is_one_event() {
    let imported = Imported { rows: 3, file: "a".into() };
    assert_eq!(payload(&imported), b"\x03\x01a");
    assert_eq!(round_trip(&imported), imported);
    assert_eq!(round_trip(&Started), Started);
    assert_eq!(payload(&Started), b"");
    assert_eq!(round_trip(&Named("x".into())), Named("x".into()));
    assert_eq!(payload(&Named("x".into())), b"\x01x");
    assert_eq!(round_trip(&Placed(1, Some(2))), Placed(1, Some(2)));
    assert_eq!(Imported::names(), ["rows.imported", "rows.loaded"]);
    let old = stored_as("rows.loaded", 1, "bincode", vec![9]);
    assert_eq!(Imported::decode(&old).expect("an old version"), Imported { rows: 9, file: String::new() });
}

#[derive(Debug, PartialEq, Event)]
enum Nothing {}

#[test]
fn an_empty_enum_is_an_event_that_never_happens() {
    assert!(Nothing::names().is_empty() && Nothing::event_types().is_empty() && !Nothing::claims("x"));
    let error = Nothing::decode(&stored_as("x", 1, "bincode", "")).expect_err("no such name");
    assert!(matches!(error, DecodeError::Unknown { .. }), "{error:?}");
}

mod versions {
    use super::*;

    #[derive(Debug, PartialEq, Event)]
    enum AccountEvent {
        #[es(
            name = "account.deposited",
            version = 3,
            alias = "account.credited",
            from(version = 1, type = DepositedV1),
            from(version = 2, type = DepositedV2),
            from(version = 1, type = Paid, name = "account.paid")
        )]
        Deposited { cents: u64, currency: String, by: Option<String> },
    }

    #[derive(Serialize, Deserialize)]
    struct DepositedV1 {
        euros: u32,
    }

    #[derive(Serialize, Deserialize)]
    struct DepositedV2 {
        cents: u64,
        currency: String,
    }

    #[derive(Serialize, Deserialize)]
    struct Paid(String, u64);

    impl From<DepositedV1> for AccountEvent {
        fn from(old: DepositedV1) -> Self {
            Self::Deposited { cents: u64::from(old.euros) * 100, currency: "EUR".into(), by: None }
        }
    }

    impl From<DepositedV2> for AccountEvent {
        fn from(old: DepositedV2) -> Self {
            Self::Deposited { cents: old.cents, currency: old.currency, by: None }
        }
    }

    impl From<Paid> for AccountEvent {
        fn from(old: Paid) -> Self {
            Self::Deposited { cents: old.1, currency: "EUR".into(), by: Some(old.0) }
        }
    }

    fn read(name: &str, version: u32, bytes: &[u8]) -> Result<AccountEvent, DecodeError> {
        AccountEvent::decode(&stored_as(name, version, "bincode", bytes.to_vec()))
    }

    #[test]
    fn an_old_schema_version_is_brought_up_to_date() {
        let deposited = |cents, currency: &str, by: Option<&str>| AccountEvent::Deposited {
            cents,
            currency: currency.into(),
            by: by.map(Into::into),
        };
        let euros = deposited(500, "EUR", None);
        for name in ["account.deposited", "account.credited"] {
            assert_eq!(read(name, 1, b"\x05").expect("version 1"), euros);
            assert_eq!(read(name, 2, b"\x07\x03USD").expect("version 2"), deposited(7, "USD", None));
            assert_eq!(read(name, 3, b"\x07\x03USD\x00").expect("version 3"), deposited(7, "USD", None));
        }
        assert_eq!(read("account.paid", 1, b"\x03Bob\x09").expect("an old name"), deposited(9, "EUR", Some("Bob")));
        assert_eq!(AccountEvent::names(), ["account.deposited", "account.credited", "account.paid"]);
    }

    #[test]
    fn an_old_name_is_read_in_the_versions_it_had_and_no_other() {
        for (name, version) in [("account.paid", 2), ("account.paid", 3), ("account.deposited", 4)] {
            let error = read(name, version, b"\x05").expect_err("no such version");
            assert!(matches!(error, DecodeError::Unknown { .. }), "{error:?}");
        }
    }

    #[test]
    fn only_the_newest_version_is_written() {
        let event = read("account.deposited", 1, b"\x05").expect("version 1");
        let written = event.encode().expect("can be written");
        assert_eq!((written.event_type().name(), written.event_type().schema_version()), ("account.deposited", 3));
        assert_eq!(round_trip(&event), event);
    }

    #[test]
    fn an_old_payload_with_left_over_bytes_is_an_error() {
        let error = read("account.deposited", 1, b"\x05\x00").expect_err("a byte is left over");
        assert!(matches!(error, DecodeError::Payload { .. }), "{error:?}");
    }
}

mod joined {
    use super::*;
    use crate::events::Counted;

    #[derive(Debug, PartialEq, Event)]
    #[es(join)]
    enum BankEvent {
        Account(AccountEvent),
        Imported(Imported),
        Counted(Counted),
    }

    #[derive(Debug, PartialEq, Event)]
    #[es(join)]
    enum Both<A, B: Event> {
        A(A),
        B(B),
    }

    #[derive(Debug, PartialEq, Event)]
    #[es(join)]
    enum Neither {}

    #[test]
    fn joined_events_are_stored_as_they_are() {
        let account = AccountEvent::Opened { owner: "Alice".into() };
        let bank = BankEvent::Account(AccountEvent::Opened { owner: "Alice".into() });
        assert_eq!(bank.encode().expect("can be written"), account.encode().expect("can be written"));
    }

    #[test]
    fn the_variant_that_knows_the_stored_name_is_taken() {
        for event in [
            BankEvent::Account(AccountEvent::Closed),
            BankEvent::Imported(Imported { rows: 1, file: String::new() }),
            BankEvent::Counted(Counted::By { amount: -3 }),
        ] {
            assert_eq!(round_trip(&event), event);
        }
        let old = stored_as("rows.loaded", 1, "bincode", vec![9]);
        let up_to_date = BankEvent::Imported(Imported { rows: 9, file: String::new() });
        assert_eq!(BankEvent::decode(&old).expect("an old name"), up_to_date);
    }

    #[test]
    fn the_names_and_types_of_joined_events_are_put_together() {
        assert_eq!(BankEvent::names().len(), 7 + 2 + 2);
        assert_eq!(BankEvent::event_types().len(), 7 + 1 + 2);
        assert!(BankEvent::claims("rows.loaded") && BankEvent::claims("counted.up") && !BankEvent::claims("x"));
        assert!(Neither::names().is_empty() && !Neither::claims("x"));
    }

    #[test]
    fn what_none_of_the_joined_events_knows_is_a_typed_error() {
        for (name, version) in [("unheard.of", 1), ("account.closed", 7)] {
            let error = BankEvent::decode(&stored_as(name, version, "bincode", "")).expect_err("unknown");
            assert!(matches!(error, DecodeError::Unknown { .. }), "{error:?}");
        }
    }

    #[test]
    fn joined_events_can_be_parameters_and_joined_again() {
        type All = Both<BankEvent, Both<Started, Named>>;
        let event = All::B(Both::B(Named("x".into())));
        assert_eq!(round_trip(&event), event);
        let event = All::A(BankEvent::Account(AccountEvent::Closed));
        assert_eq!(round_trip(&event), event);
        assert_eq!(All::names().len(), 11 + 2);
    }
}

#[test]
fn a_payload_has_the_shape_of_its_fields() {
    let stored = stored(&AccountEvent::Opened { owner: "Alice".into() }.encode().expect("can be written"));
    assert_eq!(stored.event_type.shape(), Some("{owner:str}"));
    assert_eq!(Shape::of::<Bincode, (u32, Option<String>)>().as_str(), "(u32,?str)");
}
