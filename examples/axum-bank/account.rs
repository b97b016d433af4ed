//! Accounts: what can happen to them, what can be asked of them, and when they refuse.

use es_framework::{Aggregate, Apply, Command, Envelope, Event, commands};
use serde::{Deserialize, Serialize};

/// What can happen to an account. As JSON, an event is its fields: its name is beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Event)]
#[serde(untagged)]
pub(crate) enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { owner: String },
    #[es(name = "account.deposited")]
    Deposited { cents: u32 },
    #[es(name = "account.withdrawn")]
    Withdrawn { cents: u32 },
}

/// An account, folded from its events.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 100))]
pub(crate) struct Account {
    owner: Option<String>,
    cents: u64,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        match event {
            AccountEvent::Opened { owner } => self.owner = Some(owner.clone()),
            AccountEvent::Deposited { cents } => self.cents += u64::from(*cents),
            AccountEvent::Withdrawn { cents } => self.cents -= u64::from(*cents),
        }
    }
}

/// Why an account refuses a command. The messages are sent to clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BankError {
    #[error("there is no such account")]
    NotOpen,
    #[error("the account is already open")]
    AlreadyOpen,
    #[error("the account holds only {0} cents")]
    NotEnough(u64),
}

/// The commands. Their names are part of the API, and of what is remembered under an idempotency key.
#[derive(Debug, Serialize, Deserialize, Command)]
#[es(name = "open")]
pub(crate) struct Open {
    owner: String,
}

#[derive(Debug, Serialize, Deserialize, Command)]
#[es(name = "deposit")]
pub(crate) struct Deposit {
    cents: u32,
}

#[derive(Debug, Serialize, Deserialize, Command)]
#[es(name = "withdraw")]
pub(crate) struct Withdraw {
    cents: u32,
}

/// The enum is the body of a request: `{"deposit": {"cents": 500}}`.
#[commands(error = BankError, enum = pub(crate) AccountCommand, derive(Debug))]
impl Account {
    fn open(&self, command: &Open) -> Result<AccountEvent, BankError> {
        match self.owner {
            Some(_) => Err(BankError::AlreadyOpen),
            None => Ok(AccountEvent::Opened { owner: command.owner.clone() }),
        }
    }

    fn deposit(&self, command: &Deposit) -> Result<AccountEvent, BankError> {
        self.held()?;
        Ok(AccountEvent::Deposited { cents: command.cents })
    }

    fn withdraw(&self, command: &Withdraw) -> Result<AccountEvent, BankError> {
        match self.held()? {
            held if held < command.cents.into() => Err(BankError::NotEnough(held)),
            _ => Ok(AccountEvent::Withdrawn { cents: command.cents }),
        }
    }

    #[es(skip)]
    fn held(&self) -> Result<u64, BankError> {
        self.owner.as_ref().map(|_| self.cents).ok_or(BankError::NotOpen)
    }
}
