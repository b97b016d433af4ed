//! The transfer as a process: it goes on by itself, wherever the program was stopped.

use es_framework::{Actions, Correlation, Event, ProcessManager, Provenance, Recorded, Rejected};

use crate::account::{Account, AccountEvent, ReceiveFrom, TakeBack};

/// Money that was sent and has not arrived yet: the state of one transfer, which is the correlation id of its events.
#[derive(Debug, Default, Event)]
#[es(name = "bank.transfer")]
pub(crate) struct Transfer {
    from: String,
    cents: u64,
}

impl ProcessManager for Transfer {
    type Event = AccountEvent;
    const NAME: &'static str = "transfer";

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        let Some(id) = event.metadata().and_then(|metadata| metadata.text(Provenance::CORRELATION_ID)) else {
            return Correlation::Ignore;
        };
        match event.event() {
            AccountEvent::Sent { .. } => Correlation::Start(id),
            AccountEvent::Received { .. } | AccountEvent::Returned { .. } => Correlation::Proceed(id),
            _ => Correlation::Ignore,
        }
    }

    fn handle(&mut self, event: &Recorded<AccountEvent>, actions: &mut Actions) {
        if let AccountEvent::Sent { cents, to } = event.event() {
            (self.from, self.cents) = (event.aggregate_id().to_owned(), *cents);
            actions.execute::<Account, _>(to, ReceiveFrom { cents: *cents, from: self.from.clone() });
        } else {
            actions.complete();
        }
    }

    fn rejected(&mut self, rejected: &Rejected, actions: &mut Actions) {
        let reason = rejected.reason.clone();
        actions.execute::<Account, _>(&self.from, TakeBack { cents: self.cents, reason });
    }
}
