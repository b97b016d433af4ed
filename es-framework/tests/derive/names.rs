//! A stored name may be a constant, and counts as if it were written out.

use es_framework::{Aggregate, Command, Event};

use crate::events::{Counted, Text};
use crate::support::{payload, round_trip, stored_as};

mod account {
    pub(super) const OPENED: &str = "account.opened";
    pub(super) const PREFIX: &str = "account";
    pub(super) const DEPOSITED: &str = "account.deposited";
    pub(super) const CREDITED: &str = "account.credited";
}

trait Named {
    const NAME: &'static str;
}

struct Closed;

impl Named for Closed {
    const NAME: &'static str = "account.closed";
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum AccountEvent {
    #[es(name = account::OPENED)]
    Opened { owner: String },
    #[es(name = account::DEPOSITED, version = 2, alias = account::CREDITED, from(version = 1, type = u32, name = concat!("account", ".paid")))]
    Deposited { cents: u64 },
    #[es(name = <Closed as Named>::NAME)]
    Closed,
    #[es(name = "account.frozen")]
    Frozen,
}

impl From<u32> for AccountEvent {
    fn from(euros: u32) -> Self {
        Self::Deposited { cents: u64::from(euros) * 100 }
    }
}

#[derive(Debug, PartialEq, Event)]
#[es(name = account::OPENED, codec = Text)]
struct Alone(u8);

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum Generic<T> {
    #[es(name = account::OPENED)]
    Opened(T),
    #[es(name = account::DEPOSITED, alias = "generic.old")]
    Deposited,
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = account::PREFIX, event = Counted)]
struct Account;

#[derive(Command)]
#[es(name = concat!("account", ".open"))]
struct Open;

#[test]
fn a_constant_is_a_name_like_a_literal() {
    let all =
        ["account.opened", "account.deposited", "account.credited", "account.paid", "account.closed", "account.frozen"];
    assert_eq!(AccountEvent::names(), all);
    assert!(all.into_iter().all(AccountEvent::claims));
    assert!(!AccountEvent::claims("account"));
    let types: Vec<_> = AccountEvent::event_types().iter().map(|event_type| event_type.name().to_owned()).collect();
    assert_eq!(types, ["account.opened", "account.deposited", "account.closed", "account.frozen"]);
    for event in
        [AccountEvent::Opened { owner: "Alice".into() }, AccountEvent::Deposited { cents: 3 }, AccountEvent::Closed]
    {
        assert_eq!(round_trip(&event), event);
    }
    let read = |name, version, json: &'static str| AccountEvent::decode(&stored_as(name, version, "text", json));
    assert_eq!(read(account::CREDITED, 2, r#"{"cents":3}"#).expect("an alias"), AccountEvent::Deposited { cents: 3 });
    assert_eq!(read("account.paid", 1, "3").expect("an old name"), AccountEvent::Deposited { cents: 300 });
    read("account.paid", 2, "3").expect_err("an old name in another version");
}

#[test]
fn structs_generic_events_aggregates_and_commands_take_constants_too() {
    assert_eq!(Alone::names(), ["account.opened"]);
    assert_eq!(payload(&Alone(3)), b"3");
    assert_eq!(round_trip(&Generic::Opened(3_u8)), Generic::Opened(3));
    assert_eq!(round_trip(&Generic::<u8>::Deposited), Generic::Deposited);
    assert_eq!(Account::stream_id(&"alice".to_owned()).expect("valid").as_str(), "account-alice");
    assert_eq!(Open::NAME, "account.open");
}
