//! A small bank: what the tests measure.

use es_framework::{Aggregate, Apply, Command, Envelope, Event, Projector, Recorded, StateModel, StateTx, commands};
use serde::{Deserialize, Serialize};

/// In every payload, and nowhere else.
pub(crate) const SECRET: &str = "the-secret-of-alice";

#[derive(Debug, Clone, Event)]
pub(crate) enum AccountEvent {
    #[es(name = "account.deposited")]
    Deposited { cents: u64, note: String },
}

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 2))]
pub(crate) struct Account {
    cents: u64,
    note: String,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        let AccountEvent::Deposited { cents, note } = event;
        self.cents += cents;
        self.note.clone_from(note);
    }
}

#[derive(Debug, Serialize, Command)]
#[es(name = "account.deposit")]
pub(crate) struct Deposit {
    pub(crate) cents: u64,
    pub(crate) note: String,
}

pub(crate) fn deposit(cents: u64) -> Deposit {
    Deposit { cents, note: SECRET.to_owned() }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing to deposit")]
pub(crate) struct Nothing;

#[commands(error = Nothing)]
impl Account {
    fn deposit(&self, command: &Deposit) -> Result<AccountEvent, Nothing> {
        let Deposit { cents, note } = command;
        if *cents == 0 { Err(Nothing) } else { Ok(AccountEvent::Deposited { cents: *cents, note: note.clone() }) }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) cents: u64,
    pub(crate) note: String,
}

/// Refuses deposits of 13 cents.
pub(crate) struct Totals;

impl Projector for Totals {
    type Event = AccountEvent;
    type Model = StateModel<Total>;
    type Error = Nothing;
    const NAME: &'static str = "totals";

    fn project(&self, event: &Recorded<AccountEvent>, total: &mut StateTx<'_, Total>) -> Result<(), Nothing> {
        let AccountEvent::Deposited { cents, note } = event.event();
        total.cents += cents;
        total.note.clone_from(note);
        if *cents == 13 { Err(Nothing) } else { Ok(()) }
    }
}
