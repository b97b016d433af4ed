//! A state machine: random appends, reads and filters, checked against a model that fits on a page.
//!
//! The model is written for readability, not for speed, and shares nothing with the engines except the filter
//! evaluator.

use es_framework::{
    Append, AppendError, CandidateEvent, EventId, ExpectedVersion, Filter, Outcome, Store, StoredEvent,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::fixture::Fixture;
use crate::support::{a_list, command, id, log, p, positions, stream, text_id, typed, v, versions};

const STREAMS: [&str; 4] = ["a-1", "a-2", "b-1", "b"];
const TYPES: [&str; 3] = ["opened", "moved", "closed"];

/// What is known of a stored event in advance; its version and position are its indexes in the lists.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    stream: usize,
    version: u64,
    event_type: usize,
    payload: u8,
    id: Option<EventId>,
}

#[derive(Debug, Clone)]
struct New {
    event_type: usize,
    payload: u8,
    id: u8,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Any,
    NoStream,
    Exists,
    /// The version of the stream at that time, plus this offset.
    Near(i8),
}

#[derive(Debug, Clone)]
enum Action {
    Append { parts: Vec<(usize, Expect, Vec<New>)>, with_ids: bool, command: Option<u8> },
    ReadStream { stream: usize, after: u64, before: u64, backward: bool, limit: usize, page: usize },
    ReadAll { after: u64, before: u64, backward: bool, limit: usize, page: usize, filter: Filter },
    List { category: Option<&'static str>, limit: usize },
}

/// The result of an append, as far as the model can predict it.
#[derive(Debug, PartialEq)]
enum Answer {
    Written(Vec<u64>),
    Known,
    Conflict(usize),
    Partly,
    Reused,
    Twice,
}

#[derive(Debug, Default)]
struct Model {
    log: Vec<Known>,
    commands: Vec<u8>,
}

impl Model {
    fn version(&self, stream: usize) -> u64 {
        self.log.iter().filter(|known| known.stream == stream).count() as u64
    }

    fn expected(&self, stream: usize, expect: Expect) -> ExpectedVersion {
        match expect {
            Expect::Any => ExpectedVersion::Any,
            Expect::NoStream => ExpectedVersion::NoStream,
            Expect::Exists => ExpectedVersion::StreamExists,
            Expect::Near(by) => ExpectedVersion::Exact(v(self.version(stream).saturating_add_signed(by.into()))),
        }
    }

    /// Checks an append: the command, then the ids, then the expectations; writes it if all hold.
    fn append(&mut self, parts: &[(usize, Expect, Vec<New>)], with_ids: bool, command: Option<u8>) -> Answer {
        if command.is_some_and(|command| self.commands.contains(&command)) {
            return Answer::Known;
        }
        let (mut new, mut known) = (Vec::new(), 0);
        for (stream, _, events) in parts {
            let mut first: Vec<&New> = Vec::new();
            for event in events {
                let with_same_id = |other: &&&New| other.id == event.id;
                let same = |event_type: usize, payload: u8| (event_type, payload) == (event.event_type, event.payload);
                let event_id = with_ids.then(|| event_id(event.id));
                if with_ids {
                    if let Some(twin) = first.iter().find(with_same_id) {
                        if !same(twin.event_type, twin.payload) {
                            return Answer::Twice;
                        }
                        continue;
                    }
                    first.push(event);
                    if let Some(old) = self.log.iter().find(|old| old.stream == *stream && old.id == event_id) {
                        if !same(old.event_type, old.payload) {
                            return Answer::Reused;
                        }
                        known += 1;
                        continue;
                    }
                }
                new.push((*stream, event.clone(), event_id));
            }
        }
        if known > 0 && new.is_empty() {
            self.commands.extend(command);
            return Answer::Known;
        }
        let mut written = parts.iter().filter(|(_, _, events)| !events.is_empty());
        let only = written.next().filter(|_| written.next().is_none());
        if known > 0 && !matches!(only, Some((_, Expect::Any | Expect::Exists, _))) {
            return Answer::Partly;
        }
        let holds = |(stream, expect, _): &&(usize, Expect, Vec<New>)| {
            let version = self.version(*stream);
            match self.expected(*stream, *expect) {
                ExpectedVersion::Any => true,
                ExpectedVersion::NoStream => version == 0,
                ExpectedVersion::StreamExists => version > 0,
                ExpectedVersion::Exact(expected) => version == expected.get(),
            }
        };
        let conflicts = parts.len() - parts.iter().filter(holds).count();
        if conflicts > 0 {
            return Answer::Conflict(conflicts);
        }
        for (stream, New { event_type, payload, .. }, id) in new {
            let version = self.version(stream) + 1;
            self.log.push(Known { stream, version, event_type, payload, id });
        }
        self.commands.extend(command);
        Answer::Written(parts.iter().map(|(stream, _, _)| self.version(*stream)).collect())
    }

    /// Returns the positions of the events of a stream, by version.
    fn stream(&self, stream: usize) -> Vec<u64> {
        (1..).zip(&self.log).filter(|(_, known)| known.stream == stream).map(|(position, _)| position).collect()
    }
}

fn event_id(number: u8) -> EventId {
    // Ids of both kinds.
    if number.is_multiple_of(2) { text_id(&format!("id-{number}")) } else { EventId::uuid([number; 16]) }
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let new = (0..TYPES.len(), 0..3_u8, 0..12_u8).prop_map(|(event_type, payload, id)| {
        // Mostly the content that belongs to the id, so that retries are as frequent as mistakes.
        let (event_type, payload) = if payload > 0 { (usize::from(id) % 3, id) } else { (event_type, payload) };
        New { event_type, payload, id }
    });
    let expect = prop_oneof![
        4 => Just(Expect::Any),
        1 => Just(Expect::NoStream),
        1 => Just(Expect::Exists),
        4 => Just(Expect::Near(0)),
        1 => (-2..3_i8).prop_map(Expect::Near),
    ];
    let part = (0..STREAMS.len(), expect, vec(new, 0..4));
    let parts = prop_oneof![4 => vec(part.clone(), 1), 1 => vec(part, 2..4)].prop_map(|mut parts| {
        parts.sort_by_key(|(stream, _, _)| *stream);
        parts.dedup_by_key(|(stream, _, _)| *stream);
        parts
    });
    let filter = prop_oneof![
        2 => Just(Filter::new()),
        1 => Just(Filter::new().category("a")),
        1 => Just(Filter::new().category("b").types(["opened", "closed"])),
        1 => Just(Filter::new().streams([id("a-1"), id("b")])),
        1 => Just(Filter::new().stream_prefix("b")),
        1 => Just(Filter::new().type_like("%o%")),
        1 => (0..40_u64, 0..40_u64).prop_map(|(after, before)| Filter::new().after(p(after)).before(p(before))),
    ];
    let append = (parts, any::<bool>(), proptest::option::weighted(0.2, 0..4_u8));
    let bounds = (0..30_u64, 0..40_u64, any::<bool>(), 0..12_usize, 1..5_usize);
    let action = prop_oneof![
        6 => append.prop_map(|(parts, with_ids, command)| Action::Append { parts, with_ids, command }),
        2 => (0..STREAMS.len(), bounds.clone()).prop_map(|(stream, (after, before, backward, limit, page))| {
            Action::ReadStream { stream, after: after / 3, before: before / 3, backward, limit, page }
        }),
        3 => (bounds, filter).prop_map(|((after, before, backward, limit, page), filter)| {
            Action::ReadAll { after, before, backward, limit, page, filter }
        }),
        1 => (prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))], 1..5_usize)
            .prop_map(|(category, limit)| Action::List { category, limit }),
    ];
    vec(action, 1..40)
}

/// Whatever is appended, read, filtered and listed, in whatever order: the results match the model's.
pub async fn every_engine_answers_like_the_model(fixture: &impl Fixture) {
    let config = Config { cases: 48, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    // Each case uses a store of its own from the fixture; the first opens here, so that an engine that cannot open
    // fails by itself.
    fixture.open().await.close().await.expect("a fresh store can be closed");
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&actions(), |actions| {
            runtime.block_on(async {
                let store = fixture.open().await;
                let mut model = Model::default();
                for action in actions {
                    act(&store, &mut model, action).await.map_err(TestCaseError::fail)?;
                }
                compare(&store, &model).await.map_err(TestCaseError::fail)?;
                store.close().await.map_err(|error| TestCaseError::fail(error.to_string()))
            })
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(format!("{what}: {actual:?}, the model says {expected:?}")) }
}

async fn act(store: &Store, model: &mut Model, action: Action) -> Result<(), String> {
    match action {
        Action::Append { parts, with_ids, command: key } => {
            let mut request = Append::default();
            for (stream, expect, events) in &parts {
                let events: Vec<CandidateEvent> = events
                    .iter()
                    .map(|new| {
                        let event = typed(TYPES[new.event_type], vec![new.payload]);
                        event.with_id(with_ids.then(|| event_id(new.id)))
                    })
                    .collect();
                request = request.and(id(STREAMS[*stream]), model.expected(*stream, *expect), events);
            }
            if let Some(key) = key {
                request = request.command(command(&format!("key-{key}"), "always the same"));
            }
            let before = model.log.len();
            let expected = model.append(&parts, with_ids, key);
            let actual = match store.append(request).await {
                Ok(appended) if appended.outcome == Outcome::AlreadyWritten => Answer::Known,
                Ok(appended) => {
                    if model.log.len() > before {
                        same("position", &appended.position.get(), &(model.log.len() as u64))?;
                    }
                    Answer::Written(appended.streams.iter().map(|part| part.last.get()).collect())
                }
                Err(AppendError::Conflict { conflicts }) => Answer::Conflict(conflicts.len()),
                Err(AppendError::PartlyKnown { .. }) => Answer::Partly,
                Err(AppendError::IdReused { .. }) => Answer::Reused,
                Err(AppendError::Invalid(es_framework::InvalidAppend::IdTwice { .. })) => Answer::Twice,
                Err(error) => return Err(format!("{error}, the model says {expected:?}")),
            };
            same("append", &actual, &expected)
        }
        Action::ReadStream { stream: of, after, before, backward, limit, page } => {
            let mut reader = stream(store, STREAMS[of]).read().after(v(after)).before(v(before)).limit(limit);
            reader = reader.page(page, 1 << 20);
            let read = if backward { reader.backward() } else { reader }.collect().await;
            let read = read.map_err(|error| error.to_string())?;
            let mut expected: Vec<u64> = (1..=model.version(of)).filter(|at| *at > after && *at < before).collect();
            if backward {
                expected.reverse();
            }
            expected.truncate(limit);
            same("versions", &versions(&read), &expected)
        }
        Action::ReadAll { after, before, backward, limit, page, filter } => {
            let mut reader = store.all().read().after(p(after)).before(p(before)).limit(limit).filter(filter.clone());
            reader = reader.page(page, 1 << 20);
            let read = if backward { reader.backward() } else { reader }.collect().await;
            let read = read.map_err(|error| error.to_string())?;
            let passes = |event: &StoredEvent| filter.matches(&event.header());
            let between = |event: &&StoredEvent| event.position.get() > after && event.position.get() < before;
            // The contents of the whole log are compared at the end.
            let whole = log(store).await;
            same("length of the log", &whole.len(), &model.log.len())?;
            let mut expected: Vec<_> = whole.iter().filter(between).filter(|e| passes(e)).collect();
            if backward {
                expected.reverse();
            }
            expected.truncate(limit);
            same("positions", &positions(&read), &positions(expected))
        }
        Action::List { category, limit } => {
            let mut names: Vec<usize> = Vec::new();
            for known in &model.log {
                if !names.contains(&known.stream) {
                    names.push(known.stream);
                }
            }
            let of_category =
                |name: &&usize| category.is_none_or(|wanted| STREAMS[**name].split('-').next() == Some(wanted));
            let expected: Vec<_> = names
                .iter()
                .filter(of_category)
                .map(|name| (STREAMS[*name].to_owned(), model.version(*name)))
                .take(limit)
                .collect();
            let list = a_list(|list| (list.category, list.limit) = (category.map(str::to_owned), limit));
            let listed = store.streams(list).await.map_err(|error| error.to_string())?;
            let listed = listed.iter().map(|info| (info.stream.to_string(), info.version.get())).collect();
            same("streams", &listed, &expected)
        }
    }
}

async fn compare(store: &Store, model: &Model) -> Result<(), String> {
    let whole = log(store).await;
    let read: Vec<_> = whole
        .iter()
        .map(|event| Known {
            stream: STREAMS.iter().position(|name| event.stream == *name).unwrap_or(usize::MAX),
            version: event.version.get(),
            event_type: TYPES.iter().position(|name| event.name() == *name).unwrap_or(usize::MAX),
            payload: event.payload.first().copied().unwrap_or(u8::MAX),
            id: (!event.id.is_derived()).then(|| event.id.clone()),
        })
        .collect();
    same("the log", &read, &model.log)?;
    same("its positions", &positions(&whole), &(1..=whole.len() as u64).collect())?;
    for (n, name) in STREAMS.iter().enumerate() {
        let events = stream(store, name).read().collect().await.map_err(|error| error.to_string())?;
        same(name, &positions(&events), &model.stream(n))?;
    }
    Ok(())
}
