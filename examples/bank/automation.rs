//! The last chapters: what the bank does by itself.

use std::path::Path;
use std::time::Duration;

use es_framework::{Position, Process, Provenance, Reaction, Running, StartFrom};

use crate::account::{AccountEvent, SendTo, euros};
use crate::letters::{Letters, text, written};
use crate::process::Transfer;
use crate::{Bank, BoxError};

/// How long the process and the printer may take.
const SOON: Duration = Duration::from_secs(10);

impl Bank {
    pub(crate) async fn a_process_transfers_money(&self) -> Result<(), BoxError> {
        println!("9. A process carries transfers through by itself; the sender only sends");
        // The transfers of the chapters before were carried through by whoever sent the money.
        let process = Process::<Transfer>::new(&self.store).start_from(StartFrom::Present).repository(&self.accounts);
        let running = process.start().await?;
        for (id, to) in [("91", "bob"), ("92", "carol")] {
            let sent = SendTo { cents: 5_000, to: to.to_owned() };
            self.accounts.execute("alice", sent).provenance(Provenance::new().correlation_id(id)).await?;
        }
        self.settled(&running).await?;
        running.stop().await?;
        for id in ["91", "92"] {
            let instance = Process::<Transfer>::new(&self.store).instance(id).await?;
            let instance = instance.ok_or_else(|| format!("transfer {id} was never started"))?;
            let state = if instance.completed { "completed" } else { "under way" };
            println!("   transfer {id}: {state} after {} steps", instance.version);
        }
        // Reading all events again sends nothing again.
        let before = self.store.head();
        let running = Process::<Transfer>::new(&self.store).start().await?;
        running.reset().await?;
        self.settled(&running).await?;
        running.stop().await?;
        if self.store.head() > before {
            return Err("a reset must not send anything".into());
        }
        println!("   read again from the beginning: nothing is sent again");
        let alice = self.accounts.load("alice").await?;
        println!("   alice has {}\n", euros(alice.state.cents));
        Ok(())
    }

    pub(crate) async fn letters_are_written(&self, folder: &Path) -> Result<(), BoxError> {
        println!("10. Letters are written by a reactor, none twice");
        std::fs::create_dir(folder)?;
        let folder = folder.to_owned();
        let letters = Letters { folder: folder.clone() };
        // Killed while it writes.
        let reaction = Reaction::new(&self.store, letters.clone());
        let killed = tokio::spawn(reaction.catch_up());
        while written(&folder)?.len() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        killed.abort();
        println!("   killed after {} letters", if killed.await.is_err() { "some" } else { "all" });
        let expected = self.store.all().read_as::<AccountEvent>().await?;
        let expected = expected.iter().filter(|event| text(event).is_some()).count();
        for (run, repeat) in [("started again", None), ("every effect repeated", Some(Position::ZERO))] {
            let mut reaction = Reaction::new(&self.store, letters.clone());
            if let Some(after) = repeat {
                reaction = reaction.repeat_effects_after(after);
            }
            reaction.catch_up().await?;
            let there = written(&folder)?.len();
            println!("   {run}: {there} letters");
            if there != expected {
                return Err(format!("there should be {expected} letters").into());
            }
        }
        println!("   they are in {}\n", folder.display());
        Ok(())
    }

    /// Waits until the process has handled what its own commands wrote, too.
    async fn settled(&self, running: &Running) -> Result<(), BoxError> {
        loop {
            let head = self.store.head();
            running.wait_for(head, SOON).await?;
            if self.store.head() == head {
                return Ok(());
            }
        }
    }
}
