//! What is stored for each kind of variant.
#![cfg(feature = "bincode")]

use es_framework::Event;

use crate::support::{payload, round_trip};

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
}

fn all() -> Vec<AccountEvent> {
    vec![
        AccountEvent::Opened { owner: "Alice".into() },
        AccountEvent::Deposited { cents: 500, currency: "EUR".into() },
        AccountEvent::Moved(3, Some("x".into())),
        AccountEvent::Renamed("Bob".into()),
        AccountEvent::Closed,
    ]
}

#[test]
fn every_kind_of_variant_is_read_as_it_was_written() {
    for event in all() {
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn only_the_fields_of_a_variant_are_stored() {
    let payloads: Vec<_> = all().iter().map(payload).collect();
    assert_eq!(payloads[0], b"\x05Alice");
    assert_eq!(payloads[1], [&[251, 244, 1, 3][..], b"EUR"].concat());
    assert_eq!(payloads[2], [3, 1, 1, b'x']);
    assert_eq!(payloads[3], b"\x03Bob");
    assert_eq!(payloads[4], b"");
}
