//! What macros of users hand over: types, names and idents that come as one token.
#![expect(clippy::needless_arbitrary_self_type, reason = "it is what is tested")]

use std::fmt::Debug;

use es_framework::{Aggregate, Apply, Command, Context, Envelope, Event, Scenario, commands};
use serde::{Deserialize, Serialize};

/// A service's commands are all made by one macro.
macro_rules! counter {
    (
        $(#[$attribute:meta])*
        $vis:vis $aggregate:ident in $category:literal, $events:ident, $commands:ident:
        $($method:ident($command:ty, $context:ty, $services:ty) -> $variant:ident($name:expr, $by:ty);)*
    ) => {
        #[derive(Debug, Clone, PartialEq, Event)]
        $(#[$attribute])*
        $vis enum $events {
            $(#[es(name = $name)] $variant { by: $by },)*
        }

        #[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
        #[es(category = $category, event = $events)]
        $vis struct $aggregate(i64);

        impl Apply for $aggregate {
            fn apply(&mut self, event: &$events, _: Envelope<'_>) {
                match event {
                    $($events::$variant { by } => self.0 += i64::from(*by),)*
                }
            }
        }

        #[commands(enum = $vis $commands, derive(Debug, Clone))]
        impl $aggregate {
            $(fn $method(&self, command: &$command, context: $context, most: &$services) -> $events {
                assert!(context.version().get() < u64::from(*most));
                $events::$variant { by: command.0 }
            })*
        }
    };
}

mod by {
    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, Command)]
    #[es(name = "counter.up")]
    pub(crate) struct Up(pub(crate) u8);

    #[derive(Debug, Clone, Serialize, Deserialize, Command)]
    #[es(name = "counter.down")]
    pub(crate) struct Down(pub(crate) i16);
}

const DOWN: &str = "counter.went_down";

counter! {
    pub(crate) Counter in "counter", CounterEvent, CounterCommand:
    up(by::Up, &Context<'_, Self>, u8) -> WentUp("counter.went_up", u8);
    down(by::Down, &Context<'_, Self>, u8) -> WentDown(DOWN, i16);
}

#[test]
fn a_macro_can_make_an_aggregate_with_its_events_and_commands() {
    fn shown(value: &impl Debug) -> String {
        format!("{value:?}")
    }
    let scenario = Scenario::<Counter>::new("a");
    let command: CounterCommand = by::Up(5).into();
    assert_eq!(serde_json::to_string(&command).unwrap(), r#"{"counter.up":5}"#);
    let read: CounterCommand = serde_json::from_str(r#"{"counter.down":-5}"#).unwrap();
    assert_eq!((shown(&read), read.name()), ("Down(Down(-5))".to_owned(), "counter.down"));
    assert_eq!(scenario.when_with(&command, &9).unwrap(), [CounterEvent::WentUp { by: 5 }]);
    assert_eq!(CounterEvent::names(), ["counter.went_up", "counter.went_down"]);
}

/// Takes the whole signature, so that the receiver, the arguments and the result come from one place and the block from
/// another.
macro_rules! handlers {
    ($aggregate:ty, $error:ty; $($(#[$attribute:meta])* fn $method:ident($($argument:tt)*) -> $result:ty $body:block)*) => {
        #[commands(error = $error)]
        impl $aggregate {
            $($(#[$attribute])* fn $method($($argument)*) -> $result $body)*
        }
    };
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "gate", event = CounterEvent)]
struct Gate;

impl Apply for Gate {
    fn apply(&mut self, _: &CounterEvent, _: Envelope<'_>) {}
}

struct Pass<T>(T);

handlers! {
    Gate, std::num::TryFromIntError;
    #[inline]
    fn pass(&self, Pass(by): &Pass<i64>, context: &Context<'_, Self, u8>) -> Result<CounterEvent, std::num::TryFromIntError> {
        Ok(CounterEvent::WentDown { by: i16::try_from(*by + i64::from(*context.services()))? })
    }
    fn pass_all(self: &Self, command: &Pass<Vec<u8>>) -> Vec<CounterEvent> {
        command.0.iter().map(|by| CounterEvent::WentUp { by: *by }).collect()
    }
    fn pass_none(self: &'_ Self, _: &Pass<()>) -> Option<CounterEvent> { None }
}

#[test]
fn a_macro_can_take_the_signatures_of_handlers() {
    let gate = Scenario::<Gate>::new("a");
    assert_eq!(gate.when_with(&Pass(1_i64), &2).unwrap(), [CounterEvent::WentDown { by: 3 }]);
    gate.when_with(&Pass(i64::from(u32::MAX)), &2).unwrap_err();
    assert_eq!(gate.when(&Pass(vec![1_u8, 2])).unwrap().len(), 2);
    assert_eq!(gate.when(&Pass(())).unwrap(), []);
}
