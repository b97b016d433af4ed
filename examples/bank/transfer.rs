//! Money from one account to another, in two ways.
//!
//! * [`transfer`] takes steps: two commands, and a third when the second is rejected. Each account decides for itself, so
//!   the two may be in different stores, and a hot account holds up nobody else. In between the money is in transit, and
//!   every step needs an answer to "what if the next one fails".
//! * [`Transfer`] is one decision over both accounts: both are written or neither, and there is nothing to take back. Both
//!   must be in the same store, and a change of either makes it decide again.
//!
//! Take the decision where one rule is about both sides and one store holds them; take the steps where the other side is
//! somebody else's.

use es_framework::{
    Boundary, Command, Decide, DecideContext, Events, ExecuteError, Position, Provenance, Repository, States,
};
use serde::Serialize;

use crate::account::{Account, BankError, ReceiveFrom, SendTo, TakeBack};

/// The outcome of a transfer.
#[derive(Debug)]
pub(crate) struct Transferred {
    /// Why the money went back, if it did.
    pub(crate) returned: Option<BankError>,
    /// The position of the last event.
    pub(crate) position: Position,
    /// Whether the whole transfer was already done before.
    pub(crate) was_known: bool,
}

/// Sends money. Each account decides for itself, so the receiving one may refuse the money; then the sending one takes
/// it back.
///
/// Each step has a key derived from the transfer's id: a transfer that was interrupted between two steps is completed
/// by calling this again, and repeating a completed one does nothing. All events carry the id as their correlation id,
/// so that they can be found.
pub(crate) async fn transfer(
    accounts: &Repository<Account>,
    id: &str,
    from: &str,
    to: &str,
    cents: u64,
) -> Result<Transferred, ExecuteError<BankError>> {
    let provenance = Provenance::new().correlation_id(id).actor("the bank");
    let sent = accounts
        .execute(from, SendTo { cents, to: to.to_owned() })
        .key(format!("{id}/send"))
        .provenance(provenance.clone())
        .await?;
    let received = accounts
        .execute(to, ReceiveFrom { cents, from: from.to_owned() })
        .key(format!("{id}/receive"))
        .provenance(provenance.clone().causation_id(format!("{id}/send")))
        .await;
    match received {
        Ok(received) => Ok(Transferred {
            returned: None,
            position: received.position,
            was_known: sent.was_known && received.was_known,
        }),
        Err(ExecuteError::Rejected(reason)) => {
            let back = accounts
                .execute(from, TakeBack { cents, reason: reason.to_string() })
                .key(format!("{id}/take-back"))
                .provenance(provenance.causation_id(format!("{id}/receive")))
                .await?;
            Ok(Transferred { returned: Some(reason), position: back.position, was_known: back.was_known })
        }
        // A conflict or a failure of the store decides nothing: the money is in transit until this is called again.
        Err(error) => Err(error),
    }
}

/// The same transfer as one decision.
#[derive(Debug, Serialize, Command)]
#[es(name = "bank.transfer")]
pub(crate) struct Transfer {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) cents: u64,
}

impl Decide for Transfer {
    type Over = (Account, Account);
    type Error = BankError;

    fn over(&self) -> Boundary<Self> {
        (self.from.clone(), self.to.clone())
    }

    /// Each account decides as it does on its own command.
    fn decide(&self, (from, to): States<'_, Self>, _: &DecideContext) -> Result<Events, BankError> {
        let sent = from.send_to(&SendTo { cents: self.cents, to: self.to.clone() })?;
        let received = to.receive_from(&ReceiveFrom { cents: self.cents, from: self.from.clone() })?;
        Ok(Events::new().to(from, sent).to(to, received))
    }
}
