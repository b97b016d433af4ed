//! The small domain of the typed work: accounts whose events encode to about 100 bytes.

use std::convert::Infallible;

use es_framework::{Aggregate, Apply, CandidateEvent, Context, EncodeError, Envelope, Event, Handle};
use serde::{Deserialize, Serialize};

/// The events of an account.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
pub enum AccountEvent {
    /// It was opened; in stores for scans, one event in a hundred.
    #[es(name = "account.opened")]
    Opened {
        /// By whom.
        owner: String,
    },
    /// Money came in.
    #[es(name = "account.deposited")]
    Deposited {
        /// How much.
        cents: u64,
        /// What for.
        reference: String,
    },
}

/// The only event that a filtered read wants.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
pub enum OpenedEvent {
    /// See [`AccountEvent::Opened`].
    #[es(name = "account.opened")]
    Opened {
        /// By whom.
        owner: String,
    },
}

/// An account.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "account", event = AccountEvent)]
pub struct Account {
    /// What is in it.
    pub cents: u64,
    /// How often something came in.
    pub deposits: u64,
}

/// The same, with its state saved.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, Aggregate)]
#[es(category = "saved", event = AccountEvent, snapshot(every = 1000))]
pub struct SavedAccount {
    /// What is in it.
    pub cents: u64,
    /// How often something came in.
    pub deposits: u64,
    /// What makes the saved state large.
    pub last: Vec<String>,
}

/// Pays in.
#[derive(Debug, Serialize)]
pub struct Deposit {
    /// How much.
    pub cents: u64,
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        if let AccountEvent::Deposited { cents, .. } = event {
            self.cents += cents;
            self.deposits += 1;
        }
    }
}

impl Apply for SavedAccount {
    fn apply(&mut self, event: &AccountEvent, _: Envelope<'_>) {
        if let AccountEvent::Deposited { cents, reference } = event {
            self.cents += cents;
            self.deposits += 1;
            if self.last.len() == 10 {
                self.last.remove(0);
            }
            self.last.push(reference.clone());
        }
    }
}

impl Handle<Deposit> for Account {
    type Error = Infallible;

    fn handle(&self, command: &Deposit, _: &Context<'_, Self>) -> Result<Vec<AccountEvent>, Infallible> {
        Ok(vec![deposited(command.cents)])
    }
}

/// A deposit of about 100 bytes.
pub fn deposited(cents: u64) -> AccountEvent {
    AccountEvent::Deposited { cents, reference: format!("{cents:0>90}") }
}

/// The nth event of a store for scans, ready to be written.
///
/// # Errors
///
/// The codec's error.
pub fn encoded(n: u64) -> Result<CandidateEvent, EncodeError> {
    match n % 100 {
        0 => AccountEvent::Opened { owner: format!("{n:0>90}") }.encode(),
        _ => deposited(n).encode(),
    }
}
