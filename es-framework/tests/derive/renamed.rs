//! The crate under another name, as `framework = { package = "es-framework", … }` gives it.

mod elsewhere {
    pub(crate) use es_framework as framework;
}

use elsewhere::framework as renamed;

use crate::events::{Counted, Text};
use crate::support::round_trip;

#[derive(Debug, PartialEq, renamed::Event)]
#[es(crate = "renamed", codec = Text)]
enum Renamed {
    #[es(name = "renamed.unit")]
    Unit,
    #[es(name = "renamed.struct", stream = "renamed-{value}")]
    Struct {
        #[es(tag)]
        value: u8,
    },
}

#[derive(Debug, Default, Clone, renamed::View)]
#[es(crate = "renamed", event = Renamed, tags(value))]
struct Seen;

#[derive(Debug, PartialEq, renamed::Event)]
#[es(crate = "crate::renamed::elsewhere::framework", name = "renamed.alone", codec = Text)]
struct Alone(u8);

#[derive(Debug, PartialEq, renamed::Event)]
#[es(crate = "renamed", join)]
enum Joined {
    Renamed(Renamed),
    Alone(Alone),
}

#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize, renamed::Aggregate)]
#[es(crate = "renamed", category = "renamed", event = Counted, snapshot(every = 1, codec = Text))]
struct State(u8);

#[derive(renamed::Command)]
#[es(crate = "renamed", name = "renamed.command")]
struct Order;

#[test]
fn the_crate_can_have_another_name() {
    assert_eq!(round_trip(&Joined::Renamed(Renamed::Unit)), Joined::Renamed(Renamed::Unit));
    let event = Joined::Renamed(Renamed::Struct { value: 3 });
    assert_eq!(round_trip(&event), event);
    assert_eq!(round_trip(&Joined::Alone(Alone(1))), Joined::Alone(Alone(1)));
    let snapshots = <State as renamed::Aggregate>::SNAPSHOTS.expect("the type has snapshots");
    assert_eq!(Seen::of(3).query().expect("a valid query").criteria().len(), 1);
    assert_eq!(<Order as renamed::Command>::NAME, "renamed.command");
    assert_eq!(snapshots.encode(&State(3)).expect("can be written"), b"3");
}
