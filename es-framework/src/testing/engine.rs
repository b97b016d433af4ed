//! An engine whose calls go wrong as planned.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::faults::{Call, Fault, FaultPlan, Faults, InjectedFault, Next, turns};
use crate::log::inspect::Inspect;
use crate::log::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, CommitHooks, Conflict,
    Engine, ExpectedVersion, Limits, ListCells, ListStreams, Load, Loaded, Notifier, Page, Read, Snapshot,
    SnapshotError, Store, StoreError, StoreId, StreamInfo, Version,
};

/// An engine that passes every call on to another one, except for those that go wrong.
///
/// What it leaves behind is what the other engine holds: after a [`Fault::Crash`], wrap that one again, and the process
/// has been started anew.
///
/// ```
/// use es_framework::testing::{Call, Fault, FaultPlan, FaultyEngine};
/// use es_framework::{CandidateEvent, ErrorKind, EventId, ExpectedVersion, MemoryStore};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let plan = FaultPlan::none().at(Call::Append, 1, Fault::LostAnswer);
/// let faulty = FaultyEngine::over(MemoryStore::new().engine(), plan);
/// let alice = faulty.store().open_stream("account-alice")?;
///
/// // A retry with the same id is recognised, although the first answer was lost.
/// let opened = || Ok::<_, es_framework::InvalidName>(CandidateEvent::new("opened", "")?.with_id(EventId::text("1")?));
/// let lost = alice.write(opened()?, ExpectedVersion::NoStream).await.unwrap_err();
/// assert_eq!(lost.kind(), ErrorKind::Internal);
/// assert!(alice.write(opened()?, ExpectedVersion::NoStream).await?.was_known());
/// assert_eq!(faulty.faults().injected().to_string(), "append 1 lost-answer");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    faults: Faults,
    page_events: usize,
}

impl FaultyEngine {
    /// Wraps an engine.
    pub fn over(engine: &Arc<dyn Engine>, plan: FaultPlan) -> Self {
        Self::sharing(engine, Faults::new(plan))
    }

    /// Wraps an engine that dies together with whatever else follows these faults.
    pub fn sharing(engine: &Arc<dyn Engine>, faults: Faults) -> Self {
        Self { inner: Arc::clone(engine), faults, page_events: usize::MAX }
    }

    /// Returns at most this many events with each page, at least one, so that a consumer gets small batches.
    #[must_use]
    pub fn page_events(mut self, events: usize) -> Self {
        self.page_events = events.max(1);
        self
    }

    /// A handle to it.
    pub fn store(&self) -> Store {
        Store::new(self.clone())
    }

    /// The faults it follows: how many calls there were, and what went wrong.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whoever waits for events finds out that the process is dead. To its callers it is a store that was closed.
    fn die(&self) -> StoreError {
        self.faults.crash();
        self.inner.notifier().distrust();
        StoreError::Closed
    }

    async fn run<T, E: From<StoreError>>(
        &self,
        call: Call,
        inner: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        match self.faults.next(call, |fault| fault != Fault::Conflict) {
            Next::Fine => inner.await,
            Next::Dead => Err(StoreError::Closed.into()),
            Next::Wrong(injected) => self.go_wrong(injected, inner).await,
        }
    }

    async fn go_wrong<T, E: From<StoreError>>(
        &self,
        injected: InjectedFault,
        inner: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        match injected.fault {
            Fault::Busy => Err(StoreError::Busy { waited: std::time::Duration::ZERO }.into()),
            Fault::Delay(others) => {
                turns(others).await;
                inner.await
            }
            Fault::LostAnswer => {
                inner.await?;
                Err(failed(injected).into())
            }
            Fault::CrashAfter => {
                inner.await?;
                Err(self.die().into())
            }
            Fault::Crash => Err(self.die().into()),
            Fault::Io | Fault::Conflict => Err(failed(injected).into()),
        }
    }
}

fn failed(injected: InjectedFault) -> StoreError {
    StoreError::Io { source: injected.into() }
}

/// The conflict of an append for which another writer was faster, if it expects anything.
fn conflict_of(append: &Append) -> Option<Conflict> {
    append.streams.iter().find_map(|write| {
        let actual = match write.expected {
            ExpectedVersion::Any => return None,
            ExpectedVersion::NoStream => Version::new(1),
            ExpectedVersion::StreamExists => Version::ZERO,
            ExpectedVersion::Exact(version) => version.next(),
        };
        Some(Conflict::stream(write.stream.clone(), write.expected, actual))
    })
}

#[async_trait]
impl Engine for FaultyEngine {
    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.inner.clock()
    }

    fn notifier(&self) -> &Arc<Notifier> {
        self.inner.notifier()
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let conflict = conflict_of(&append);
        match self.faults.next(Call::Append, |fault| fault != Fault::Conflict || conflict.is_some()) {
            Next::Fine => self.inner.append(append).await,
            Next::Dead => Err(StoreError::Closed.into()),
            Next::Wrong(injected) => match (injected.fault, conflict) {
                (Fault::Conflict, Some(conflict)) => Err(AppendError::Conflict { conflicts: vec![conflict] }),
                _ => self.go_wrong(injected, self.inner.append(append)).await,
            },
        }
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        self.run(Call::Command, self.inner.command(key)).await
    }

    async fn read(&self, mut read: Read) -> Result<Page, StoreError> {
        read.events = read.events.min(self.page_events);
        self.run(Call::Read, self.inner.read(read)).await
    }

    async fn load(&self, mut load: Load) -> Result<Loaded, StoreError> {
        load.events = load.events.min(self.page_events);
        self.run(Call::Load, self.inner.load(load)).await
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.run(Call::Streams, self.inner.streams(list)).await
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.run(Call::SaveSnapshot, self.inner.save_snapshot(snapshot)).await
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.run(Call::Cell, self.inner.cell(key)).await
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.run(Call::Cells, self.inner.cells(list)).await
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        match self.faults.next(Call::SetCell, |_| true) {
            Next::Fine => self.inner.set_cell(key, expected, value).await,
            Next::Dead => Err(StoreError::Closed.into()),
            Next::Wrong(InjectedFault { fault: Fault::Conflict, .. }) => {
                Err(CellError::Changed { key: key.clone(), expected, actual: expected + 1 })
            }
            Next::Wrong(injected) => self.go_wrong(injected, self.inner.set_cell(key, expected, value)).await,
        }
    }

    fn commit_hooks(&self) -> Option<&CommitHooks> {
        self.inner.commit_hooks()
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        self.inner.inspect()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{CandidateEvent, MemoryStore, Stream};

    async fn write(stream: &Stream, expected: ExpectedVersion) -> Result<Appended, AppendError> {
        stream.write(CandidateEvent::new("x", "").unwrap(), expected).await
    }

    fn faulty(plan: &str) -> (MemoryStore, FaultyEngine, Stream) {
        let store = MemoryStore::new();
        let faulty = FaultyEngine::over(store.engine(), plan.parse().unwrap());
        let stream = faulty.store().open_stream("a-1").unwrap();
        (store, faulty, stream)
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says_to_an_append() {
        let plan = "append 1 busy, append 2 io, append 3 conflict, append 4 conflict, append 5 lost-answer, \
                    append 6 delay-3, append 7 crash-after";
        let (store, faulty, stream) = faulty(plan);
        let events = async || store.all().read().collect().await.unwrap().len();
        let first = write(&stream, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(first, AppendError::Store(StoreError::Busy { .. })));
        let second = write(&stream, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(second, AppendError::Store(StoreError::Io { .. })));
        let third = write(&stream, ExpectedVersion::NoStream).await.unwrap_err();
        assert!(matches!(third, AppendError::Conflict { .. }));
        assert_eq!(events().await, 0);
        write(&stream, ExpectedVersion::Any).await.expect("an append that expects nothing has no conflict");
        let fifth = write(&stream, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(fifth, AppendError::Store(StoreError::Io { .. })));
        assert_eq!(events().await, 2);
        write(&stream, ExpectedVersion::Any).await.expect("it is only late");
        let seventh = write(&stream, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(seventh, AppendError::Store(StoreError::Closed)));
        assert!(write(&stream, ExpectedVersion::Any).await.is_err() && stream.version().await.is_err());
        assert_eq!(events().await, 4);
        let injected = "append 1 busy, append 2 io, append 3 conflict, append 5 lost-answer, append 6 delay-3, \
                        append 7 crash-after";
        assert_eq!(faulty.faults().injected().to_string(), injected);
        assert_eq!(faulty.faults().calls(Call::Append), 8);
    }

    #[tokio::test]
    async fn a_watch_learns_that_the_process_died() {
        let (store, faulty, stream) = faulty("append 2 crash");
        let mut watch = stream.watch().await.unwrap();
        write(&stream, ExpectedVersion::Any).await.unwrap();
        watch.next().await.unwrap().unwrap();
        write(&stream, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
        assert!(faulty.faults().has_crashed());
        // What the process left behind is still there.
        let again = FaultyEngine::over(store.engine(), FaultPlan::none());
        assert_eq!(again.store().open_stream("a-1").unwrap().version().await.unwrap().get(), 1);
    }

    #[tokio::test]
    async fn pages_are_as_small_as_asked_for() {
        let (store, _, stream) = faulty("nothing");
        for _ in 0..5 {
            write(&stream, ExpectedVersion::Any).await.unwrap();
        }
        let faulty = FaultyEngine::over(store.engine(), FaultPlan::none()).page_events(2);
        assert_eq!(faulty.store().all().read().collect().await.unwrap().len(), 5);
        assert_eq!(faulty.faults().calls(Call::Read), 3);
    }

    #[tokio::test]
    async fn a_cell_can_seem_to_be_changed_by_another() {
        let (_, faulty, _) = faulty("set-cell 1 conflict");
        let store = faulty.store();
        let key = CellKey::new("lease").unwrap();
        let changed = store.set_cell(&key, 0, Some("a".into())).await.unwrap_err();
        assert!(matches!(changed, CellError::Changed { expected: 0, actual: 1, .. }));
        assert_eq!(store.set_cell(&key, 0, Some("a".into())).await.unwrap(), 1);
    }
}
