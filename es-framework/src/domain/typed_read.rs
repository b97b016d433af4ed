//! Reading typed events.

use super::event::{Event, Recorded};
use super::repository::LoadError;
use crate::log::{Filter, Reader};

impl Filter {
    /// Lets the events of a type through, under all their names.
    pub fn events<E: Event>(self) -> Self {
        self.types(E::names())
    }
}

impl Reader {
    /// Runs the read and collects its events of one type, decoded. Others are passed over without being decoded.
    ///
    /// ```
    /// # use es_framework::*;
    /// # #[derive(Debug, Clone, Event)] enum AccountEvent { #[es(name = "deposited")] Deposited { cents: u64 } }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = Store::from(MemoryStore::new());
    /// # let deposited = AccountEvent::Deposited { cents: 500 }.encode()?;
    /// # store.open_stream("account-alice")?.write(deposited, ExpectedVersion::Any).await?;
    /// let events = store.open_stream("account-alice")?.read().limit(10).collect_as::<AccountEvent>().await?;
    /// assert!(matches!(events[0].event(), AccountEvent::Deposited { cents: 500 }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the store cannot be read or an event cannot be decoded.
    pub async fn collect_as<E: Event>(self) -> Result<Vec<Recorded<E>>, LoadError> {
        let mut events = self.filter(Filter::new().events::<E>()).stream();
        let mut decoded = Vec::new();
        while let Some(batch) = events.next_batch().await {
            for event in batch? {
                decoded.push(Recorded::decode(event)?);
            }
        }
        Ok(decoded)
    }
}
