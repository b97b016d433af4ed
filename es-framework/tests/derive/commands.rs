//! What `#[commands]` makes of an `impl` block.

use std::convert::Infallible;
use std::fmt;

use es_framework::{
    Aggregate, Apply, Context, Envelope, Event, Handle, HandledBy, Scenario, Timestamp, Version, commands,
};
use serde::{Deserialize, Serialize};

use crate::events::Text;

#[derive(Debug, Clone, PartialEq, Event)]
#[es(codec = Text)]
enum AccountEvent {
    #[es(name = "account.deposited")]
    Deposited { cents: u64 },
    #[es(name = "account.withdrawn")]
    Withdrawn { cents: u64, by: String },
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "account", event = AccountEvent)]
struct Account {
    cents: u64,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents, .. } => self.cents -= cents,
        }
    }
}

#[derive(Debug, PartialEq)]
enum BankError {
    TooLittle { there: u64 },
    Limit,
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for BankError {}

/// An error of a part of the domain.
struct OverLimit;

impl From<OverLimit> for BankError {
    fn from(_: OverLimit) -> Self {
        Self::Limit
    }
}

fn deposited(cents: u64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

fn withdrawn(cents: u64, by: impl fmt::Display) -> AccountEvent {
    AccountEvent::Withdrawn { cents, by: by.to_string() }
}

macro_rules! commands_of_cents {
    ($($name:ident = $text:literal),*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, es_framework::Command)]
            #[es(name = $text)]
            struct $name {
                cents: u64,
            }
        )*
    };
}

commands_of_cents!(Deposit = "account.deposit", Withdraw = "account.withdraw", Split = "account.split");

/// Commands that are handled, and have no stored name.
mod unnamed {
    pub(super) struct Nothing;
    pub(super) struct Maybe(pub(super) bool);
    pub(super) struct Many(pub(super) Vec<u64>);
    pub(super) struct Checked(pub(super) u64);
    pub(super) struct MaybeChecked(pub(super) Option<u64>);
    pub(super) struct NothingChecked(pub(super) u64);
    pub(super) struct Borrowed<'a>(pub(super) &'a [u64]);
    pub(super) struct Of<T>(pub(super) T);
}

use unnamed::{Borrowed, Checked, Many, Maybe, MaybeChecked, Nothing, NothingChecked, Of};

#[commands(error = BankError)]
impl Account {
    /// What this is for stays with the method.
    fn deposit(&self, command: &Deposit) -> AccountEvent {
        deposited(command.cents)
    }

    fn withdraw(&self, command: &Withdraw, context: &Context<'_, Self>) -> Result<AccountEvent, BankError> {
        let there = self.cents;
        if there < command.cents {
            Err(BankError::TooLittle { there })
        } else {
            Ok(withdrawn(command.cents, context.id()))
        }
    }

    fn split(&self, Split { cents }: &Split) -> [AccountEvent; 2] {
        [deposited(cents / 2), deposited(cents - cents / 2)]
    }

    fn nothing(&self, _: &Nothing) {}

    fn maybe(&self, Maybe(is): &Maybe) -> Option<AccountEvent> {
        is.then(|| deposited(1))
    }

    fn many(&self, command: &Many) -> Vec<AccountEvent> {
        command.0.iter().copied().map(deposited).collect()
    }

    fn checked(&self, command: &Checked) -> Result<[AccountEvent; 1], OverLimit> {
        if command.0 > 100 { Err(OverLimit) } else { Ok([deposited(command.0)]) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what it returns is the point")]
    fn maybe_checked(&self, command: &MaybeChecked) -> Result<Option<AccountEvent>, BankError> {
        Ok(command.0.map(deposited))
    }

    fn nothing_checked(&self, command: &NothingChecked) -> Result<(), OverLimit> {
        if command.0 > 100 { Err(OverLimit) } else { Ok(()) }
    }

    fn borrowed(&self, command: &Borrowed<'_>) -> Vec<AccountEvent> {
        command.0.iter().copied().map(deposited).collect()
    }

    fn of_text(&self, command: &Of<&'static str>) -> AccountEvent {
        withdrawn(0, command.0)
    }

    fn of_number(&self, command: &Of<u64>) -> AccountEvent {
        deposited(command.0)
    }

    /// Helpers, constants and functions can stand in the same block.
    const LIMIT: u64 = 100;

    #[es(skip)]
    fn is_over(&self, text: &str) -> bool {
        text.len() as u64 + self.cents > Self::LIMIT
    }

    #[es(skip)]
    fn new() -> Self {
        Self::default()
    }
}

#[test]
fn a_method_of_the_block_is_a_handler_and_stays_a_method() {
    let alice = Scenario::<Account>::new("alice").given([deposited(500)]);
    assert_eq!(alice.when(&Deposit { cents: 3 }), Ok(vec![deposited(3)]));
    assert_eq!(alice.when(&Withdraw { cents: 500 }), Ok(vec![withdrawn(500, "alice")]));
    assert_eq!(alice.when(&Withdraw { cents: 501 }), Err(BankError::TooLittle { there: 500 }));
    assert_eq!(Account::new().deposit(&Deposit { cents: 3 }), deposited(3));
    assert!(!Account::new().is_over("101"));
}

#[test]
fn a_handler_returns_one_event_many_or_none_and_rejections_by_into() {
    let alice = Scenario::<Account>::new("alice");
    assert_eq!(alice.when(&Split { cents: 5 }), Ok(vec![deposited(2), deposited(3)]));
    assert_eq!(alice.when(&Nothing), Ok(vec![]));
    assert_eq!(alice.when(&Maybe(true)), Ok(vec![deposited(1)]));
    assert_eq!(alice.when(&Maybe(false)), Ok(vec![]));
    assert_eq!(alice.when(&Many(vec![1, 2])), Ok(vec![deposited(1), deposited(2)]));
    assert_eq!(alice.when(&Checked(1)), Ok(vec![deposited(1)]));
    assert_eq!(alice.when(&Checked(101)), Err(BankError::Limit));
    assert_eq!(alice.when(&MaybeChecked(None)), Ok(vec![]));
    assert_eq!(alice.when(&MaybeChecked(Some(1))), Ok(vec![deposited(1)]));
    assert_eq!(alice.when(&NothingChecked(1)), Ok(vec![]));
    assert_eq!(alice.when(&NothingChecked(101)), Err(BankError::Limit));
}

#[test]
fn a_command_may_borrow_or_have_parameters() {
    let alice = Scenario::<Account>::new("alice");
    let cents = [1, 2];
    assert_eq!(alice.when(&Borrowed(&cents)), Ok(vec![deposited(1), deposited(2)]));
    assert_eq!(alice.when(&Of("bob")), Ok(vec![withdrawn(0, "bob")]));
    assert_eq!(alice.when(&Of(7)), Ok(vec![deposited(7)]));
}

/// What a till needs to decide.
#[derive(Debug)]
struct Fees {
    cents: u64,
}

trait Names {
    fn name(&self) -> String;
}

impl Names for &'static str {
    fn name(&self) -> String {
        (*self).to_owned()
    }
}

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "till", event = AccountEvent)]
struct Till;

impl Apply for Till {
    fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {}
}

struct Pay(u64);
struct PayLate(u64);
struct PayOnce(u64);
struct Greet;
struct Free;

#[commands]
impl Till {
    fn pay(&self, command: &Pay, fees: &Fees) -> AccountEvent {
        deposited(command.0 + fees.cents)
    }

    #[expect(clippy::unnecessary_wraps, reason = "what it returns is the point")]
    fn pay_late(
        &self,
        command: &PayLate,
        fees: &Fees,
        context: &Context<'_, Self>,
    ) -> Result<AccountEvent, Infallible> {
        Ok(withdrawn(command.0 + fees.cents, context.id()))
    }

    fn pay_once(&self, command: &PayOnce, context: &Context<'_, Self, Fees>) -> Option<AccountEvent> {
        (context.version() == Version::ZERO).then(|| deposited(command.0 + context.services().cents))
    }

    fn greet(&self, _: &Greet, context: &Context<'_, Self>, names: &dyn Names) -> AccountEvent {
        withdrawn(0, format!("{} at {}", names.name(), context.id()))
    }

    fn free(&self, _: &Free) -> AccountEvent {
        deposited(0)
    }
}

#[test]
fn a_handler_borrows_services_beside_or_inside_its_context() {
    let till = Scenario::<Till>::new("till");
    let fees = Fees { cents: 10 };
    assert_eq!(till.when_with(&Pay(1), &fees), Ok(vec![deposited(11)]));
    assert_eq!(till.when_with(&PayLate(1), &fees), Ok(vec![withdrawn(11, "till")]));
    assert_eq!(till.when_with(&PayOnce(1), &fees), Ok(vec![deposited(11)]));
    let names: &dyn Names = &"bob";
    assert_eq!(till.when_with(&Greet, names), Ok(vec![withdrawn(0, "bob at till")]));
}

#[test]
fn a_handler_without_services_is_there_for_all() {
    let till = Scenario::<Till>::new("till");
    assert_eq!(till.when(&Free), Ok(vec![deposited(0)]));
    assert_eq!(till.when_with(&Free, &Fees { cents: 10 }), Ok(vec![deposited(0)]));
}

#[test]
fn a_context_says_what_it_was_made_of() {
    let id = "alice".to_owned();
    let context = Context::<Account>::new(&id, Version::new(3), Timestamp::from_micros(7));
    let with_fees = context.with_services(&Fees { cents: 10 }).services().cents;
    assert_eq!(
        (context.id(), context.version(), context.now(), with_fees),
        (&id, Version::new(3), Timestamp::from_micros(7), 10)
    );
}

/// Handlers with parameters, and a state with some.
#[derive(Debug, Clone, Aggregate)]
#[es(category = "tally", event = AccountEvent)]
struct Tally<T>
where
    T: Clone + Default + Send + Sync + 'static,
{
    last: T,
}

impl<T: Clone + Default + Send + Sync + 'static> Default for Tally<T> {
    fn default() -> Self {
        Self { last: T::default() }
    }
}

impl<T: Clone + Default + Send + Sync + 'static> Apply for Tally<T> {
    fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {}
}

struct Set<T>(T);

#[commands(error = Infallible)]
impl<T> Tally<T>
where
    T: Clone + Default + Send + Sync + Into<u64> + 'static,
{
    fn set(&self, command: &Set<T>) -> AccountEvent {
        deposited(command.0.clone().into() + self.last.clone().into())
    }

    fn itself(&self, _: &Of<Self>, fees: &Fees) -> AccountEvent {
        deposited(fees.cents)
    }
}

#[test]
fn the_block_may_have_parameters() {
    assert_eq!(Scenario::<Tally<u8>>::new("x").when(&Set(3_u8)), Ok(vec![deposited(3)]));
    let itself = Of(Tally { last: 1_u32 });
    assert_eq!(Scenario::<Tally<u32>>::new("x").when_with(&itself, &Fees { cents: 2 }), Ok(vec![deposited(2)]));
}

/// What conditions and lints stand on a method count for its handler too.
#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "odd", event = AccountEvent)]
struct Odd;

impl Apply for Odd {
    fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {}
}

#[deprecated]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, es_framework::Command)]
#[es(name = "odd.old")]
struct Old;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, es_framework::Command)]
#[es(name = "odd.raw")]
#[expect(non_camel_case_types, reason = "the name is the point")]
struct r#match;

mod deposits {
    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, es_framework::Command)]
    #[es(name = "odd.path")]
    pub(super) struct ByPath(pub(super) u64);
}

#[commands(enum = OddCommand, derive(Debug, Clone, PartialEq))]
impl Odd {
    #[expect(deprecated, reason = "still handled")]
    fn old(&self, _: &Old) {}

    fn r#fn(&self, _: &r#match) -> AccountEvent {
        deposited(1)
    }

    fn by_path(&self, command: &deposits::ByPath) -> AccountEvent {
        deposited(command.0)
    }

    #[cfg(any())]
    fn never(&self, _: &DoesNotExist) -> AccountEvent {
        does_not_exist()
    }
}

#[test]
fn attributes_raw_identifiers_and_paths_reach_the_handlers() {
    let odd = Scenario::<Odd>::new("x");
    assert_eq!(odd.when(&r#match), Ok(vec![deposited(1)]));
    assert_eq!(odd.when(&OddCommand::from(r#match)), Ok(vec![deposited(1)]));
    assert_eq!(odd.when(&OddCommand::ByPath(deposits::ByPath(3))), Ok(vec![deposited(3)]));
    let read: OddCommand = serde_json::from_str(r#"{"odd.raw":null}"#).expect("a known command");
    assert_eq!(read, OddCommand::r#match(r#match));
    let unknown = serde_json::from_str::<OddCommand>(r#"{"odd.never":null}"#).expect_err("it is not compiled");
    assert!(unknown.to_string().contains("expected one of `odd.old`, `odd.raw`, `odd.path`"), "{unknown}");
}

/// Commands as a message or an endpoint carries them.
mod message {
    use super::*;

    #[derive(Debug, Default, Clone, Aggregate)]
    #[es(category = "shop", event = AccountEvent)]
    pub(super) struct Shop;

    impl Apply for Shop {
        fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {}
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, es_framework::Command)]
    #[es(name = "shop.close")]
    pub(super) struct Close;

    #[commands(error = BankError, enum = pub(super) ShopCommand, derive(Debug, Clone, PartialEq))]
    impl Shop {
        fn deposit(&self, command: &Deposit, fees: &Fees) -> AccountEvent {
            deposited(command.cents + fees.cents)
        }

        fn withdraw(&self, _: &Withdraw) -> Result<(), BankError> {
            Err(BankError::Limit)
        }

        fn close(&self, _: &Close) {}
    }
}

use message::{Close, Shop, ShopCommand};

fn all() -> [ShopCommand; 3] {
    [Deposit { cents: 5 }.into(), Withdraw { cents: 7 }.into(), Close.into()]
}

#[test]
fn the_enum_of_commands_is_json_under_the_stored_names() {
    let json = all().map(|command| serde_json::to_string(&command).expect("JSON"));
    let expected =
        [r#"{"account.deposit":{"cents":5}}"#, r#"{"account.withdraw":{"cents":7}}"#, r#"{"shop.close":null}"#];
    assert_eq!(json, expected);
    for (command, json) in all().into_iter().zip(json) {
        assert_eq!(serde_json::from_str::<ShopCommand>(&json).expect("JSON"), command);
        let value = serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
        assert_eq!(serde_json::from_value::<ShopCommand>(value).expect("a value"), command);
        assert_eq!(serde_json::from_reader::<_, ShopCommand>(json.as_bytes()).expect("bytes"), command);
    }
}

#[test]
fn what_is_no_command_is_an_error_that_says_what_is() {
    for (json, why) in [
        ("{}", "expected one command under its name"),
        (
            r#"{"shop.open":null}"#,
            "unknown variant `shop.open`, expected one of `account.deposit`, `account.withdraw`, `shop.close`",
        ),
        (r#"{"Deposit":{"cents":5}}"#, "unknown variant `Deposit`"),
        (r#"{"account.deposit":{"cents":5},"shop.close":null}"#, "expected one command under its name"),
        (r#"{"account.deposit":{"euros":5}}"#, "missing field `cents`"),
        ("5", "expected one command under its name"),
    ] {
        let error = serde_json::from_str::<ShopCommand>(json).expect_err(json).to_string();
        assert!(error.contains(why), "{json}: {error}");
    }
}

#[test]
fn the_aggregate_handles_the_enum_as_it_handles_the_command_inside() {
    let shop = Scenario::<Shop>::new("shop");
    let fees = Fees { cents: 1 };
    let decided = all().map(|command| shop.when_with(&command, &fees));
    assert_eq!(decided, [Ok(vec![deposited(6)]), Err(BankError::Limit), Ok(vec![])]);
}

#[test]
fn the_enum_has_the_name_of_the_command_inside() {
    use es_framework::Command;
    assert_eq!(all().map(|command| command.name()), ["account.deposit", "account.withdraw", "shop.close"]);
}

#[cfg(feature = "bincode")]
#[test]
fn a_format_without_names_gets_the_stored_name_and_no_number() {
    use es_framework::{Bincode, Codec};
    let bytes = Bincode::encode(&all()[0]).expect("bytes");
    assert_eq!(bytes, b"\x0faccount.deposit\x05");
    for command in all() {
        let bytes = Bincode::encode(&command).expect("bytes");
        assert_eq!(Bincode::decode::<ShopCommand>(&bytes).expect("what was written"), command);
    }
}

/// A block without handlers is no mistake: they are about to be written.
#[commands(error = BankError, enum = NoCommand, derive(Debug))]
impl Till {}

#[test]
fn an_enum_without_commands_reads_none() {
    let error = serde_json::from_str::<NoCommand>(r#"{"x":null}"#).expect_err("there are none").to_string();
    assert!(error.contains("there are no variants"), "{error}");
}

/// Nothing of the prelude, and names that generated code could stumble over.
mod hostile {
    #![no_implicit_prelude]
    #![allow(dead_code, non_camel_case_types, reason = "only there to be stumbled over")]

    pub(super) struct Vec;
    pub(super) struct String;
    pub(super) struct Option;
    pub(super) struct Result;
    pub(super) struct Some;
    pub(super) struct Ok;
    pub(super) struct Err;
    pub(super) struct Context;
    pub(super) mod core {}
    pub(super) mod std {}
    pub(super) mod serde {}
    pub(super) mod es_framework {}

    #[derive(::std::default::Default, ::std::clone::Clone, ::es_framework::Aggregate)]
    #[es(category = "hostile", event = super::AccountEvent)]
    pub(super) struct State;

    impl ::es_framework::Apply for State {
        fn apply(&mut self, _: &super::AccountEvent, _: ::es_framework::Envelope<'_>) {}
    }

    #[derive(::serde::Serialize, ::serde::Deserialize, ::es_framework::Command)]
    #[es(name = "hostile.go")]
    pub(super) struct Go;

    #[::es_framework::commands(error = super::BankError, enum = pub(super) HostileCommand)]
    impl State {
        fn go(&self, _: &Go, _: &::es_framework::Context<'_, Self>, fees: &super::Fees) -> super::AccountEvent {
            super::deposited(fees.cents)
        }
    }
}

#[test]
fn generated_code_needs_no_prelude() {
    let fees = Fees { cents: 2 };
    let state = Scenario::<hostile::State>::new("x");
    assert_eq!(state.when_with(&hostile::HostileCommand::from(hostile::Go), &fees), Ok(vec![deposited(2)]));
}

mod elsewhere {
    pub(crate) use es_framework as framework;
}

/// The crate under another name.
mod renamed {
    use super::elsewhere::framework as es;
    use super::{AccountEvent, Deserialize, Serialize, deposited};

    #[derive(Debug, Default, Clone, es::Aggregate)]
    #[es(crate = "es", category = "renamed", event = AccountEvent)]
    pub(super) struct State;

    impl es::Apply for State {
        fn apply(&mut self, _: &AccountEvent, _: es::Envelope<'_>) {}
    }

    #[derive(Debug, Serialize, Deserialize, es::Command)]
    #[es(crate = "es", name = "renamed.go")]
    pub(super) struct Go;

    #[es::commands(crate = "es", enum = pub(super) RenamedCommand, derive(Debug))]
    impl State {
        fn go(&self, _: &Go) -> AccountEvent {
            deposited(1)
        }
    }
}

#[test]
fn the_crate_can_have_another_name() {
    let state = Scenario::<renamed::State>::new("x");
    assert_eq!(state.when(&renamed::RenamedCommand::Go(renamed::Go)), Ok(vec![deposited(1)]));
}

/// Handlers by hand and by the macro are the same to whoever executes them.
fn decides<A, C>(state: &A, command: &C, id: &A::Id) -> usize
where
    A: Handle<C>,
    C: HandledBy<A>,
{
    let context = Context::new(id, Version::ZERO, Timestamp::default());
    state.handle(command, &context).map_or(0, |events| events.len())
}

struct ByHand;

impl Handle<ByHand> for Account {
    type Error = Infallible;

    fn handle(&self, _: &ByHand, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(vec![])
    }
}

#[test]
fn handlers_by_hand_stand_beside_those_of_the_block() {
    assert_eq!(decides(&Account::new(), &ByHand, &String::new()), 0);
    assert_eq!(decides(&Account::new(), &Deposit { cents: 1 }, &String::new()), 1);
}
