//! Accounts: their events, their commands, and when a command is refused.

use es_framework::{Aggregate, Apply, Command, Envelope, Event, commands};
use serde::{Deserialize, Serialize};

/// The events of an account. Their names are stored, so they stay the same when a variant is renamed.
#[derive(Debug, Clone, PartialEq, Event)]
pub(crate) enum AccountEvent {
    #[es(name = "account.opened")]
    Opened { owner: String },
    #[es(name = "account.deposited")]
    Deposited { cents: u64 },
    #[es(name = "account.withdrawn")]
    Withdrawn { cents: u64 },
    #[es(name = "account.sent")]
    Sent { cents: u64, to: String },
    #[es(name = "account.received")]
    Received { cents: u64, from: String },
    /// The other account refused the money that was sent.
    #[es(name = "account.returned")]
    Returned { cents: u64, reason: String },
    #[es(name = "account.closed")]
    Closed,
}

impl AccountEvent {
    /// The change of the balance, in cents.
    pub(crate) fn change(&self) -> i64 {
        let cents = |cents: u64| i64::try_from(cents).unwrap_or(i64::MAX);
        match self {
            Self::Opened { .. } | Self::Closed => 0,
            Self::Deposited { cents: more }
            | Self::Received { cents: more, .. }
            | Self::Returned { cents: more, .. } => cents(*more),
            Self::Withdrawn { cents: less } | Self::Sent { cents: less, .. } => -cents(*less),
        }
    }
}

/// An account, folded from its events. Its id and version are kept by the framework and not repeated here.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "account", event = AccountEvent, snapshot(every = 100))]
pub(crate) struct Account {
    pub(crate) owner: Option<String>,
    pub(crate) cents: u64,
    pub(crate) closed: bool,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        match event {
            AccountEvent::Opened { owner } => self.owner = Some(owner.clone()),
            AccountEvent::Closed => self.closed = true,
            _ => self.cents = self.cents.saturating_add_signed(event.change()),
        }
    }
}

/// Why an account refuses a command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BankError {
    #[error("there is no such account")]
    NotOpen,
    #[error("the account is open already")]
    AlreadyOpen,
    #[error("the account is closed")]
    Closed,
    #[error("{} requested, only {} available", euros(*.asked), euros(*.there))]
    NotEnough { asked: u64, there: u64 },
    #[error("the account still holds {}", euros(*.there))]
    NotEmpty { there: u64 },
}

impl Account {
    fn check_open(&self) -> Result<(), BankError> {
        match (&self.owner, self.closed) {
            (None, _) => Err(BankError::NotOpen),
            (_, true) => Err(BankError::Closed),
            _ => Ok(()),
        }
    }

    fn check_holds(&self, asked: u64) -> Result<(), BankError> {
        let there = self.cents;
        if there < asked { Err(BankError::NotEnough { asked, there }) } else { Ok(()) }
    }
}

/// Commands are plain structs. Those that are executed under a key serialize, and have a stored name.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) owner: &'static str,
}

#[derive(Debug)]
pub(crate) struct Deposit {
    pub(crate) cents: u64,
}

/// Many deposits at once, all or none.
#[derive(Debug)]
pub(crate) struct DepositAll {
    pub(crate) cents: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Withdraw {
    pub(crate) cents: u64,
}

#[derive(Debug, Serialize, Command)]
#[es(name = "account.send")]
pub(crate) struct SendTo {
    pub(crate) cents: u64,
    pub(crate) to: String,
}

#[derive(Debug, Serialize, Command)]
#[es(name = "account.receive")]
pub(crate) struct ReceiveFrom {
    pub(crate) cents: u64,
    pub(crate) from: String,
}

/// Takes back money that was sent, because the other account refused it.
#[derive(Debug, Serialize, Command)]
#[es(name = "account.take-back")]
pub(crate) struct TakeBack {
    pub(crate) cents: u64,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) struct Close;

#[commands(error = BankError)]
impl Account {
    fn open(&self, command: &Open) -> Result<AccountEvent, BankError> {
        match self.owner {
            Some(_) => Err(BankError::AlreadyOpen),
            None => Ok(AccountEvent::Opened { owner: command.owner.to_owned() }),
        }
    }

    fn deposit(&self, command: &Deposit) -> Result<AccountEvent, BankError> {
        self.check_open()?;
        Ok(AccountEvent::Deposited { cents: command.cents })
    }

    fn deposit_all(&self, command: &DepositAll) -> Result<Vec<AccountEvent>, BankError> {
        self.check_open()?;
        Ok(command.cents.iter().map(|cents| AccountEvent::Deposited { cents: *cents }).collect())
    }

    fn withdraw(&self, command: &Withdraw) -> Result<AccountEvent, BankError> {
        self.check_open()?;
        self.check_holds(command.cents)?;
        Ok(AccountEvent::Withdrawn { cents: command.cents })
    }

    pub(crate) fn send_to(&self, command: &SendTo) -> Result<AccountEvent, BankError> {
        self.check_open()?;
        self.check_holds(command.cents)?;
        Ok(AccountEvent::Sent { cents: command.cents, to: command.to.clone() })
    }

    pub(crate) fn receive_from(&self, command: &ReceiveFrom) -> Result<AccountEvent, BankError> {
        self.check_open()?;
        Ok(AccountEvent::Received { cents: command.cents, from: command.from.clone() })
    }

    /// Never refused, even by a closed account: the money has to go somewhere.
    fn take_back(&self, command: &TakeBack) -> AccountEvent {
        AccountEvent::Returned { cents: command.cents, reason: command.reason.clone() }
    }

    fn close(&self, _: &Close) -> Result<AccountEvent, BankError> {
        self.check_open()?;
        match self.cents {
            0 => Ok(AccountEvent::Closed),
            there => Err(BankError::NotEmpty { there }),
        }
    }
}

/// Cents, formatted as euros.
pub(crate) fn euros(cents: u64) -> String {
    format!("€{}.{:02}", examples::grouped(cents / 100), cents % 100)
}

/// The same for an amount that may be negative.
pub(crate) fn signed_euros(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}", euros(cents.unsigned_abs()))
}
