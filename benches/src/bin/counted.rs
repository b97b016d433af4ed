//! A small amount of work that is identical to the instruction, for `benches/instructions.sh`: one step, named by the
//! first argument.
//!
//! On a current-thread runtime, with an in-memory store and a clock that stands still.
#![expect(clippy::print_stdout, reason = "a program that prints its result")]

use std::hint::black_box;
use std::sync::Arc;

use benches::Result;
use benches::domain::{Account, AccountEvent, encoded};
use es_framework::{Apply, Clock, Envelope, Event, ExpectedVersion, StoredEvent, Timestamp};
use es_sqlite::SqliteStore;

const EVENTS: u64 = 1_000;
/// Decoding and folding are so short that the writer's spinning, which varies, would cover them.
const TIMES: u64 = 100;

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }
}

fn main() -> Result<()> {
    let step = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&step))
}

/// Every step includes all previous ones, so its cost is the difference to the previous step.
async fn run(step: &str) -> Result<()> {
    let steps = ["nothing", "append", "read", "decode", "fold"];
    let depth = steps.iter().position(|known| *known == step).ok_or("nothing, append, read, decode or fold")?;
    let store = SqliteStore::builder().clock(Arc::new(Still)).in_memory().await?;
    let stream = store.open_stream("account-one")?;
    let events = (0..EVENTS).map(encoded).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut read: Vec<StoredEvent> = Vec::new();
    let mut decoded = Vec::new();
    let mut account = Account::default();
    if depth >= 1 {
        for event in events {
            stream.write(event, ExpectedVersion::Any).await?;
        }
    }
    if depth >= 2 {
        read = stream.read().collect().await?;
    }
    for _ in 0..if depth >= 3 { TIMES } else { 0 } {
        decoded = read.iter().map(AccountEvent::decode).collect::<std::result::Result<Vec<_>, _>>()?;
    }
    for _ in 0..if depth >= 4 { TIMES } else { 0 } {
        read.iter().zip(&decoded).for_each(|(stored, event)| account.apply(event, Envelope::of(stored)));
    }
    println!("{step}: {} read, {} decoded, {:?}", read.len(), decoded.len(), black_box(account));
    store.close().await?;
    Ok(())
}
