//! The story, one function per chapter.

use std::time::{Duration, Instant};

use es_framework::{DecisionError, ExecuteError, Filter, Position, Provenance, Repository, Version};
use examples::{Table, grouped};

use crate::account::{
    Account, AccountEvent, BankError, Close, Deposit, DepositAll, Open, Withdraw, euros, signed_euros,
};
use crate::transfer::{Transfer, transfer};
use crate::{Bank, BoxError, balances};

/// How far behind the table of balances may be.
const SOON: Duration = Duration::from_secs(10);

impl Bank {
    pub(crate) async fn accounts_are_opened(&self) -> Result<(), BoxError> {
        println!("1. Three accounts are opened, and two get some money");
        let mut position = Position::ZERO;
        for (id, owner) in [("alice", "Alice"), ("bob", "Bob"), ("carol", "Carol")] {
            position = self.accounts.execute(id, Open { owner }).await?.position;
        }
        for (id, cents) in [("alice", 100_000), ("bob", 20_000), ("alice", 25_050)] {
            let receipt = self.accounts.execute(id, Deposit { cents }).await?;
            println!(
                "   {id} gets {}: version {}, position {}, balance {}",
                euros(cents),
                receipt.version,
                receipt.position,
                euros(receipt.state.cents)
            );
            position = receipt.position;
        }
        self.show_balances(position).await
    }

    pub(crate) async fn a_command_is_rejected(&self) -> Result<(), BoxError> {
        println!("2. What an account refuses is not written");
        for cents in [5_000, 900_000] {
            match self.accounts.execute("bob", Withdraw { cents }).await {
                Ok(receipt) => println!("   bob takes {}: balance {}", euros(cents), euros(receipt.state.cents)),
                Err(ExecuteError::Rejected(why)) => println!("   bob takes {}: rejected, {why}", euros(cents)),
                Err(error) => return Err(error.into()),
            }
        }
        let bob = self.accounts.load("bob").await?;
        println!("   bob is at version {}\n", bob.version);
        Ok(())
    }

    pub(crate) async fn money_is_transferred(&self) -> Result<(), BoxError> {
        println!("3. A transfer is a command on each side; done twice it is done once");
        for attempt in ["first", "again"] {
            let done = transfer(&self.accounts, "transfer-1", "alice", "bob", 30_000).await?;
            let known = if done.was_known { "known already, nothing written" } else { "written" };
            println!("   {attempt}: {known}, position {}", done.position);
        }
        let head = self.store.head();
        self.show_balances(head).await
    }

    pub(crate) async fn a_transfer_comes_back(&self) -> Result<(), BoxError> {
        println!("4. Carol has closed her account, so what is sent to her comes back");
        self.accounts.execute("carol", Close).await?;
        let done = transfer(&self.accounts, "transfer-2", "alice", "carol", 12_345).await?;
        match done.returned {
            Some(BankError::Closed) => println!("   returned: {}", BankError::Closed),
            other => return Err(format!("the transfer should have come back, but: {other:?}").into()),
        }
        // The correlation id travels in the metadata; the events do not contain it.
        let of_transfer = Filter::new().metadata_equals(Provenance::CORRELATION_ID, "transfer-2");
        let mut table = Table::new(["stream", "version", "cause", "event"]);
        for event in self.store.all().read_as::<AccountEvent>().filter(of_transfer).await? {
            let cause = event.metadata().and_then(|metadata| metadata.text(Provenance::CAUSATION_ID));
            let cause = cause.unwrap_or_else(|| "-".to_owned());
            table.row([event.stream(), &event.version(), &cause, &format!("{:?}", event.event())]);
        }
        println!("{table}");
        Ok(())
    }

    pub(crate) async fn a_transfer_is_one_decision(&self) -> Result<(), BoxError> {
        println!("5. The same as one decision over both accounts: there is nothing to take back");
        let transfer = |to: &str| Transfer { from: "alice".to_owned(), to: to.to_owned(), cents: 10_000 };
        for attempt in ["first", "again"] {
            let decided = self.store.decide(transfer("bob")).key("transfer-3").await?;
            let known = if decided.was_known { "known already, nothing written" } else { "both written" };
            println!("   {attempt}: {known}, position {}", decided.position);
        }
        let head = self.store.head();
        match self.store.decide(transfer("carol")).await {
            Err(DecisionError::Rejected(why)) => println!("   to carol: rejected, {why}"),
            other => return Err(format!("carol's account is closed, but: {other:?}").into()),
        }
        if self.store.head() != head {
            return Err("a rejected transfer must write nothing".into());
        }
        // Back again, so that the story goes on as before.
        let back = Transfer { from: "bob".to_owned(), to: "alice".to_owned(), cents: 10_000 };
        let decided = self.store.decide(back).await?;
        self.show_balances(decided.position).await
    }

    pub(crate) async fn two_writers_conflict(&self) -> Result<(), BoxError> {
        println!("6. Two repositories, as two processes would have them, work on one account");
        // Each caches the account as of its last access.
        let (ours, hasty) = (&self.accounts, Repository::<Account>::builder(&self.store).tries(1).build());
        hasty.execute("bob", Deposit { cents: 100 }).await?;
        ours.execute("bob", Deposit { cents: 200 }).await?;
        let conflicts = ours.metrics().conflicts;
        println!(
            "   ours was behind, noticed at the write, loaded what was new and decided again: {conflicts} conflict"
        );
        match hasty.execute("bob", Deposit { cents: 300 }).await {
            Err(ExecuteError::Conflict { tries, conflict }) => {
                println!("   the hasty one may try only once ({tries}): {conflict}");
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("the hasty repository should have met a conflict".into()),
        }
        let bob = ours.load("bob").await?;
        println!(
            "   bob has {} at version {}: no deposit was lost, none counted twice\n",
            euros(bob.state.cents),
            bob.version
        );
        Ok(())
    }

    pub(crate) async fn an_account_shows_its_past(&self) -> Result<(), BoxError> {
        println!("7. A statement of alice's account, and what it was at version 3");
        let mut table = Table::new(["version", "time", "what", "change", "balance"]);
        let mut balance = 0;
        for event in self.accounts.events("alice").await? {
            balance += event.change();
            let time = event.time().to_string();
            let time = time.get(11..19).unwrap_or(&time);
            table.row([
                &event.version(),
                &time,
                &describe(&event),
                &signed_euros(event.change()),
                &signed_euros(balance),
            ]);
        }
        print!("{table}");
        let then = self.accounts.load_as_of("alice", Version::new(3)).await?;
        let now = self.accounts.load("alice").await?;
        println!(
            "   at version {}: {}; now, at version {}: {}\n",
            then.version,
            euros(then.state.cents),
            now.version,
            euros(now.state.cents)
        );
        Ok(())
    }

    pub(crate) async fn a_busy_account_loads_from_its_snapshot(&self) -> Result<(), BoxError> {
        const COMMANDS: u64 = 20;
        const DEPOSITS: u64 = 1_000;
        println!("8. A shop gets {} payments; its state is saved as it grows", grouped(COMMANDS * DEPOSITS));
        self.accounts.execute("shop", Open { owner: "The shop" }).await?;
        let mut position = Position::ZERO;
        for command in 1..=COMMANDS {
            let cents = (1..=DEPOSITS).map(|n| command * 100 + n % 100).collect();
            position = self.accounts.execute("shop", DepositAll { cents }).await?.position;
        }
        self.accounts.snapshots_settled().await;

        // A new repository has nothing cached.
        let fresh = Repository::<Account>::new(&self.store);
        let began = Instant::now();
        let shop = fresh.load("shop").await?;
        let by_snapshot = began.elapsed();
        let began = Instant::now();
        let mut replayed = 0_u64;
        let mut sum = 0;
        let mut events = self.accounts.events("shop").stream();
        while let Some(event) = events.next().await {
            sum += event?.change();
            replayed += 1;
        }
        let by_replay = began.elapsed();
        let metrics = (self.accounts.metrics().snapshots_saved, fresh.metrics().snapshots_used);
        let mut table = Table::new(["load", "events", "time", "balance"]);
        table.row([
            &"snapshot and what came after",
            &grouped(shop.version.get()),
            &format!("{by_snapshot:.1?}"),
            &euros(shop.state.cents),
        ]);
        table.row([&"every event", &grouped(replayed), &format!("{by_replay:.1?}"), &signed_euros(sum)]);
        print!("{table}");
        println!("   snapshots saved: {}, used: {}", metrics.0, metrics.1);
        if i64::try_from(shop.state.cents) != Ok(sum) {
            return Err("both ways to load must lead to the same balance".into());
        }
        self.show_balances(position).await
    }

    /// Waits until the table has reached a position, and prints it.
    async fn show_balances(&self, position: Position) -> Result<(), BoxError> {
        self.running.wait_for(position, SOON).await?;
        println!("   the table of balances, at position {}:", self.running.position());
        let mut table = Table::new(["account", "owner", "bookings", "balance", "state"]);
        for row in balances::read(&self.balances).await? {
            table.row([&row.account, &row.owner, &row.bookings, &signed_euros(row.cents), &row.state]);
        }
        println!("{table}");
        Ok(())
    }
}

/// A booking as shown on a statement.
fn describe(event: &AccountEvent) -> String {
    match event {
        AccountEvent::Opened { owner } => format!("opened for {owner}"),
        AccountEvent::Deposited { .. } => "deposit".to_owned(),
        AccountEvent::Withdrawn { .. } => "withdrawal".to_owned(),
        AccountEvent::Sent { to, .. } => format!("sent to {to}"),
        AccountEvent::Received { from, .. } => format!("received from {from}"),
        AccountEvent::Returned { reason, .. } => format!("came back: {reason}"),
        AccountEvent::Closed => "closed".to_owned(),
    }
}
