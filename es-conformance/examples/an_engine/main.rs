//! Writes and reads with the engine built in the guide "Write an engine in a day".

mod engine;

use std::sync::Arc;

use es_framework::{CandidateEvent, ExpectedVersion, Limits, Store, SystemClock};

use crate::engine::TreeEngine;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::new(TreeEngine::new(Limits::default(), Arc::new(SystemClock)));
    let account = store.open_stream("account-alice")?;
    account.write(CandidateEvent::new("deposited", "500")?, ExpectedVersion::NoStream).await?;
    assert_eq!(account.read().collect().await?.len(), 1);
    store.close().await?;
    Ok(())
}
