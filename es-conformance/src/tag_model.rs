//! A state machine: random programs of tags, queries and conditions beside stream expectations, ids and command keys,
//! checked against a list of events that is searched from its beginning.
//!
//! Appends are sent one at a time and several at once. For those sent at once, the answers must be those of some order.
//! A program that fails is shrunk and printed with one line for each step.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use es_framework::{
    Append, AppendCondition, AppendError, Appended, Conflict, Criterion, EventId, ExpectedVersion, Filter,
    InvalidAppend, Outcome, Position, Query, Store, StoredEvent, StreamWrite, Tag,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::fixture::Fixture;
use crate::support::{command, id, log, p, positions, stream, tag, text_id, typed, v};

const STREAMS: [&str; 3] = ["a-1", "a-2", "b-1"];
const TYPES: [&str; 4] = ["opened", "moved", "closed", "never"];
const TAGS: [&str; 4] = ["a:1", "a:11", "a:2", "b:1"];

/// One step of a program.
#[derive(Clone)]
enum Step {
    /// Appends, sent at once.
    Append(Vec<Request>),
    /// The appends of an earlier step once more, as by callers who did not get the answer.
    Retry {
        back: usize,
    },
    Read {
        query: Query,
        of: Option<usize>,
        after: u64,
        before: u64,
        backward: bool,
        limit: usize,
        page: usize,
    },
}

#[derive(Clone)]
struct Request {
    parts: Vec<(usize, Expect, Vec<New>)>,
    conditions: Vec<(Query, Seen)>,
    with_ids: bool,
    key: Option<(u8, u8)>,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Any,
    NoStream,
    Exists,
    /// The version of the stream at that time, plus this offset.
    Near(i8),
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Nothing,
    /// The head of the log at that time, plus this offset.
    Near(i8),
}

#[derive(Clone)]
struct New {
    event_type: &'static str,
    payload: u8,
    tags: Vec<&'static str>,
    id: u8,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(requests) => match &requests[..] {
                [one] => write!(f, "append {one:?}"),
                several => write!(f, "at once {several:?}"),
            },
            Self::Retry { back } => write!(f, "retry step -{back}"),
            Self::Read { query, of, after, before, backward, limit, page } => {
                let of = of.map_or("@all", |of| STREAMS[of]);
                let order = if *backward { "backward" } else { "forward" };
                write!(f, "read {of} by [{query}] in {after}..{before} {order}, limit {limit}, page {page}")
            }
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (stream, expect, events)) in self.parts.iter().enumerate() {
            write!(f, "{}{} {expect:?} [", if n == 0 { "" } else { " and " }, STREAMS[*stream])?;
            for (n, event) in events.iter().enumerate() {
                write!(f, "{}{event:?}", if n == 0 { "" } else { ", " })?;
            }
            f.write_str(if self.with_ids { "] with ids" } else { "]" })?;
        }
        for (query, seen) in &self.conditions {
            write!(f, " unless [{query}] after {seen:?}")?;
        }
        self.key.map_or(Ok(()), |(key, what)| write!(f, " as key-{key}/{what}"))
    }
}

impl fmt::Debug for New {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event_type, payload, tags, id } = self;
        write!(f, "{event_type}#{id}({payload}) {}", tags.join(" "))
    }
}

/// What is known of a stored event; its position is its index in the list, plus one.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    stream: String,
    version: u64,
    event_type: String,
    payload: Vec<u8>,
    tags: Vec<Tag>,
    id: Option<EventId>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// The version of each stream, and the position.
    Written(Vec<u64>, u64),
    /// The same of the first time.
    Known(Vec<u64>, u64),
    Conflict(Vec<Conflict>),
    Partly(usize, usize),
    Reused,
    Twice,
    OtherCommand,
}

#[derive(Debug, Clone, Default)]
struct Model {
    log: Vec<Known>,
    commands: Vec<(String, es_framework::Fingerprint, Vec<u64>, u64)>,
}

impl Known {
    fn meets(&self, query: &Query) -> bool {
        query.criteria().iter().any(|Criterion { types, tags, .. }| {
            (types.is_empty() || types.iter().any(|name| **name == *self.event_type))
                && tags.iter().all(|tag| self.tags.contains(tag))
        })
    }
}

impl Model {
    fn version(&self, stream: &str) -> u64 {
        self.log.iter().filter(|known| known.stream == stream).count() as u64
    }

    fn first_match(&self, AppendCondition { query, after, .. }: &AppendCondition) -> Option<Position> {
        let mut numbered = (1..).zip(&self.log);
        numbered.find(|(at, known)| p(*at) > *after && known.meets(query)).map(|(at, _)| p(at))
    }

    /// Checks an append: the command, the ids, and then expectations and conditions; writes it if all hold.
    fn append(&mut self, append: &Append) -> Answer {
        if let Some(sent) = &append.command
            && let Some((_, fingerprint, versions, at)) =
                self.commands.iter().find(|(key, ..)| sent.key == *key.as_str()).cloned()
        {
            return if fingerprint == sent.fingerprint { Answer::Known(versions, at) } else { Answer::OtherCommand };
        }
        let (mut new, mut found, mut known) = (Vec::new(), Vec::new(), 0);
        for StreamWrite { stream, events, .. } in &append.streams {
            let mut last = None;
            for (i, event) in events.iter().enumerate() {
                let content = |event: &es_framework::CandidateEvent| {
                    (event.event_type().name().to_owned(), event.payload().to_vec())
                };
                let id = event.id().cloned();
                if id.is_some() {
                    if let Some(twin) = events[..i].iter().find(|twin| twin.id() == id.as_ref()) {
                        if content(twin) != content(event) {
                            return Answer::Twice;
                        }
                        continue;
                    }
                    let mut numbered = (1..).zip(&self.log);
                    let old = numbered.find(|(_, old)| stream.as_str() == old.stream && old.id == id);
                    if let Some((at, old)) = old {
                        if (old.event_type.clone(), old.payload.clone()) != content(event) {
                            return Answer::Reused;
                        }
                        known += 1;
                        last = last.max(Some((at, old.version)));
                        continue;
                    }
                }
                let (event_type, payload) = content(event);
                let (stream, tags) = (stream.to_string(), event.tags().to_vec());
                new.push(Known { stream, version: 0, event_type, payload, tags, id });
            }
            found.push(last);
        }
        if known > 0 && new.is_empty() {
            let streams = append.streams.iter().zip(&found);
            let versions: Vec<u64> =
                streams.map(|(write, last)| last.map_or(self.version(write.stream.as_str()), |(_, at)| at)).collect();
            let at = found.iter().flatten().map(|(at, _)| *at).max().unwrap_or(0);
            self.remember(append, &versions, at);
            return Answer::Known(versions, at);
        }
        let written: Vec<_> = append.streams.iter().filter(|write| !write.events.is_empty()).collect();
        let tolerant =
            |write: &StreamWrite| matches!(write.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists);
        if known > 0 && !(written.len() == 1 && tolerant(written[0])) {
            return Answer::Partly(known, new.len());
        }
        let mut conflicts = Vec::new();
        for StreamWrite { stream, expected, .. } in &append.streams {
            let version = self.version(stream.as_str());
            let holds = match expected {
                ExpectedVersion::Any => true,
                ExpectedVersion::NoStream => version == 0,
                ExpectedVersion::StreamExists => version > 0,
                ExpectedVersion::Exact(exact) => version == exact.get(),
            };
            if !holds {
                conflicts.push(Conflict::stream(stream.clone(), *expected, v(version)));
            }
        }
        for condition in &append.conditions {
            let failed = self.first_match(condition);
            conflicts.extend(failed.map(|position| Conflict::condition(condition.clone(), position)));
        }
        if !conflicts.is_empty() {
            return Answer::Conflict(conflicts);
        }
        for mut event in new {
            event.version = self.version(&event.stream) + 1;
            self.log.push(event);
        }
        let versions: Vec<u64> = append.streams.iter().map(|write| self.version(write.stream.as_str())).collect();
        let head = self.log.len() as u64;
        self.remember(append, &versions, head);
        Answer::Written(versions, head)
    }

    fn remember(&mut self, append: &Append, versions: &[u64], at: u64) {
        if let Some(sent) = &append.command {
            self.commands.push((sent.key.to_string(), sent.fingerprint, versions.to_vec(), at));
        }
    }

    /// What a caller sends who knows the log as it is now.
    fn sent(&self, Request { parts, conditions, with_ids, key }: &Request) -> Append {
        let mut append = Append::default();
        for (stream, expect, events) in parts {
            let stream = STREAMS[*stream];
            let expected = match expect {
                Expect::Any => ExpectedVersion::Any,
                Expect::NoStream => ExpectedVersion::NoStream,
                Expect::Exists => ExpectedVersion::StreamExists,
                Expect::Near(by) => ExpectedVersion::Exact(v(self.version(stream).saturating_add_signed((*by).into()))),
            };
            let events = events.iter().map(|New { event_type, payload, tags, id }| {
                let id = with_ids.then(|| event_id(*id));
                typed(event_type, vec![*payload]).with_id(id).with_tags(tags.iter().map(|text| tag(text)))
            });
            append = append.and(id(stream), expected, events.collect::<Vec<_>>());
        }
        for (query, seen) in conditions {
            let after = match seen {
                Seen::Nothing => 0,
                Seen::Near(by) => (self.log.len() as u64).saturating_add_signed((*by).into()),
            };
            append = append.unless(query, p(after));
        }
        match key {
            Some((key, what)) => append.command(command(&format!("key-{key}"), &format!("command {what}"))),
            None => append,
        }
    }
}

fn event_id(number: u8) -> EventId {
    // Ids of both kinds.
    if number.is_multiple_of(2) { text_id(&format!("id-{number}")) } else { EventId::uuid([number; 16]) }
}

fn query() -> impl Strategy<Value = Query> + Clone {
    let criterion = (subsequence(TYPES.to_vec(), 0..3), subsequence(TAGS.to_vec(), 0..3));
    let criterion = criterion.prop_map(|(types, tags)| Criterion::types(types).all_of(tags.into_iter().map(tag)));
    vec(criterion, 0..3).prop_map(Query::from_iter)
}

fn request() -> impl Strategy<Value = Request> + Clone {
    let new = (0..3_usize, 0..3_u8, subsequence(TAGS.to_vec(), 0..=3), 0..12_u8);
    let new = new.prop_map(|(event_type, payload, tags, id)| {
        // Mostly the content that belongs to the id, so that retries are as frequent as mistakes.
        let (event_type, payload) = if payload > 0 { (usize::from(id) % 3, id) } else { (event_type, payload) };
        New { event_type: TYPES[event_type], payload, tags, id }
    });
    let expect = prop_oneof![
        5 => Just(Expect::Any),
        1 => Just(Expect::NoStream),
        1 => Just(Expect::Exists),
        3 => Just(Expect::Near(0)),
        1 => (-2..3_i8).prop_map(Expect::Near),
    ];
    let part = (0..STREAMS.len(), expect, vec(new, 0..4));
    let parts =
        prop_oneof![1 => Just(vec![]), 8 => vec(part.clone(), 1), 2 => vec(part, 2..4)].prop_map(|mut parts| {
            parts.sort_by_key(|(stream, _, _)| *stream);
            parts.dedup_by_key(|(stream, _, _)| *stream);
            parts
        });
    let seen = prop_oneof![4 => (-4..2_i8).prop_map(Seen::Near), 1 => Just(Seen::Nothing)];
    let condition = (query(), seen);
    let conditions = prop_oneof![1 => Just(vec![]), 2 => vec(condition.clone(), 1), 1 => vec(condition, 2..4)];
    let key = proptest::option::weighted(0.2, (0..4_u8, prop_oneof![6 => Just(0_u8), 1 => Just(1_u8)]));
    (parts, conditions, any::<bool>(), key).prop_map(|(parts, conditions, with_ids, key)| Request {
        parts,
        conditions,
        with_ids,
        key,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let of = prop_oneof![3 => Just(None), 1 => (0..STREAMS.len()).prop_map(Some)];
    let read = (query(), of, 0..30_u64, 0..60_u64, any::<bool>(), 0..12_usize, 1..5_usize);
    let step = prop_oneof![
        6 => request().prop_map(|one| Step::Append(vec![one])),
        2 => vec(request(), 2..5).prop_map(Step::Append),
        2 => (1..4_usize).prop_map(|back| Step::Retry { back }),
        4 => read.prop_map(|(query, of, after, before, backward, limit, page)| {
            Step::Read { query, of, after, before, backward, limit, page }
        }),
    ];
    vec(step, 1..30)
}

/// Whatever is tagged, appended under conditions, retried and read by queries, in whatever order: the results match the
/// model's.
pub async fn i5_every_engine_judges_conditions_like_the_model(fixture: &impl Fixture) {
    let config = Config { cases: 64, failure_persistence: None, max_shrink_iters: 1_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    // Each case uses a store of its own from the fixture; the first opens here, so that an engine that cannot open
    // fails by itself.
    fixture.open().await.close().await.expect("a fresh store can be closed");
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&steps(), |steps| {
            runtime.block_on(async {
                let store = fixture.open().await;
                run(&store, &steps).await.map_err(TestCaseError::fail)?;
                store.close().await.map_err(|error| TestCaseError::fail(error.to_string()))
            })
        })
    });
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

async fn run(store: &Store, steps: &[Step]) -> Result<(), String> {
    let mut model = Model::default();
    let mut sent: Vec<Vec<Append>> = Vec::new();
    for step in steps {
        match step {
            Step::Append(requests) => {
                let appends: Vec<_> = requests.iter().map(|request| model.sent(request)).collect();
                send(store, &mut model, &appends).await?;
                sent.push(appends);
            }
            Step::Retry { back } => {
                if let Some(appends) = sent.len().checked_sub(*back).and_then(|at| sent.get(at)) {
                    send(store, &mut model, appends).await?;
                }
            }
            Step::Read { .. } => read(store, &model, step).await?,
        }
    }
    let whole = log(store).await;
    let known: Vec<_> = whole.iter().map(known).collect();
    same("the log", &known, &model.log)?;
    same("its positions", &positions(&whole), &(1..=whole.len() as u64).collect())
}

/// Sends appends at once. Their answers must be those of the model, for some order of them.
async fn send(store: &Store, model: &mut Model, appends: &[Append]) -> Result<(), String> {
    let answers: Vec<_> = at_once(appends.iter().map(|append| store.append(append.clone()))).await;
    let answers = answers.into_iter().map(answer).collect::<Result<Vec<_>, _>>()?;
    let mut expected = Vec::new();
    for order in orders(appends.len()) {
        let mut after = model.clone();
        let mut said: Vec<_> = order.iter().map(|n| (*n, after.append(&appends[*n]))).collect();
        said.sort_by_key(|(n, _)| *n);
        let said: Vec<_> = said.into_iter().map(|(_, answer)| answer).collect();
        if said == answers {
            *model = after;
            return Ok(());
        }
        expected.push(said);
    }
    let expected = &expected[0];
    Err(format!("{appends:#?}: the answers are {answers:?}, in the order of the requests they would be {expected:?}"))
}

/// Polls all of these futures until each is done.
async fn at_once<T>(futures: impl Iterator<Item = impl Future<Output = T> + Send>) -> Vec<T> {
    let mut pending: Vec<(Pin<Box<_>>, Option<T>)> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        for (future, done) in pending.iter_mut().filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                *done = Some(output);
            }
        }
        if pending.iter().all(|(_, done)| done.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, done)| done).collect()
}

fn answer(answer: Result<Appended, AppendError>) -> Result<Answer, String> {
    Ok(match answer {
        Ok(appended) => {
            let versions = appended.streams.iter().map(|part| part.last.get()).collect();
            match appended.outcome {
                Outcome::AlreadyWritten => Answer::Known(versions, appended.position.get()),
                _ => Answer::Written(versions, appended.position.get()),
            }
        }
        Err(AppendError::Conflict { conflicts }) => Answer::Conflict(conflicts),
        Err(AppendError::PartlyKnown { known, new }) => Answer::Partly(known, new),
        Err(AppendError::IdReused { .. }) => Answer::Reused,
        Err(AppendError::Invalid(InvalidAppend::IdTwice { .. })) => Answer::Twice,
        Err(AppendError::CommandKeyReused { .. }) => Answer::OtherCommand,
        Err(error) => return Err(error.to_string()),
    })
}

async fn read(store: &Store, model: &Model, step: &Step) -> Result<(), String> {
    let Step::Read { query, of, after, before, backward, limit, page } = step else { return Ok(()) };
    let filter = Filter::new().query(query);
    let (reader, place): (_, fn(&StoredEvent) -> u64) = match of {
        Some(of) => {
            let reader = stream(store, STREAMS[*of]).read().after(v(*after)).before(v(*before));
            (reader, |event| event.version.get())
        }
        None => (store.all().read().after(p(*after)).before(p(*before)), |event| event.position.get()),
    };
    let reader = reader.filter(filter).limit(*limit).page(*page, 1 << 20);
    let reader = if *backward { reader.backward() } else { reader };
    let events = reader.clone().await.map_err(|error| error.to_string())?;
    let mut expected = Vec::new();
    for (at, known) in (1..).zip(&model.log) {
        let place = if of.is_some() { known.version } else { at };
        if of.is_none_or(|of| known.stream == STREAMS[of]) && known.meets(query) && place > *after && place < *before {
            expected.push(place);
        }
    }
    if *backward {
        expected.reverse();
    }
    expected.truncate(*limit);
    same(&format!("{step:?}"), &events.iter().map(place).collect(), &expected)?;
    let count = reader.count().await.map_err(|error| error.to_string())?;
    same(&format!("the count of {step:?}"), &count, &(expected.len() as u64))
}

fn known(event: &StoredEvent) -> Known {
    Known {
        stream: event.stream.to_string(),
        version: event.version.get(),
        event_type: event.name().to_owned(),
        payload: event.payload.to_vec(),
        tags: event.tags.to_vec(),
        id: (!event.id.is_derived()).then(|| event.id.clone()),
    }
}

fn same<T: PartialEq + fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{what}: {actual:?}, the model says {expected:?}")) }
}

/// Every order of the numbers below `count`; the first is ascending.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..count {
        let longer = |order: &Vec<usize>| {
            let others = (0..count).filter(|n| !order.contains(n));
            others.map(|n| [&order[..], &[n]].concat()).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}
