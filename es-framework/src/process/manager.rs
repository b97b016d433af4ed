//! The trait that users implement.

use std::fmt;

use super::actions::Actions;
use super::rejection::Rejected;
use crate::domain::{Event, Recorded};
use crate::log::Timestamp;

/// A process over several aggregates: it turns events into commands, and keeps a state of its own for each instance.
///
/// The type is the state of one instance, and an [`Event`](derive@crate::Event): the state after each step is written to
/// the instance's stream, `<name>-<instance>`. It starts as the default value. Its fields can change later as those of any
/// event can, with a new `version` and `from(…)`.
///
/// Run it with a [`Process`](crate::Process), which says what is promised.
///
/// ```
/// # use es_framework::*;
/// # use serde::Serialize;
/// # #[derive(Debug, Clone, Event)] enum AccountEvent {
/// #     #[es(name = "sent")] Sent { transfer: String, to: String, cents: u64 },
/// #     #[es(name = "received")] Received { transfer: String, cents: u64 },
/// #     #[es(name = "returned")] Returned { transfer: String, cents: u64 } }
/// # #[derive(Debug, Default, Clone, Aggregate)] #[es(category = "account", event = AccountEvent)] struct Account { closed: bool }
/// # impl Apply for Account { fn apply(&mut self, _: &AccountEvent, _: Envelope<'_>) {} }
/// # #[derive(Debug, thiserror::Error)] #[error("the account is closed")] struct Closed;
/// # #[derive(Serialize, Command)] #[es(name = "receive")] struct Receive { transfer: String, cents: u64 }
/// # #[derive(Serialize, Command)] #[es(name = "take-back")] struct TakeBack { transfer: String, cents: u64 }
/// # #[commands(error = Closed)] impl Account {
/// #     fn receive(&self, c: &Receive) -> Result<AccountEvent, Closed> {
/// #         if self.closed { Err(Closed) } else { Ok(AccountEvent::Received { transfer: c.transfer.clone(), cents: c.cents }) } }
/// #     fn take_back(&self, c: &TakeBack) -> AccountEvent { AccountEvent::Returned { transfer: c.transfer.clone(), cents: c.cents } } }
/// #[derive(Debug, Default, Event)]
/// #[es(name = "transfer")]
/// struct Transfer {
///     from: String,
///     cents: u64,
/// }
///
/// impl ProcessManager for Transfer {
///     type Event = AccountEvent;
///     const NAME: &'static str = "transfer";
///
///     fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
///         match event.event() {
///             AccountEvent::Sent { transfer, .. } => Correlation::start(transfer),
///             AccountEvent::Received { transfer, .. } | AccountEvent::Returned { transfer, .. } => {
///                 Correlation::proceed(transfer)
///             }
///         }
///     }
///
///     fn handle(&mut self, event: &Recorded<AccountEvent>, actions: &mut Actions) {
///         match event.event() {
///             AccountEvent::Sent { transfer, to, cents } => {
///                 (self.from, self.cents) = (event.aggregate_id().to_owned(), *cents);
///                 actions.execute::<Account, _>(to, Receive { transfer: transfer.clone(), cents: *cents });
///             }
///             AccountEvent::Received { .. } | AccountEvent::Returned { .. } => actions.complete(),
///         }
///     }
///
///     fn rejected(&mut self, _: &Rejected, actions: &mut Actions) {
///         let (transfer, cents) = (actions.instance().to_owned(), self.cents);
///         actions.execute::<Account, _>(&self.from, TakeBack { transfer, cents });
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::from(MemoryStore::new());
/// # let sent = AccountEvent::Sent { transfer: "17".into(), to: "bob".into(), cents: 500 };
/// # store.open_stream("account-alice")?.write_events(&[sent], ExpectedVersion::Any).await?;
///
/// Process::<Transfer>::new(&store).catch_up().await?;
/// assert_eq!(store.open_stream("account-bob")?.read_as::<AccountEvent>().await?.len(), 1);
/// # Process::<Transfer>::new(&store).catch_up().await?;
/// # assert!(Process::<Transfer>::new(&store).instance("17").await?.unwrap().completed);
/// # Ok(()) }
/// ```
///
/// # Repeatable
///
/// The methods must do the same for the same state and the same event: no clock (there is [`Actions::time`]), no random
/// numbers, no I/O, no maps in random order. After a crash between a step and its commands, the method is called again to
/// find out what the commands were. If it decides otherwise, because it is not repeatable or because the program has
/// changed in between, that is an error and nothing is sent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a process manager",
    note = "derive `Default` and `Event` on the state, with `#[es(name = \"…\")]`, and write `impl ProcessManager for {Self}` with `type Event`, `const NAME`, `fn correlate` and `fn handle`"
)]
pub trait ProcessManager: Event + Default {
    /// The events it handles; those of other types are never decoded. A `join` of several aggregates' events, usually.
    type Event: Event;

    /// Its name: the category of its instances' streams, and the name of the consumer. A program in which it contains a
    /// `-` does not build. Never change it: a process with another name starts at the beginning.
    const NAME: &'static str;

    /// Which instance an event belongs to, if any.
    fn correlate(event: &Recorded<Self::Event>) -> Correlation;

    /// Changes the state by an event, and decides what to do about it.
    fn handle(&mut self, event: &Recorded<Self::Event>, actions: &mut Actions);

    /// Handles a timeout that was [set](Actions::set_timeout) and not cancelled. By default the step
    /// [fails](Actions::fail).
    fn timed_out(&mut self, timeout: &Timeout, actions: &mut Actions) {
        actions.fail(format!("the process sets the timeout {:?}, but does not implement `timed_out`", timeout.name));
    }

    /// Handles the rejection of a command, for example by commands that make up for what was done before. The commands
    /// of the same step after the rejected one are not executed. By default the step [fails](Actions::fail).
    ///
    /// Called unless the command itself says otherwise with [`Issuing::on_rejection`](crate::Issuing::on_rejection).
    fn rejected(&mut self, rejected: &Rejected, actions: &mut Actions) {
        actions.fail(format!("{rejected}, and the process does not implement `rejected`"));
    }
}

/// Which instance of a process an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Correlation {
    /// To this one, which is started if it does not exist.
    Start(String),
    /// To this one, if it exists.
    Proceed(String),
    /// To none.
    Ignore,
}

impl Correlation {
    /// The instance with this id, which is started if it does not exist. The id is 1 to 255 bytes, together with the
    /// process's name.
    pub fn start(id: impl fmt::Display) -> Self {
        Self::Start(id.to_string())
    }

    /// The instance with this id; if there is none, the event is ignored.
    pub fn proceed(id: impl fmt::Display) -> Self {
        Self::Proceed(id.to_string())
    }
}

/// A timeout that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeout {
    /// Its name.
    pub name: String,
    /// The time it was set for. It may be handled later, if the process was not running then.
    pub due: Timestamp,
}
