//! Letters to customers: effects outside the store, none of them twice.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use es_framework::{Effect, Reactor, Recorded};

use crate::account::{AccountEvent, euros};

/// Writes a letter into a folder for each event that the owner of an account should know of.
#[derive(Debug, Clone)]
pub(crate) struct Letters {
    pub(crate) folder: PathBuf,
}

impl Reactor for Letters {
    type Event = AccountEvent;
    type Error = io::Error;
    const NAME: &'static str = "letters";

    /// The key of the effect is the name of the letter. One that is there was written by an earlier attempt.
    async fn react(&self, event: &Recorded<AccountEvent>, effect: &Effect) -> io::Result<()> {
        let Some(text) = text(event) else { return Ok(()) };
        let letter = self.folder.join(format!("{}.txt", effect.key));
        if letter.exists() {
            return Ok(());
        }
        // The printer takes its time.
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Whole or not at all, even if the program is killed here.
        let draft = letter.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, letter)
    }
}

/// The letters in the folder, without drafts.
pub(crate) fn written(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut letters = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            letters.push(path);
        }
    }
    Ok(letters)
}

/// What the letter says; [`None`] if there is nothing to say.
pub(crate) fn text(event: &Recorded<AccountEvent>) -> Option<String> {
    let account = event.aggregate_id();
    let news = match event.event() {
        AccountEvent::Opened { owner } => format!("welcome, {owner}"),
        AccountEvent::Received { cents, from } => format!("{from} has sent you {}", euros(*cents)),
        AccountEvent::Returned { cents, reason } => format!("{} came back: {reason}", euros(*cents)),
        AccountEvent::Closed => "we are sorry that you leave".to_owned(),
        AccountEvent::Deposited { .. } | AccountEvent::Withdrawn { .. } | AccountEvent::Sent { .. } => return None,
    };
    Some(format!("To the owner of account {account}: {news}.\n"))
}
