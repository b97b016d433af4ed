//! What `#[derive(Aggregate)]` says about a type.

use std::fmt;

use es_framework::{Aggregate, Event};

use crate::events::Counted;

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "counter", event = Counted)]
struct Counter {
    count: u64,
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "unit", event = Counted, id = u64)]
struct Unit;

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "tuple", event = Counted)]
struct Tuple(#[expect(dead_code, reason = "only its type matters")] u8);

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "order", event = Counted)]
enum Order {
    #[default]
    Draft,
    #[expect(dead_code, reason = "only its type matters")]
    Placed { items: u32 },
}

#[derive(Debug, Clone, Aggregate)]
#[es(category = "generic", event = E, id = Id<E>)]
struct Generic<E, const N: usize = 3>
where
    E: Event + Clone + fmt::Debug,
{
    last: Option<E>,
}

impl<E: Event + Clone + fmt::Debug, const N: usize> Default for Generic<E, N> {
    fn default() -> Self {
        Self { last: None }
    }
}

#[derive(Debug, Clone)]
struct Id<E>(String, std::marker::PhantomData<E>);

impl<E> fmt::Display for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_aggregate<A: Aggregate>() -> &'static str {
    A::CATEGORY
}

#[test]
fn structs_enums_and_generic_types_are_aggregates() {
    let categories = [
        is_aggregate::<Counter>(),
        is_aggregate::<Unit>(),
        is_aggregate::<Tuple>(),
        is_aggregate::<Order>(),
        is_aggregate::<Generic<Counted>>(),
        is_aggregate::<Generic<Counted, 5>>(),
    ];
    assert_eq!(categories, ["counter", "unit", "tuple", "order", "generic", "generic"]);
    assert_eq!(Counter::default().count, 0);
    assert!(Generic::<Counted>::default().last.is_none());
}

#[test]
fn the_stream_of_an_aggregate_is_its_category_and_its_id() {
    assert_eq!(Counter::stream_id(&"alice".to_owned()).expect("valid").as_str(), "counter-alice");
    assert_eq!(Unit::stream_id(&7).expect("valid").as_str(), "unit-7");
    let id = Id("x".into(), std::marker::PhantomData);
    assert_eq!(Generic::<Counted>::stream_id(&id).expect("valid").as_str(), "generic-x");
}

#[test]
fn without_the_key_no_snapshots_are_taken_and_the_state_need_not_be_serde_s() {
    assert!(Counter::SNAPSHOTS.is_none());
}

#[cfg(feature = "bincode")]
mod snapshots {
    use es_framework::{Progress, Version};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
    #[es(category = "account", event = Counted, snapshot(every = 100))]
    struct Account {
        owner: Option<String>,
        cents: u64,
    }

    #[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
    #[es(category = "account", event = Counted, snapshot(every = 100, version = 2))]
    struct Raised {
        owner: Option<String>,
        cents: u64,
    }

    #[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
    #[es(category = "account", event = Counted, snapshot(when = due))]
    struct When<T>
    where
        T: Copy + Default + fmt::Debug,
    {
        value: T,
    }

    fn due<T: Copy + Default + fmt::Debug>(_: &When<T>, progress: Progress) -> bool {
        progress.version == Version::new(5)
    }

    fn due_at<A: Aggregate>(version: u64, since: u64) -> bool {
        let snapshots = A::SNAPSHOTS.expect("the type has snapshots");
        snapshots.is_due(&A::default(), Progress::new(Version::new(version), since))
    }

    #[test]
    fn every_so_many_events_a_snapshot_is_due() {
        assert!(!due_at::<Account>(200, 99));
        assert!(due_at::<Account>(200, 100));
        assert!(due_at::<Account>(200, 101));
    }

    #[test]
    fn the_caller_s_own_policy_is_asked() {
        assert!(due_at::<When<u64>>(5, 0));
        assert!(!due_at::<When<u64>>(6, 1000));
    }

    #[test]
    fn the_state_that_was_saved_is_the_state_that_is_loaded() {
        let snapshots = Account::SNAPSHOTS.expect("the type has snapshots");
        let account = Account { owner: Some("Alice".into()), cents: 3 };
        let bytes = snapshots.encode(&account).expect("can be written");
        assert_eq!(bytes, b"\x01\x05Alice\x03");
        assert_eq!(snapshots.decode(&bytes).expect("can be read"), account);
    }

    #[test]
    fn raising_the_version_changes_the_fingerprint() {
        let old = Account::SNAPSHOTS.expect("the type has snapshots").fingerprint();
        let new = Raised::SNAPSHOTS.expect("the type has snapshots").fingerprint();
        assert_ne!(old, new);
        assert_eq!(old, Account::SNAPSHOTS.expect("the type has snapshots").fingerprint());
    }

    #[test]
    fn an_instance_of_a_generic_state_has_a_fingerprint_of_its_own() {
        let small = When::<u32>::SNAPSHOTS.expect("the type has snapshots").fingerprint();
        let large = When::<u64>::SNAPSHOTS.expect("the type has snapshots").fingerprint();
        assert_ne!(small, large);
    }

    #[cfg(feature = "json")]
    #[test]
    fn the_codec_of_snapshots_can_be_named() {
        #[derive(Debug, Default, Clone, Serialize, Deserialize, Aggregate)]
        #[es(category = "account", event = Counted, snapshot(every = 1, codec = es_framework::Json))]
        struct Readable {
            cents: u64,
        }
        let snapshots = Readable::SNAPSHOTS.expect("the type has snapshots");
        assert_eq!(snapshots.encode(&Readable { cents: 3 }).expect("can be written"), b"{\"cents\":3}");
    }
}
