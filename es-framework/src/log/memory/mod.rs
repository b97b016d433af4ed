//! The in-memory engine, for tests and for getting to know the library.

mod index;
mod inspect;

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Deref};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::append::{Append, Appended, CommandRecord};
use super::cell::{Cell, CellFacts, ListCells};
use super::commit_hook::{CommitHooks, Committing, Hooked};
use super::engine::Engine;
use super::error::{AppendError, CellError, SnapshotError, StoreError};
use super::event::StoredEvent;
use super::filter::Clause;
use super::head::StreamHead;
use super::id::{EventId, StoreId};
use super::inspect::Inspect;
use super::judge::{Facts, KnownEvent, PlannedCell, Questions, StreamFacts, Verdict, judge};
use super::limits::Limits;
use super::name::{CellKey, CommandKey, ProjectionName, StreamId};
use super::notifier::Notifier;
use super::position::{Position, Version};
use super::query::AppendCondition;
use super::read::{Direction, ListStreams, Load, Loaded, Mark, Page, Read, StreamInfo};
use super::snapshot::Snapshot;
use super::store::Store;
use super::time::{Clock, SystemClock, Timestamp};
use index::{Candidates, Index};

/// A store that keeps everything in memory and drops it with its last handle; cheap to clone. [`Store`], to which it
/// dereferences, lists what can be done with it.
///
/// It fulfils the whole contract except durability, and is visible only through its handles.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    store: Store,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Creates an empty store with the default limits and the clock of the operating system.
    pub fn new() -> Self {
        Self::with(Limits::default(), Arc::new(SystemClock))
    }

    /// Creates an empty store with these limits and this clock.
    pub fn with(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let notifier = Arc::new(Notifier::new(Position::ZERO));
        let engine = MemoryEngine {
            id: StoreId::random(),
            limits,
            clock,
            notifier,
            hooks: CommitHooks::default(),
            state: Mutex::default(),
        };
        Self { store: Store::new(engine) }
    }
}

impl Deref for MemoryStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl From<MemoryStore> for Store {
    fn from(store: MemoryStore) -> Self {
        store.store
    }
}

impl From<&MemoryStore> for Store {
    fn from(store: &MemoryStore) -> Self {
        store.store.clone()
    }
}

#[derive(Debug)]
struct MemoryEngine {
    id: StoreId,
    limits: Limits,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
    hooks: CommitHooks,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    log: Vec<StoredEvent>,
    index: Index,
    streams: HashMap<StreamId, StreamLog>,
    /// Streams in the order of their first events.
    order: Vec<StreamId>,
    commands: HashMap<CommandKey, CommandRecord>,
    snapshots: HashMap<(StreamId, ProjectionName), Snapshot>,
    cells: BTreeMap<CellKey, (u64, Option<Bytes>)>,
}

#[derive(Debug, Default)]
struct StreamLog {
    /// The stream's place in the order of first events.
    order: usize,
    /// Indices into the log, by version.
    events: Vec<usize>,
    ids: HashMap<EventId, usize>,
}

impl MemoryEngine {
    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        // Every change below comes after everything that can fail, so a poisoned state is consistent.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(StoreError::Closed) } else { Ok(state) }
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn id(&self) -> StoreId {
        self.id
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.validate(&self.limits)?;
        let mut state = self.state()?;
        let facts = state.facts(Questions::of(&append));
        let plan = match judge(&append, &facts)? {
            Verdict::Known { appended, remember } => {
                if remember {
                    state.remember(&append, &appended);
                }
                return Ok(appended);
            }
            Verdict::Write(plan) => plan,
        };
        let appended = plan.appended(&append, self.clock.now());
        let planned: Vec<_> = plan.events(&append).map(|planned| planned.stored(self.id, appended.time)).collect();
        let mut hooked = Hooked::default();
        if !self.hooks.is_empty() {
            let mut read = |read: &Read| state.page(read);
            let mut committing = Committing::new(&(), facts.head, &planned, &mut read);
            hooked.apply(&self.hooks, &mut committing)?;
        }
        let before = state.log.len();
        for (event, planned) in planned.into_iter().zip(plan.events(&append)) {
            state.push(event, planned.event.id());
        }
        for PlannedCell { key, revision, value, .. } in plan.cells(&append) {
            state.cells.insert(key.clone(), (revision, value.cloned()));
        }
        state.remember(&append, &appended);
        hooked.committed();
        if appended.position > facts.head {
            let written = state.log.get(before..).unwrap_or_default();
            self.notifier.publish(facts.head, written.iter().cloned(), appended.position);
        }
        Ok(appended)
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        Ok(self.state()?.commands.get(key).cloned())
    }

    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        self.state()?.page(&read)
    }

    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        let state = self.state()?;
        let snapshot = load
            .snapshot
            .and_then(|name| state.snapshots.get(&(load.stream.clone(), name)))
            .filter(|snapshot| load.until.is_none_or(|until| snapshot.at <= until.get()))
            .cloned();
        let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
        let before = load.until.map(|until| until.next().get());
        let page = match load.events {
            0 => Page::default(),
            events => state.page(&Read { after, before, events, ..Read::new(load.stream) })?,
        };
        Ok(Loaded { snapshot, page })
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        let state = self.state()?;
        let start = match &list.after {
            Some(after) => state.streams.get(after).map_or(state.order.len(), |stream| stream.order + 1),
            None => 0,
        };
        let of_category =
            |stream: &&StreamId| list.category.as_deref().is_none_or(|wanted| stream.category() == wanted);
        let listed = state.order.iter().skip(start).filter(of_category).take(list.limit);
        Ok(listed.map(|stream| StreamInfo::new(stream.clone(), state.head_of(stream))).collect())
    }

    async fn save_snapshot(&self, mut snapshot: Snapshot) -> Result<(), SnapshotError> {
        let mut state = self.state()?;
        let end =
            if snapshot.stream.is_all() { state.end().0.get() } else { state.head_of(&snapshot.stream).version.get() };
        if snapshot.at > end {
            return Err(SnapshotError::BeyondEnd { stream: snapshot.stream, at: snapshot.at, end });
        }
        snapshot.time = self.clock.now();
        let key = (snapshot.stream.clone(), snapshot.name.clone());
        if state.snapshots.get(&key).is_none_or(|saved| saved.at <= snapshot.at) {
            state.snapshots.insert(key, snapshot);
        }
        Ok(())
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        let state = self.state()?;
        let Some((revision, Some(value))) = state.cells.get(key) else { return Ok(None) };
        Ok(Some(Cell::new(key.clone(), *revision, value.clone())))
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        let state = self.state()?;
        let after = list.after.map_or(Bound::Unbounded, Bound::Excluded);
        let cells = state.cells.range((after, Bound::Unbounded));
        let wanted = cells.filter(|(key, _)| key.as_str().starts_with(list.prefix.as_str()));
        let existing =
            wanted.filter_map(|(key, (revision, value))| Some(Cell::new(key.clone(), *revision, value.clone()?)));
        Ok(existing.take(list.limit).collect())
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        let mut state = self.state()?;
        let revision = state.cell(key).set(key, expected)?;
        state.cells.insert(key.clone(), (revision, value));
        Ok(revision)
    }

    fn commit_hooks(&self) -> Option<&CommitHooks> {
        Some(&self.hooks)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }

    async fn close(&self) -> Result<(), StoreError> {
        if let Ok(mut state) = self.state() {
            state.closed = true;
        }
        self.notifier.close();
        Ok(())
    }
}

impl State {
    fn end(&self) -> (Position, Timestamp) {
        // Before the first event any time is later.
        let empty = (Position::ZERO, Timestamp::from_micros(i64::MIN));
        self.log.last().map_or(empty, |event| (event.position, event.time))
    }

    fn head_of(&self, stream: &StreamId) -> StreamHead {
        let events = self.streams.get(stream).map_or(0, |stream| stream.events.len());
        StreamHead::at(Version::new(events as u64))
    }

    fn facts(&self, questions: Questions<'_>) -> Facts {
        let (head, time) = self.end();
        let mut facts = Facts::new(head, time);
        facts.command = questions.command().and_then(|key| self.commands.get(key)).cloned();
        for question in questions.streams() {
            let known = question.ids().filter_map(|id| self.known(question.stream, id)).collect();
            facts.push(StreamFacts::new(self.head_of(question.stream), known));
        }
        for condition in questions.conditions() {
            facts.push_condition(self.first_match(condition));
        }
        questions.cells().for_each(|key| facts.push_cell(self.cell(key)));
        facts
    }

    fn cell(&self, key: &CellKey) -> CellFacts {
        match self.cells.get(key) {
            Some((revision, Some(_))) => CellFacts::existing(*revision),
            Some((revision, None)) => CellFacts::removed(*revision),
            None => CellFacts::missing(),
        }
    }

    fn known(&self, stream: &StreamId, id: &EventId) -> Option<KnownEvent> {
        let event = self.log.get(*self.streams.get(stream)?.ids.get(id)?)?;
        Some(KnownEvent {
            id: id.clone(),
            version: event.version,
            position: event.position,
            time: event.time,
            content: Some((Arc::clone(&event.event_type), event.payload.clone())),
        })
    }

    fn push(&mut self, event: StoredEvent, id: Option<&EventId>) {
        let order = &mut self.order;
        let stream = self.streams.entry(event.stream.clone()).or_insert_with(|| {
            order.push(event.stream.clone());
            StreamLog { order: order.len() - 1, ..StreamLog::default() }
        });
        stream.events.push(self.log.len());
        if let Some(id) = id {
            stream.ids.insert(id.clone(), self.log.len());
        }
        self.index.push(&event, self.log.len());
        self.log.push(event);
    }

    /// The position of the first event that makes a condition fail.
    fn first_match(&self, AppendCondition { query, after, .. }: &AppendCondition) -> Option<Position> {
        // Positions are contiguous from 1, so the event after this one has it as its index.
        let start = usize::try_from(after.get()).unwrap_or(usize::MAX).min(self.log.len());
        let mut candidates = self.index.candidates(query, &(start..self.log.len())).filter_map(|at| self.log.get(at));
        candidates.find(|event| query.matches(&event.header())).map(|event| event.position)
    }

    fn remember(&mut self, append: &Append, appended: &Appended) {
        if let Some(command) = &append.command {
            self.commands.insert(command.key.clone(), CommandRecord::new(command.clone(), appended.clone()));
        }
    }

    fn page(&self, read: &Read) -> Result<Page, StoreError> {
        let of_stream = if read.stream.is_all() {
            None
        } else {
            Some(self.streams.get(&read.stream).map_or(&[][..], |stream| &stream.events))
        };
        // Positions and versions are contiguous from 1 here, so a place is an index plus one.
        let count = of_stream.map_or(self.log.len(), <[_]>::len);
        let event_at = |index: usize| {
            let index = of_stream.map_or(Some(index), |events| events.get(index).copied());
            index.and_then(|index| self.log.get(index))
        };
        let index = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        let low = index(read.after).min(count);
        let high = read.before.map_or(count, |before| index(before).saturating_sub(1).min(count)).max(low);
        let page = match of_stream {
            None => Page::of_all(self.end().0),
            Some(_) => Page::of_stream(self.head_of(&read.stream)),
        };
        let query = read.filter.clauses().iter().find_map(|clause| match clause {
            Clause::Query(query) if of_stream.is_none() => Some(query),
            _ => None,
        });
        let places = match query {
            Some(query) => self.index.candidates(query, &(low..high)),
            None => Candidates::All(low..high),
        };
        match read.direction {
            Direction::Forward => {
                let mut page = page.fill(read, places.filter_map(event_at))?;
                if of_stream.is_none() {
                    let last = self.log.get(..index(page.scanned).min(count)).and_then(<[_]>::last);
                    page.mark = last.map(|event| Mark { position: event.position, checksum: event.checksum });
                }
                Ok(page)
            }
            Direction::Backward => page.fill(read, places.rev().filter_map(event_at)),
        }
    }
}
