//! Typed streams: the builders of untyped reads and watches, and events that are never decoded by hand.

use es_framework::{
    Aggregate, AppendError, Apply, CandidateEvent, Command, CommandKey, Context, Envelope, ErrorKind, Event,
    ExecuteError, ExpectedVersion, Filter, LoadError, MemoryStore, Position, Provenance, Recorded, Repository, Store,
    Version, WriteEventsError, commands,
};
use futures_core::Stream as _;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
enum AccountEvent {
    #[es(name = "account.deposited", alias = "account.credited")]
    Deposited { cents: u64 },
    #[es(name = "account.closed")]
    Closed,
}

#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "note.written")]
struct Noted(String);

#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "account", event = AccountEvent)]
struct Account {
    cents: u64,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        if let AccountEvent::Deposited { cents } = event {
            self.cents += cents;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
#[es(name = "account.deposit")]
struct Deposit {
    cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
#[es(name = "account.convert")]
struct Convert {
    dollars: u64,
}

/// Cents for a dollar, by the day.
struct Rates(u64);

#[commands(enum = AccountCommand, derive(Debug, Clone))]
impl Account {
    fn deposit(&self, command: &Deposit) -> AccountEvent {
        AccountEvent::Deposited { cents: command.cents }
    }

    fn convert(&self, command: &Convert, _: &Context<'_, Self>, rates: &Rates) -> AccountEvent {
        AccountEvent::Deposited { cents: command.dollars * rates.0 }
    }
}

fn store() -> Store {
    MemoryStore::new().into()
}

fn deposited(cents: u64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

/// Five deposits of alice, with a note of another type between them.
async fn written(store: &Store) {
    let alice = store.open_stream("account-alice").expect("it is written");
    alice.write_events(&[deposited(1), deposited(2)], ExpectedVersion::NoStream).await.expect("it is written");
    alice.write_events(&[Noted("x".into())], Version::new(2)).await.expect("it is written");
    alice
        .write_events(&[deposited(3), deposited(4), deposited(5)], ExpectedVersion::StreamExists)
        .await
        .expect("it is written");
}

fn cents(events: &[Recorded<AccountEvent>]) -> Vec<u64> {
    let of = |event: &Recorded<AccountEvent>| match event.event() {
        AccountEvent::Deposited { cents } => *cents,
        AccountEvent::Closed => 0,
    };
    events.iter().map(of).collect()
}

#[tokio::test]
async fn typed_reads_have_the_builders_of_untyped_ones() {
    let store = store();
    written(&store).await;
    let accounts = Repository::<Account>::new(&store);
    assert_eq!(cents(&accounts.events("alice").await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(cents(&accounts.events("alice").after(Version::new(1)).collect().await.unwrap()), [2, 3, 4, 5]);
    assert_eq!(cents(&accounts.events("alice").before(Version::new(5)).await.unwrap()), [1, 2, 3]);
    assert_eq!(cents(&accounts.events("alice").limit(2).await.unwrap()), [1, 2]);
    assert_eq!(cents(&accounts.events("alice").backward().limit(2).await.unwrap()), [5, 4]);
    assert_eq!(cents(&accounts.events("alice").as_of(Version::new(4)).await.unwrap()), [1, 2, 3]);
    assert_eq!(cents(&accounts.events("alice").page(1, 1).await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(cents(&accounts.events("bob").await.unwrap()), [0; 0]);
    let closed = Filter::new().types(["account.closed"]);
    assert_eq!(cents(&accounts.events("alice").filter(closed).await.unwrap()), [0; 0]);
    let all = store.all();
    assert_eq!(cents(&all.read_as::<AccountEvent>().after(Position::new(4)).await.unwrap()), [4, 5]);
    assert_eq!(cents(&all.read().backward().typed().limit(1).await.unwrap()), [5]);
    assert_eq!(all.read().limit(3).await.unwrap().len(), 3, "an untyped read can be awaited too");
}

#[tokio::test]
async fn a_typed_event_knows_the_name_it_is_stored_under() {
    /// The event as it was once.
    #[derive(Event)]
    #[es(name = "account.credited")]
    struct Credited {
        cents: u64,
    }

    let store = store();
    let alice = store.open_stream("account-alice").unwrap();
    alice.write_events(&[Credited { cents: 5 }], ExpectedVersion::NoStream).await.unwrap();
    alice.write_events(&[deposited(6), AccountEvent::Closed], Version::new(1)).await.unwrap();
    let events = alice.read_as::<AccountEvent>().await.unwrap();
    assert_eq!(cents(&events), [5, 6, 0]);
    let names: Vec<_> = events.iter().map(Recorded::name).collect();
    assert_eq!(names, ["account.credited", "account.deposited", "account.closed"]);
    assert!(events.iter().all(|event| event.envelope().name() == event.name()));
}

#[tokio::test]
async fn a_typed_read_goes_event_by_event_or_in_batches() {
    let store = store();
    written(&store).await;
    let mut events = store.all().read_as::<AccountEvent>().stream();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!((first.version(), first.event()), (Version::new(1), &deposited(1)));
    let second = std::future::poll_fn(|context| std::pin::Pin::new(&mut events).poll_next(context)).await;
    assert_eq!(second.unwrap().unwrap().event(), &deposited(2));
    assert_eq!(cents(&events.next_batch().await.unwrap().unwrap()), [3, 4, 5]);
    assert!(events.next().await.is_none());
    assert!(events.next_batch().await.is_none());
}

/// An old name that the type still reads, with bytes that are not its payload.
async fn damaged(store: &Store) {
    let broken = CandidateEvent::new("account.credited", vec![0xff; 3]).expect("it is written");
    store
        .open_stream("account-alice")
        .expect("it is written")
        .write(broken, ExpectedVersion::Any)
        .await
        .expect("it is written");
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_ends_a_typed_read_after_those_before_it() {
    let store = store();
    written(&store).await;
    damaged(&store).await;
    let accounts = Repository::<Account>::new(&store);
    accounts.execute("bob", Deposit { cents: 6 }).await.unwrap();

    let mut events = store.all().read_as::<AccountEvent>().stream();
    assert_eq!(cents(&events.next_batch().await.unwrap().unwrap()), [1, 2, 3, 4, 5]);
    assert!(matches!(events.next_batch().await, Some(Err(LoadError::Decode(error))) if error.position().get() == 7));
    assert!(events.next_batch().await.is_none());

    let mut events = accounts.events("alice").stream();
    for _ in 0..5 {
        events.next().await.unwrap().unwrap();
    }
    assert!(matches!(events.next().await, Some(Err(LoadError::Decode(_)))));
    assert!(events.next().await.is_none());
    accounts.events("alice").await.unwrap_err();
    assert_eq!(cents(&accounts.events("alice").limit(5).await.unwrap()), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn an_id_that_makes_no_stream_is_reported_when_the_read_or_the_watch_begins() {
    let accounts = Repository::<Account>::new(store());
    let error = accounts.events("").after(Version::new(3)).limit(1).await.unwrap_err();
    assert!(matches!(error, LoadError::Name(_)));
    assert_eq!(error.kind(), ErrorKind::Caller);
    let mut events = accounts.events("\n").stream();
    assert!(matches!(events.next().await, Some(Err(LoadError::Name(_)))));
    assert!(events.next().await.is_none());
    assert!(matches!(accounts.watch("").await, Err(LoadError::Name(_))));
}

#[tokio::test]
async fn a_place_of_the_wrong_kind_is_reported_by_typed_reads_too() {
    let accounts = Repository::<Account>::new(store());
    assert!(matches!(accounts.events("alice").after(Position::new(1)).await, Err(LoadError::Store(_))));
    assert!(matches!(accounts.watch("alice").after(Position::new(1)).await, Err(LoadError::Store(_))));
}

#[tokio::test]
async fn a_typed_watch_sees_history_then_what_is_written_and_passes_other_types_over() {
    let store = store();
    written(&store).await;
    let accounts = Repository::<Account>::new(&store);
    let mut all = store.watch_as::<AccountEvent>().after(Position::new(4)).await.unwrap();
    let mut alice = accounts.watch("alice").from_start().await.unwrap();
    let mut present = store.open_stream("account-alice").unwrap().watch_as::<AccountEvent>().await.unwrap();
    let closed = Filter::new().types(["account.closed"]);
    let mut filtered = store.watch_as::<AccountEvent>().from_start().filter(closed).await.unwrap();

    store.open_stream("note-1").unwrap().write_events(&[Noted("y".into())], ExpectedVersion::Any).await.unwrap();
    accounts.execute("bob", Deposit { cents: 6 }).await.unwrap();
    let stream = store.open_stream("account-alice").unwrap();
    stream.write_events(&[deposited(7)], ExpectedVersion::Any).await.unwrap();

    for expected in [4, 5, 6, 7] {
        assert_eq!(all.next().await.unwrap().unwrap().event(), &deposited(expected));
    }
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.extend(cents(&alice.next_batch().await.unwrap().unwrap()));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 7]);
    let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut present).poll_next(context)).await;
    assert_eq!(next.unwrap().unwrap().event(), &deposited(7));

    stream.write_events(&[AccountEvent::Closed], ExpectedVersion::Any).await.unwrap();
    assert_eq!(filtered.next().await.unwrap().unwrap().event(), &AccountEvent::Closed);
}

#[tokio::test]
async fn a_typed_watch_ends_with_the_event_it_cannot_decode() {
    let store = store();
    written(&store).await;
    damaged(&store).await;
    let mut watch = store.watch_as::<AccountEvent>().from_start().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(cents(&watch.next_batch().await.unwrap().unwrap()));
    }
    assert!(matches!(watch.next().await, Some(Err(LoadError::Decode(_)))));
    assert!(watch.next().await.is_none());
    assert!(watch.next_batch().await.is_none());
}

#[tokio::test]
async fn closing_the_store_ends_a_typed_watch_with_closed() {
    let store = store();
    let mut watch = store.watch_as::<AccountEvent>().await.unwrap();
    store.close().await.unwrap();
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(watch.next().await.is_none());
}

/// An event that is written as a number and read as text.
#[derive(Debug, Clone, PartialEq, Event)]
#[es(name = "odd")]
struct Odd(#[serde(serialize_with = "number", deserialize_with = "text")] u8);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn number<S: serde::Serializer>(_: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(200)
}

fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    String::deserialize(deserializer).map(|_| 0)
}

#[tokio::test]
async fn typed_events_are_written_all_or_none_and_only_if_they_can_be_read_again() {
    let store = store();
    let alice = store.open_stream("account-alice").unwrap();
    let appended = alice.write_events(&[deposited(1), AccountEvent::Closed], ExpectedVersion::NoStream).await.unwrap();
    assert_eq!((appended.version(), appended.position), (Version::new(2), Position::new(2)));
    let conflict = alice.write_events(&[deposited(1)], ExpectedVersion::NoStream).await.unwrap_err();
    assert!(matches!(&conflict, WriteEventsError::Append(AppendError::Conflict { .. })));
    assert_eq!(conflict.kind(), ErrorKind::Conflict);

    let unreadable = alice.write_events(&[Odd(1)], ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(&unreadable, WriteEventsError::Unreadable(_)));
    assert_eq!(unreadable.kind(), ErrorKind::Caller);
    store.all().write_events(&[deposited(1)], ExpectedVersion::Any).await.unwrap_err();
    assert_eq!(store.head(), Position::new(2));
    let none = alice.write_events::<AccountEvent>(&[], Version::new(2)).await.unwrap();
    assert_eq!(none.version(), Version::new(2));
}

#[tokio::test]
async fn services_are_lent_for_one_command() {
    let accounts = Repository::<Account>::new(store());
    let rates = Rates(92);
    let receipt = accounts.execute_with("alice", Convert { dollars: 10 }, &rates).await.unwrap();
    assert_eq!(receipt.state.cents, 920);
    // A handler that asks for none takes any.
    let receipt = accounts.execute_with("alice", Deposit { cents: 5 }, &rates).await.unwrap();
    assert_eq!(receipt.state.cents, 925);
    let receipt = accounts.execute("alice", Deposit { cents: 5 }).await.unwrap();
    assert_eq!(receipt.state.cents, 930);
}

#[tokio::test]
async fn a_command_in_the_enum_is_the_command_itself() {
    // A client sends the command over HTTP, gets no answer, and a job sends it again as a struct under the same key.
    let store = store();
    let accounts = Repository::<Account>::new(&store);
    let sent: AccountCommand = serde_json::from_str(r#"{"account.deposit":{"cents":5}}"#).unwrap();
    let rates = Rates(92);
    let execute = |command: AccountCommand| accounts.execute_with("alice", command, &rates);
    let first = execute(sent.clone()).key("payment-17").provenance(Provenance::new().actor("web")).await.unwrap();
    assert!(!first.was_known);
    let again = accounts.execute("alice", Deposit { cents: 5 }).key("payment-17").await.unwrap();
    assert!(again.was_known);
    assert_eq!(again.state.cents, 5);

    let record = store.command(&CommandKey::new("payment-17").unwrap()).await.unwrap().unwrap();
    assert_eq!(record.command.name.as_deref(), Some("account.deposit"));
    let events = accounts.events("alice").await.unwrap();
    let name = events[0].metadata().and_then(|metadata| metadata.text(Provenance::COMMAND));
    assert_eq!(name.as_deref(), Some("account.deposit"));

    let other = execute(Convert { dollars: 5 }.into()).key("payment-17").await.unwrap_err();
    assert!(matches!(other, ExecuteError::Append(AppendError::CommandKeyReused { .. })));
}

#[tokio::test]
async fn commands_are_futures_that_can_be_joined_and_spawned() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let accounts = Repository::<Account>::new(store());
    let (alice, bob) = tokio::join!(
        is_send(accounts.execute("alice", Deposit { cents: 1 })),
        accounts.execute("bob", Deposit { cents: 2 }).key("x")
    );
    assert_eq!((alice.unwrap().state.cents, bob.unwrap().state.cents), (1, 2));
    let clone = accounts.clone();
    let spawned = tokio::spawn(async move { clone.execute("alice", Deposit { cents: 1 }).await.unwrap().state.cents });
    assert_eq!(spawned.await.unwrap(), 2);
}

#[test]
fn the_futures_of_typed_streams_are_send() {
    fn is_send<T: Send + 'static>(_: impl FnOnce(&'static Store) -> T) {}
    is_send(|store| store.all().read_as::<AccountEvent>().collect());
    is_send(|store| async { store.all().read_as::<AccountEvent>().await });
    is_send(|store| async { store.all().read_as::<AccountEvent>().stream().next_batch().await });
    is_send(|store| async { store.watch_as::<AccountEvent>().await?.next_batch().await.transpose() });
    is_send(|store| async { store.all().write_events(&[AccountEvent::Closed], ExpectedVersion::Any).await });
}
