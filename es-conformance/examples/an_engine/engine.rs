//! An engine over a few `BTreeMap`s, as built in the guide "Write an engine in a day".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use es_framework::engine::{
    AppendCondition, CellFacts, Clause, CommitHooks, Committing, Direction, Engine, Facts, Hooked, KnownEvent,
    ListStreams, Load, Loaded, Mark, Notifier, Page, Questions, Read, StreamFacts, StreamHead, StreamInfo, Verdict,
    judge,
};
use es_framework::{
    Append, AppendError, Appended, Cell, CellError, CellKey, Clock, CommandKey, CommandRecord, EventId, Limits,
    ListCells, Position, ProjectionName, Query, Snapshot, SnapshotError, StoreError, StoreId, StoredEvent, StreamId,
    Tag, Timestamp, Version,
};

/// An engine that keeps everything in trees.
#[derive(Debug)]
pub(crate) struct TreeEngine {
    id: StoreId,
    limits: Limits,
    clock: Arc<dyn Clock>,
    notifier: Arc<Notifier>,
    /// What runs inside the transactions of appends.
    hooks: CommitHooks,
    /// [`None`] once the store is closed. Holding the lock means holding the only transaction.
    trees: Mutex<Option<Trees>>,
}

#[derive(Debug, Default)]
struct Trees {
    log: BTreeMap<u64, StoredEvent>,
    streams: BTreeMap<(StreamId, u64), Position>,
    ids: BTreeMap<(StreamId, EventId), Position>,
    types: BTreeMap<String, BTreeSet<u64>>,
    tags: BTreeMap<Tag, BTreeSet<u64>>,
    commands: BTreeMap<CommandKey, CommandRecord>,
    snapshots: BTreeMap<(StreamId, ProjectionName), Snapshot>,
    cells: BTreeMap<CellKey, (u64, Option<Bytes>)>,
}

impl TreeEngine {
    /// Creates an empty store.
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let (id, notifier) = (StoreId::random(), Arc::new(Notifier::new(Position::ZERO)));
        Self { id, limits, clock, notifier, hooks: CommitHooks::default(), trees: Mutex::new(Some(Trees::default())) }
    }

    /// Runs `body` in a transaction.
    fn transact<T, E: From<StoreError>>(&self, body: impl FnOnce(&mut Trees) -> Result<T, E>) -> Result<T, E> {
        let mut trees: MutexGuard<'_, _> = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        body(trees.as_mut().ok_or(StoreError::Closed)?)
    }
}

impl Trees {
    fn end(&self) -> (Position, Timestamp) {
        let empty = (Position::ZERO, Timestamp::from_micros(i64::MIN));
        self.log.values().next_back().map_or(empty, |event| (event.position, event.time))
    }

    fn head_of(&self, stream: &StreamId) -> StreamHead {
        let last = self.streams.range((stream.clone(), 0)..=(stream.clone(), u64::MAX)).next_back();
        StreamHead::at(Version::new(last.map_or(0, |((_, version), _)| *version)))
    }

    /// Step 2: the facts that the log has about an append.
    fn facts(&self, questions: Questions<'_>) -> Facts {
        let (head, time) = self.end();
        let mut facts = Facts::new(head, time);
        facts.command = questions.command().and_then(|key| self.commands.get(key)).cloned();
        for question in questions.streams() {
            let known = |id: &EventId| {
                let position = self.ids.get(&(question.stream.clone(), id.clone()))?;
                let StoredEvent { id, version, position, time, event_type, payload, .. } =
                    self.log.get(&position.get())?.clone();
                Some(KnownEvent { id, version, position, time, content: Some((event_type, payload)) })
            };
            facts.push(StreamFacts::new(self.head_of(question.stream), question.ids().filter_map(known).collect()));
        }
        for AppendCondition { query, after, .. } in questions.conditions() {
            let candidates = self.candidates(query, after.get().saturating_add(1), u64::MAX);
            let mut matching = candidates.into_iter().filter(|event| query.matches(&event.header()));
            facts.push_condition(matching.next().map(|event| event.position));
        }
        questions.cells().for_each(|key| facts.push_cell(self.cell(key)));
        facts
    }

    /// A removed cell keeps its revision, so that none is ever assigned twice.
    fn cell(&self, key: &CellKey) -> CellFacts {
        match self.cells.get(key) {
            Some((revision, Some(_))) => CellFacts::existing(*revision),
            Some((revision, None)) => CellFacts::removed(*revision),
            None => CellFacts::missing(),
        }
    }

    /// The events between these positions that may match a query, from the index: for each criterion those with its
    /// rarest tag, or those of its types if there are fewer.
    fn candidates(&self, query: &Query, first: u64, before: u64) -> Vec<&StoredEvent> {
        let mut positions = BTreeSet::new();
        for criterion in query.criteria() {
            let rarest =
                criterion.tags.iter().map(|tag| self.tags.get(tag)).min_by_key(|set| set.map_or(0, BTreeSet::len));
            let types: Vec<_> = criterion.types.iter().map(|name| self.types.get(&**name)).collect();
            let of_types: usize = types.iter().flatten().map(|set| set.len()).sum();
            let between = |set: &BTreeSet<u64>| set.range(first..before).copied().collect::<Vec<_>>();
            match rarest {
                Some(rarest) if types.is_empty() || rarest.map_or(0, BTreeSet::len) <= of_types => {
                    positions.extend(rarest.into_iter().flat_map(between));
                }
                None if types.is_empty() => positions.extend(self.log.range(first..before).map(|(at, _)| *at)),
                _ => positions.extend(types.into_iter().flatten().flat_map(between)),
            }
        }
        positions.iter().filter_map(|at| self.log.get(at)).collect()
    }

    /// Step 4: a page of the tree that the stream is read from.
    fn page(&self, read: &Read) -> Result<Page, StoreError> {
        let first = read.after.saturating_add(1);
        let before = read.before.unwrap_or(u64::MAX).max(first);
        if !read.stream.is_all() {
            let of_stream = self.streams.range((read.stream.clone(), first)..(read.stream.clone(), before));
            let events = of_stream.filter_map(|(_, position)| self.log.get(&position.get()));
            return Page::of_stream(self.head_of(&read.stream)).fill(read, in_order_of(read, events));
        }
        let by_query = read.filter.clauses().iter().find_map(|clause| match clause {
            Clause::Query(query) => Some(self.candidates(query, first, before)),
            _ => None,
        });
        let events = match by_query {
            Some(candidates) => in_order_of(read, candidates.into_iter()),
            None => in_order_of(read, self.log.range(first..before).map(|(_, event)| event)),
        };
        let mut page = Page::of_all(self.end().0).fill(read, events)?;
        if read.direction == Direction::Forward {
            let last = self.log.range(..=page.scanned).next_back();
            page.mark = last.map(|(_, event)| Mark { position: event.position, checksum: event.checksum });
        }
        Ok(page)
    }
}

fn in_order_of<'e, I>(read: &Read, events: I) -> Box<dyn Iterator<Item = &'e StoredEvent> + 'e>
where
    I: DoubleEndedIterator<Item = &'e StoredEvent> + 'e,
{
    match read.direction {
        Direction::Forward => Box::new(events),
        Direction::Backward => Box::new(events.rev()),
    }
}

#[async_trait]
impl Engine for TreeEngine {
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

    /// Step 3: judges, writes what the plan says, notifies watchers.
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.validate(&self.limits)?;
        self.transact(|trees| {
            let facts = trees.facts(Questions::of(&append));
            let (appended, remember) = match judge(&append, &facts)? {
                Verdict::Known { appended, remember } => (appended, remember),
                Verdict::Write(plan) => {
                    let appended = plan.appended(&append, self.clock.now());
                    let events = plan.events(&append).map(|planned| planned.stored(self.id, appended.time));
                    let events: Vec<StoredEvent> = events.collect();
                    // Nothing was written yet, so there is nothing to roll back if a hook refuses.
                    let mut hooked = Hooked::default();
                    if !self.hooks.is_empty() {
                        let mut read = |read: &Read| trees.page(read);
                        hooked.apply(&self.hooks, &mut Committing::new(&(), facts.head, &events, &mut read))?;
                    }
                    for event in &events {
                        trees.streams.insert((event.stream.clone(), event.version.get()), event.position);
                        trees.ids.insert((event.stream.clone(), event.id.clone()), event.position);
                        trees.log.insert(event.position.get(), event.clone());
                        trees.types.entry(event.name().to_owned()).or_default().insert(event.position.get());
                        for tag in &event.tags {
                            trees.tags.entry(tag.clone()).or_default().insert(event.position.get());
                        }
                    }
                    for cell in plan.cells(&append) {
                        trees.cells.insert(cell.key.clone(), (cell.revision, cell.value.cloned()));
                    }
                    hooked.committed();
                    self.notifier.publish(facts.head, events, appended.position);
                    (appended, true)
                }
            };
            if let Some(command) = append.command.filter(|_| remember) {
                trees.commands.insert(command.key.clone(), CommandRecord::new(command, appended.clone()));
            }
            Ok(appended)
        })
    }

    async fn command(&self, key: &CommandKey) -> Result<Option<CommandRecord>, StoreError> {
        self.transact(|trees| Ok(trees.commands.get(key).cloned()))
    }

    async fn read(&self, read: Read) -> Result<Page, StoreError> {
        self.transact(|trees| trees.page(&read))
    }

    async fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        self.transact(|trees| {
            let mut loaded = Loaded::default();
            let saved = load.snapshot.and_then(|name| trees.snapshots.get(&(load.stream.clone(), name)));
            loaded.snapshot = saved.filter(|saved| load.until.is_none_or(|until| saved.at <= until.get())).cloned();
            if load.events > 0 {
                let mut read = Read::new(load.stream);
                read.after = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
                (read.before, read.events) = (load.until.map(|until| until.next().get()), load.events);
                loaded.page = trees.page(&read)?;
            }
            Ok(loaded)
        })
    }

    async fn streams(&self, list: ListStreams) -> Result<Vec<StreamInfo>, StoreError> {
        self.transact(|trees| {
            let first = |stream: &StreamId| trees.streams.get(&(stream.clone(), 1)).copied();
            let after = match &list.after {
                Some(after) => first(after).unwrap_or(Position::MAX),
                None => Position::ZERO,
            };
            let firsts = trees.log.values().filter(|event| event.version == 1 && event.position > after);
            let streams = firsts.map(|event| &event.stream);
            let wanted = |stream: &&StreamId| list.category.as_deref().is_none_or(|wanted| stream.category() == wanted);
            let listed = streams.filter(wanted).take(list.limit);
            Ok(listed.map(|stream| StreamInfo::new(stream.clone(), trees.head_of(stream))).collect())
        })
    }

    async fn save_snapshot(&self, mut snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.transact(|trees| {
            let (stream, at) = (snapshot.stream.clone(), snapshot.at);
            let end = if stream.is_all() { trees.end().0.get() } else { trees.head_of(&stream).version.get() };
            if at > end {
                return Err(SnapshotError::BeyondEnd { stream, at, end });
            }
            snapshot.time = self.clock.now();
            let key = (stream, snapshot.name.clone());
            if trees.snapshots.get(&key).is_none_or(|saved| saved.at <= at) {
                trees.snapshots.insert(key, snapshot);
            }
            Ok(())
        })
    }

    async fn cell(&self, key: &CellKey) -> Result<Option<Cell>, StoreError> {
        self.transact(|trees| {
            let Some((revision, Some(value))) = trees.cells.get(key) else { return Ok(None) };
            Ok(Some(Cell::new(key.clone(), *revision, value.clone())))
        })
    }

    async fn cells(&self, list: ListCells) -> Result<Vec<Cell>, StoreError> {
        self.transact(|trees| {
            let after = |key: &CellKey| list.after.as_ref().is_none_or(|after| key > after);
            let wanted = trees.cells.iter().filter(|(key, _)| after(key) && key.as_str().starts_with(&list.prefix));
            let existing = wanted.filter_map(|(key, (at, value))| Some(Cell::new(key.clone(), *at, value.clone()?)));
            Ok(existing.take(list.limit).collect())
        })
    }

    async fn set_cell(&self, key: &CellKey, expected: u64, value: Option<Bytes>) -> Result<u64, CellError> {
        self.transact(|trees| {
            let revision = trees.cell(key).set(key, expected)?;
            trees.cells.insert(key.clone(), (revision, value));
            Ok(revision)
        })
    }

    fn commit_hooks(&self) -> Option<&CommitHooks> {
        Some(&self.hooks)
    }

    async fn close(&self) -> Result<(), StoreError> {
        *self.trees.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.notifier.close();
        Ok(())
    }
}
