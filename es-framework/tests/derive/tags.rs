//! Tags and streams that events name from their fields, and views.

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Display};

use es_framework::{Apply, EncodeError, Envelope, Event, Events, InvalidName, MAX_TAGS, NamesStream, View, ViewOf};
use serde::{Deserialize, Serialize};

use crate::events::Text;
use crate::support::{round_trip, stored};

const SEAT: &str = "seat";

/// An id that is not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Id(u32);

impl Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Cannot be formatted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Silent;

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text, name = "tagged.silent", stream = "silent-{0}")]
struct OfSilent(#[es(tag = "silent")] Silent);

impl Display for Silent {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Err(fmt::Error)
    }
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text, stream = "tagged-{id}")]
enum Tagged {
    #[es(name = "tagged.struct")]
    Struct {
        #[es(tag)]
        id: Id,
        #[es(tag = "student")]
        r#type: Option<String>,
        #[es(tag = SEAT)]
        seats: Vec<u16>,
        #[es(tag)]
        set: BTreeSet<Id>,
        untagged: Vec<u8>,
    },
    #[es(name = "tagged.tuple", stream = "pair-{0}-of-{1}{0}")]
    Tuple(#[es(tag = "side")] Box<str>, #[es(tag = "side")] Box<str>),
    #[es(name = "tagged.unit", stream = "{{all}}")]
    Unit,
    #[es(name = "tagged.raw", stream = "raw-{type}")]
    Raw {
        #[es(tag)]
        r#type: bool,
        #[es(tag)]
        pair: [u8; 2],
        #[es(tag)]
        id: HashSet<u8>,
    },
    #[es(name = "tagged.array")]
    Array {
        #[es(tag)]
        id: Id,
        #[es(tag)]
        of: Box<[u64]>,
    },
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text, name = "tagged.alone", stream = "alone-{0}")]
struct Alone(#[es(tag = "it")] Id);

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text, name = "tagged.plain")]
struct Plain(Id);

#[derive(Debug, PartialEq, Event)]
#[es(join)]
enum Joined {
    Tagged(Tagged),
    Alone(Alone),
    Plain(Plain),
}

fn tags(event: &impl Event) -> Vec<String> {
    event.encode().expect("it encodes").tags().iter().map(ToString::to_string).collect()
}

fn stream(event: &impl Event) -> Option<String> {
    event.stream().expect("a valid stream").map(|stream| stream.to_string())
}

fn pair(a: &str, b: &str) -> Tagged {
    Tagged::Tuple(a.into(), b.into())
}

#[test]
fn i1_tags_are_the_values_of_fields_in_order_and_each_once() {
    let full = Tagged::Struct {
        id: Id(7),
        r#type: Some("ann".into()),
        seats: vec![3, 1, 3],
        set: BTreeSet::from([Id(9), Id(8)]),
        untagged: vec![1],
    };
    assert_eq!(tags(&full), ["id:#7", "student:ann", "seat:3", "seat:1", "set:#8", "set:#9"]);
    let empty =
        Tagged::Struct { id: Id(7), r#type: None, seats: Vec::new(), set: BTreeSet::new(), untagged: Vec::new() };
    assert_eq!(tags(&empty), ["id:#7"]);
    assert_eq!(tags(&pair("a", "b")), ["side:a", "side:b"]);
    assert_eq!(tags(&pair("a", "a")), ["side:a"]);
    assert_eq!(tags(&Tagged::Unit), [] as [&str; 0]);
    assert_eq!(tags(&Tagged::Array { id: Id(1), of: Box::new([5, 6]) }), ["id:#1", "of:5", "of:6"]);
    assert_eq!(tags(&Alone(Id(1))), ["it:#1"]);
    let raw = Tagged::Raw { r#type: true, pair: [1, 2], id: HashSet::from([3]) };
    assert_eq!(
        (tags(&raw).join(" ").as_str(), stream(&raw).as_deref()),
        ("type:true pair:1 pair:2 id:3", Some("raw-true"))
    );
    for event in [full, empty, pair("a", "b"), Tagged::Unit] {
        assert_eq!(stored(&event.encode().unwrap()).tags, *event.encode().unwrap().tags());
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn i1_a_value_that_no_tag_can_have_is_a_typed_error() {
    let error = |event: &Tagged| event.encode().unwrap_err();
    assert!(matches!(error(&pair("", "b")), EncodeError::Tag { tag: "side", source: InvalidName::NotATag { .. }, .. }));
    let long = error(&pair("a", &"x".repeat(300)));
    assert!(matches!(long, EncodeError::Tag { source: InvalidName::TooLong { .. }, .. }), "{long:?}");
    assert_eq!(long.to_string(), "event tagged.tuple has no valid tag `side`");
    assert_eq!(long.name(), "tagged.tuple");
    assert!(matches!(error(&pair("a\n", "b")), EncodeError::Tag { source: InvalidName::ControlCharacter { .. }, .. }));
    let many = |count: u64| Tagged::Array { id: Id(1), of: (1..count).collect() };
    assert_eq!(tags(&many(32)).len(), MAX_TAGS);
    assert!(matches!(error(&many(33)), EncodeError::TooManyTags { name: "tagged.array", limit: MAX_TAGS }));
    assert!(matches!(OfSilent(Silent).encode(), Err(EncodeError::Tag { tag: "silent", .. })));
    assert!(OfSilent(Silent).stream().is_err());
    // A tag that is there already does not count.
    assert_eq!(tags(&Tagged::Array { id: Id(1), of: vec![5; 99].into() }), ["id:#1", "of:5"]);
}

#[test]
fn an_event_names_its_stream_from_its_fields() {
    assert_eq!(stream(&Tagged::Array { id: Id(7), of: Box::new([]) }).as_deref(), Some("tagged-#7"));
    assert_eq!(stream(&pair("a", "b")).as_deref(), Some("pair-a-of-ba"));
    assert_eq!(stream(&Tagged::Unit).as_deref(), Some("{all}"));
    assert_eq!(stream(&Alone(Id(3))).as_deref(), Some("alone-#3"));
    assert_eq!(stream(&Plain(Id(3))), None);
    assert!(matches!(pair("", "b").stream(), Err(InvalidName::Empty { what: "0" })));
    assert!(matches!(pair("a", &"b".repeat(255)).stream(), Err(InvalidName::TooLong { .. })));
}

#[test]
fn a_joined_event_passes_tags_and_stream_through() {
    let alone = Joined::Alone(Alone(Id(1)));
    assert_eq!((tags(&alone), stream(&alone).as_deref()), (vec!["it:#1".to_owned()], Some("alone-#1")));
    let plain = Joined::Plain(Plain(Id(1)));
    assert_eq!((tags(&plain), stream(&plain)), (Vec::new(), None));
    assert_eq!(stream(&Joined::Tagged(Tagged::Unit)).as_deref(), Some("{all}"));
    // Whether a joined event names its stream is known when it is written.
    assert_ne!(Events::from(plain), Events::new());
}

#[derive(Debug, PartialEq, Event)]
#[es(codec = Text)]
enum Generic<T, const N: usize = 1>
where
    T: Display,
{
    #[es(name = "generic.of", stream = "generic-{id}")]
    Of {
        #[es(tag)]
        id: T,
        #[es(tag)]
        all: Vec<T>,
    },
    #[es(name = "generic.unnamed")]
    Unnamed,
}

#[derive(Debug, Default, Clone, View)]
#[es(event = Generic<u8>, tags(id: T))]
struct GenericView<T>(Option<T>)
where
    T: Display + Default + Clone + Send + Sync + 'static;

impl<T: Display + Default + Clone + Send + Sync + 'static> Apply for GenericView<T> {
    fn apply(&mut self, _: &Generic<u8>, _: Envelope<'_>) {}
}

#[test]
fn generic_events_have_tags() {
    let event = Generic::<u8>::Of { id: 1, all: vec![2, 3] };
    assert_eq!(tags(&event), ["id:1", "all:2", "all:3"]);
    assert_eq!(stream(&event).as_deref(), Some("generic-1"));
    assert_eq!(stream(&Generic::<String>::Unnamed), None);
    let query = GenericView::<u8>::of(5).query().unwrap().to_string();
    assert_eq!(query, "generic.of|generic.unnamed with id:5");
}

/// What the events were once called.
#[derive(Debug, Event)]
#[es(codec = Text, name = "seat.taken", alias = "seat.occupied", version = 2, from(version = 1, type = (), name = "seat.sold"))]
struct SeatTaken {
    #[es(tag)]
    _seat: u8,
}

impl From<()> for SeatTaken {
    fn from((): ()) -> Self {
        Self { _seat: 0 }
    }
}

#[derive(Debug, Default, Clone, View)]
#[es(event = SeatTaken, tags(r#type, seat: Id = SEAT), tags(seat, row = "row-id"))]
struct Seats;

#[derive(Debug, Default, Clone, View)]
#[es(event = SeatTaken)]
enum Everything {
    #[default]
    Nothing,
}

#[test]
fn a_view_asks_for_its_events_under_all_their_names() {
    let (row, seat) = (String::from("9"), &Id(4));
    let of = Seats::of("box", Id(4), &row);
    assert_eq!(
        of.query().unwrap().to_string(),
        "seat.taken|seat.occupied|seat.sold with type:box and seat:#4 \
         or seat.taken|seat.occupied|seat.sold with seat:#4 and row-id:9"
    );
    assert_eq!(Seats::of("box", seat, 9).query().unwrap(), of.query().unwrap());
    assert!(matches!(Seats::of("", Id(4), 9).query(), Err(InvalidName::NotATag { .. })));
    let everything: ViewOf<Everything> = Everything::of();
    assert_eq!(everything.query().unwrap().to_string(), "seat.taken|seat.occupied|seat.sold");
    assert_eq!(format!("{everything:?}"), "ViewOf(seat.taken|seat.occupied|seat.sold)");
}

#[test]
fn an_event_names_its_stream_if_all_its_variants_do() {
    fn names_stream<E: NamesStream>() {}
    names_stream::<Tagged>();
    names_stream::<Alone>();
    names_stream::<Joined>();
}

/// Nothing of the prelude, and names that generated code could stumble over.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, non_camel_case_types, reason = "only there to be stumbled over")]

    pub(super) struct Vec;
    pub(super) struct String;
    pub(super) struct Option;
    pub(super) struct Result;
    pub(super) struct Tags;
    pub(super) trait Display {}
    pub(super) mod core {}
    pub(super) mod std {}
    pub(super) mod es_framework {}

    #[derive(::es_framework::Event)]
    #[es(codec = super::Text, stream = "hostile-{self_}")]
    pub(super) enum Hostile {
        #[es(name = "hostile.one")]
        One {
            #[es(tag)]
            self_: u8,
            #[es(tag)]
            r#fn: ::std::option::Option<::std::string::String>,
            #[es(tag)]
            __tags: ::std::vec::Vec<u8>,
        },
    }

    #[derive(::std::default::Default, ::std::clone::Clone, ::es_framework::View)]
    #[es(event = Hostile, tags(r#fn, __tags: u8))]
    pub(super) struct State;
}

#[test]
fn generated_code_needs_no_prelude() {
    let event = hostile::Hostile::One { self_: 1, r#fn: Some("f".to_owned()), __tags: vec![2] };
    assert_eq!(tags(&event), ["self_:1", "fn:f", "__tags:2"]);
    assert_eq!(stream(&event).as_deref(), Some("hostile-1"));
    assert_eq!(hostile::State::of("f", 2).query().unwrap().to_string(), "hostile.one with fn:f and __tags:2");
}
