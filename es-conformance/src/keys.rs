//! G6, G8: what identifies a command, and what the log records about it.

use std::collections::HashMap;
use std::convert::Infallible;

use es_framework::{
    AppendError, Command, CommandKey, Context, ExecuteError, Handle, KeyError, Provenance, Repository, Store,
};
use serde::{Serialize, Serializer};

use crate::bank::{Account, AccountEvent, BringTo, Deposit, Withdraw};
use crate::fixture::Fixture;
use crate::support::{events_of, log, stream, v};

macro_rules! deposits_one {
    ($($command:ty),*) => {
        $(
            impl Handle<$command> for Account {
                type Error = Infallible;
                fn handle(&self, _: &$command, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
                    Ok(vec![AccountEvent::Deposited { cents: 1 }])
                }
            }
        )*
    };
}

/// Freezes an account; has no content except its name.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.freeze")]
pub struct Freeze;

/// Thaws it.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.thaw")]
pub struct Thaw;

/// Any content.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.any")]
pub struct Any<T>(pub T);

impl<T: Send + Sync> Handle<Any<T>> for Account {
    type Error = Infallible;
    fn handle(&self, _: &Any<T>, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(vec![AccountEvent::Deposited { cents: 1 }])
    }
}

/// A command as it was first written.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.note")]
pub struct Note {
    /// The note.
    pub text: &'static str,
    /// Its importance.
    pub weight: u32,
}

/// The same command after a release that renamed the type, reordered its fields and widened a number.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.note")]
pub struct Remark {
    /// Its importance.
    pub weight: u64,
    /// The note.
    pub text: String,
}

/// A command that cannot be serialized.
#[derive(Debug, Command)]
#[es(name = "account.secret")]
pub struct Secret;

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is a secret"))
    }
}

/// A command with an invalid name.
#[derive(Debug, Serialize)]
pub struct Nameless;

impl Command for Nameless {
    const NAME: &'static str = "";
}

deposits_one!(Freeze, Thaw, Note, Remark, Secret, Nameless);

fn is_reused<E: std::error::Error>(result: &Result<es_framework::Receipt<Account>, ExecuteError<E>>) -> bool {
    matches!(result, Err(ExecuteError::Append(AppendError::CommandKeyReused { .. })))
}

/// `Deposit` and `Withdraw` of the same amount were the same command under one key, and the second silently did
/// nothing.
pub async fn g6_a_key_says_which_command_it_belongs_to(fixture: &impl Fixture) {
    let accounts = Repository::<Account>::new(fixture.open().await);
    accounts.execute("alice", Deposit(5)).key("a").await.expect("it deposits");
    assert!(is_reused(&accounts.execute("alice", Withdraw(5)).key("a").await));
    accounts.execute("alice", Freeze).key("b").await.expect("it freezes");
    assert!(is_reused(&accounts.execute("alice", Thaw).key("b").await));
    assert!(is_reused(&accounts.execute("bob", Freeze).key("b").await), "on another account");
    assert!(accounts.execute("alice", Freeze).key("b").await.expect("it is known").was_known);
}

async fn differ<T: Serialize + Send + Sync>(accounts: &Repository<Account>, key: &str, one: T, other: T) {
    let (one, other) = (Any(one), Any(other));
    let first = accounts.execute("alice", one).key(key).await.expect("it is new");
    assert!(!first.was_known);
    assert!(is_reused(&accounts.execute("alice", other).key(key).await), "{key}");
}

/// `None` and `Some(None)`, `+∞` and `−∞` were one command, and large numbers were rejected.
pub async fn g6_what_serde_tells_apart_is_another_command(fixture: &impl Fixture) {
    let accounts = Repository::<Account>::new(fixture.open().await);
    differ(&accounts, "options", None, Some(None::<u8>)).await;
    differ(&accounts, "deep options", Some(None), Some(Some(None::<()>))).await;
    differ(&accounts, "infinities", f64::INFINITY, f64::NEG_INFINITY).await;
    differ(&accounts, "no number", f64::NAN, f64::INFINITY).await;
    differ(&accounts, "zeros", 0.0, -0.0).await;
    differ(&accounts, "the last digit", 0.1 + 0.2, 0.3).await;
    differ(&accounts, "large", u128::MAX, u128::MAX - 1).await;
    differ(&accounts, "small", i128::MIN, i128::MIN + 1).await;
    differ(&accounts, "keys", HashMap::from([((1, 2), 3)]), HashMap::from([((2, 1), 3)])).await;
    differ(&accounts, "borders", ["ab", "c"], ["a", "bc"]).await;
    differ(&accounts, "variants", Ok::<_, u8>(1_u8), Err(1)).await;
    assert!(accounts.execute("alice", Any(f64::NAN)).key("no number").await.expect("it is known").was_known);
    assert!(accounts.execute("alice", Any(u128::MAX)).key("large").await.expect("it is known").was_known);
}

/// What a release may change about a command, and what varies by chance, does not make it a different command.
pub async fn g6_order_and_width_make_no_other_command(fixture: &impl Fixture) {
    let accounts = Repository::<Account>::new(fixture.open().await);
    accounts.execute("alice", Note { text: "x", weight: 7 }).key("note").await.expect("it is noted");
    let again = accounts.execute("alice", Remark { weight: 7, text: "x".into() }).key("note").await;
    assert!(again.expect("it is known").was_known);
    let other = accounts.execute("alice", Remark { weight: 8, text: "x".into() }).key("note").await;
    assert!(is_reused(&other));
    for seed in 0..20_u32 {
        let entries: HashMap<u32, u32> = (0..50).map(|n| (n * (seed + 1) % 53, n)).collect();
        let key = format!("map-{seed}");
        accounts.execute("alice", Any(entries.clone())).key(key.as_str()).await.expect("it is new");
        let again: HashMap<u64, u64> = entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        assert!(accounts.execute("alice", Any(again)).key(key.as_str()).await.expect("it is known").was_known);
    }
}

/// A command without a fingerprint or a valid name fails with an error of its own, and nothing is written.
pub async fn g6_a_command_without_a_fingerprint_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    let error = accounts.execute("alice", Secret).key("k").await.expect_err("it does not serialize");
    assert!(
        matches!(&error, ExecuteError::Key(KeyError::Fingerprint { source }) if source.to_string() == "it is a secret")
    );
    let error = accounts.execute("alice", Nameless).key("k").await.expect_err("it has no name");
    assert!(matches!(error, ExecuteError::Key(KeyError::Name(_))), "{error:?}");
    assert!(log(&store).await.is_empty());
    accounts.execute("alice", Secret).await.expect("without a key it needs neither");
}

async fn recorded_name(store: &Store, key: &str) -> Option<String> {
    let key = CommandKey::new(key).expect("a valid key");
    let record = store.command(&key).await.expect("it reads").expect("it was executed");
    record.command.name.map(|name| name.to_string())
}

/// The log records which command wrote an event: in the record of the key, and next to the provenance. A command that
/// has neither costs nothing.
pub async fn g8_the_log_says_which_command_wrote_an_event(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("alice", Deposit(1)).await.expect("it deposits");
    accounts.execute("alice", Deposit(2)).key("k-2").await.expect("it deposits");
    accounts.execute("alice", Deposit(3)).provenance(Provenance::new().actor("bob")).await.expect("it deposits");
    accounts.execute("alice", Withdraw(4)).provenance(Provenance::new()).key("k-4").await.expect("it withdraws");
    let mine = Provenance::new().with(Provenance::COMMAND, "another").with("more", 1);
    accounts.execute("alice", Deposit(5)).provenance(mine).await.expect("it deposits");
    accounts.execute("alice", BringTo(7)).key("nothing").await.expect("there is nothing to do");
    let events = events_of(&stream(&store, "account-alice")).await;
    let metadata: Vec<_> =
        events.iter().map(|event| event.metadata.as_ref().map(|it| it.as_str().to_owned())).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        metadata,
        [
            None,
            None,
            some(r#"{"actor":"bob","command":"account.deposit"}"#),
            some(r#"{"command":"account.withdraw"}"#),
            some(r#"{"command":"account.deposit","more":1}"#),
        ]
    );
    assert_eq!(recorded_name(&store, "k-2").await, some("account.deposit"));
    assert_eq!(recorded_name(&store, "k-4").await, some("account.withdraw"));
    assert_eq!(recorded_name(&store, "nothing").await, some("account.bring-to"));
    let effect = Provenance::caused_by(es_framework::Envelope::of(&events[2]));
    let effect = effect.to_metadata().expect("it is written").expect("there is some");
    assert_eq!(effect.text("command"), None, "what it causes is another command's");
}

/// The receipts of known commands are right in whatever order they are requested, with and without snapshots.
pub async fn g6_known_commands_are_answered_in_any_order(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let accounts = Repository::<Account>::new(&store);
    for n in 1..=23_u64 {
        accounts.execute("alice", Deposit(n)).key(format!("k-{n}")).await.expect("it deposits");
        accounts.snapshots_settled().await;
    }
    let mut kept = Vec::new();
    for repository in [accounts.clone(), Repository::new(&store), Repository::builder(&store).cache(0).build()] {
        for n in (1..=23).chain((1..=23).rev()).chain([5, 22, 5, 1, 23, 2]) {
            let again = repository.execute("alice", Deposit(n)).key(format!("k-{n}")).await.expect("it is known");
            assert!(again.was_known);
            assert_eq!((again.version, again.state.cents), (v(n), n * (n + 1) / 2));
            kept.push((n, again));
        }
    }
    assert!(kept.iter().all(|(n, receipt)| receipt.state.cents == n * (n + 1) / 2), "a receipt's state stays as it is");
}
