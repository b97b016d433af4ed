//! The small domain used by the facts about the typed layer.

use std::convert::Infallible;

use es_framework::{
    Aggregate, Apply, Boundary, Command, Context, Decide, DecideContext, Envelope, Event, Events, ExpectedVersion,
    Handle, Repository, States, Store, Timestamp, Version,
};
use serde::{Deserialize, Serialize};

use crate::support::stream;

/// What happens to an account.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
pub enum AccountEvent {
    /// It was opened.
    #[es(name = "account.opened")]
    Opened {
        /// The owner.
        owner: String,
    },
    /// Money came in.
    #[es(name = "account.deposited")]
    Deposited {
        /// The amount.
        cents: u64,
    },
    /// Money went out.
    #[es(name = "account.withdrawn")]
    Withdrawn {
        /// The amount.
        cents: u64,
    },
}

/// An account, with a record of the envelopes it has seen.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 5))]
pub struct Account {
    /// The owner who opened it.
    pub owner: Option<String>,
    /// Its balance.
    pub cents: u64,
    /// Version, position and time of every event that was applied.
    pub seen: Vec<(u64, u64, i64)>,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, at: Envelope<'_>) {
        match event {
            AccountEvent::Opened { owner } => self.owner = Some(owner.clone()),
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
        self.seen.push((at.version().get(), at.position().get(), at.time().as_micros()));
    }
}

/// Events that serde reads differently than it writes them.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
pub enum OddEvent {
    /// Cannot be read back.
    #[es(name = "odd.lost")]
    Lost {
        /// Written as text.
        #[serde(serialize_with = "as_text")]
        number: u64,
    },
    /// Reads back less than was written.
    #[es(name = "odd.kept")]
    Kept {
        /// Never written.
        #[serde(skip)]
        note: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn as_text<S: serde::Serializer>(_: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("not a number")
}

/// Remembers the notes of its events.
#[derive(Debug, Default, Clone, Aggregate)]
#[es(category = "odd", event = OddEvent)]
pub struct Odd {
    /// The notes it has seen.
    pub notes: Vec<String>,
}

impl Apply for Odd {
    fn apply(&mut self, event: &OddEvent, _: Envelope<'_>) {
        if let OddEvent::Kept { note } = event {
            self.notes.push(note.clone());
        }
    }
}

impl Handle<OddEvent> for Odd {
    type Error = Infallible;
    fn handle(&self, command: &OddEvent, _: &Context<'_, Self>) -> Result<Vec<OddEvent>, Infallible> {
        Ok(vec![command.clone()])
    }
}

/// Why an account rejects a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BankError {
    /// It was opened before.
    #[error("the account is open already")]
    Open,
    /// The balance is too low.
    #[error("there are {cents} cents")]
    TooLittle {
        /// The balance.
        cents: u64,
    },
}

/// Opens an account; rejected if it is open.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.open")]
pub struct Open(pub &'static str);

impl Handle<Open> for Account {
    type Error = BankError;
    fn handle(&self, command: &Open, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, BankError> {
        if self.owner.is_some() {
            Err(BankError::Open)
        } else {
            Ok(vec![AccountEvent::Opened { owner: command.0.into() }])
        }
    }
}

/// Pays in.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.deposit")]
pub struct Deposit(pub u64);

impl Handle<Deposit> for Account {
    type Error = Infallible;
    fn handle(&self, command: &Deposit, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(vec![AccountEvent::Deposited { cents: command.0 }])
    }
}

/// Pays out; rejected if there is too little.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.withdraw")]
pub struct Withdraw(pub u64);

impl Handle<Withdraw> for Account {
    type Error = BankError;
    fn handle(&self, command: &Withdraw, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, BankError> {
        let Self { cents, .. } = *self;
        if cents < command.0 {
            Err(BankError::TooLittle { cents })
        } else {
            Ok(vec![AccountEvent::Withdrawn { cents: command.0 }])
        }
    }
}

/// Brings an account's balance to an amount; emits no event if it is there already.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.bring-to")]
pub struct BringTo(pub u64);

impl Handle<BringTo> for Account {
    type Error = Infallible;
    fn handle(&self, command: &BringTo, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(match command.0 {
            wanted if wanted > self.cents => vec![AccountEvent::Deposited { cents: wanted - self.cents }],
            wanted if wanted < self.cents => vec![AccountEvent::Withdrawn { cents: self.cents - wanted }],
            _ => Vec::new(),
        })
    }
}

/// Pays in the same amount several times, with one event each.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.deposit-each")]
pub struct DepositEach(pub u64, pub usize);

impl Handle<DepositEach> for Account {
    type Error = Infallible;
    fn handle(&self, command: &DepositEach, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(vec![AccountEvent::Deposited { cents: command.0 }; command.1])
    }
}

/// Always rejected, with what the handler could see.
#[derive(Debug)]
pub struct Look;

/// What a handler could see.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id} at {version}, {now}")]
pub struct Seen {
    /// The id of the aggregate.
    pub id: String,
    /// Its version.
    pub version: Version,
    /// The time of the command.
    pub now: Timestamp,
}

impl Handle<Look> for Account {
    type Error = Seen;
    fn handle(&self, _: &Look, context: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Seen> {
        Err(Seen { id: context.id().clone(), version: context.version(), now: context.now() })
    }
}

/// Money from one account to another, all or nothing.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The account that pays.
    pub from: &'static str,
    /// The account that is paid.
    pub to: &'static str,
    /// The amount.
    pub cents: u64,
}

impl Decide for Transfer {
    type Over = (Account, Account);
    type Error = BankError;

    fn over(&self) -> Boundary<Self> {
        (self.from.to_owned(), self.to.to_owned())
    }

    fn decide(&self, (from, to): States<'_, Self>, _: &DecideContext) -> Result<Events, BankError> {
        if from.cents < self.cents {
            return Err(BankError::TooLittle { cents: from.cents });
        }
        let cents = self.cents;
        Ok(Events::new().to(from, AccountEvent::Withdrawn { cents }).to(to, AccountEvent::Deposited { cents }))
    }
}

/// Pays in, without asking.
pub async fn deposit(store: &Store, account: &str, cents: u64) {
    let stream = stream(store, &format!("account-{account}"));
    stream.write_events(&[AccountEvent::Deposited { cents }], ExpectedVersion::Any).await.expect("it writes");
}

/// The balance, from the log alone.
pub async fn cents_of(store: &Store, account: &str) -> u64 {
    Repository::<Account>::builder(store).cache(0).build().load(account).await.expect("it loads").state.cents
}

/// Decides nothing but a deposit, if another account exists.
#[derive(Debug)]
pub struct DepositIf {
    /// The other account.
    pub other: &'static str,
}

impl Decide for DepositIf {
    type Over = (Account, Account);
    type Error = BankError;

    fn over(&self) -> Boundary<Self> {
        ("mine".to_owned(), self.other.to_owned())
    }

    fn decide(&self, (mine, other): States<'_, Self>, _: &DecideContext) -> Result<Events, BankError> {
        if other.cents == 0 {
            Ok(Events::new())
        } else {
            Ok(Events::new().to(mine, AccountEvent::Deposited { cents: 1 }))
        }
    }
}
