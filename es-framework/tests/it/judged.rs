//! The judge against a model that was written from sections A, B and I of the contract, without an engine.
//!
//! The model takes one event after the other and asks what the contract says of it; it shares nothing with the judge but
//! the types of requests and answers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a model that panics is a broken test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use es_framework::engine::{
    CellFacts, Facts, KnownEvent, PlannedEvent, Questions, StreamFacts, Verdict, judge, judge_as_unknown,
};
use es_framework::{
    Append, AppendCondition, AppendError, Appended, CandidateEvent, CellKey, CommandKey, CommandRecord, Conflict,
    Criterion, ErrorKind, EventId, ExpectedVersion, Fingerprint, InvalidAppend, KeyedCommand, Outcome, Position, Query,
    StreamHead, StreamId, StreamState, Tag, Timestamp, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

const STREAMS: [&str; 4] = ["a-1", "a-2", "b-1", "b"];

/// An event in the log, as anybody would write it down.
#[derive(Debug, Clone)]
struct Entry {
    stream: StreamId,
    version: u64,
    time: i64,
    event: CandidateEvent,
    removed: bool,
}

/// The log: entry `n` has position `n + 1`.
#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    commands: Vec<CommandRecord>,
    closed: Vec<StreamId>,
    /// Everything that each cell was ever set to; [`None`] is a removal.
    cells: BTreeMap<CellKey, Vec<Option<Bytes>>>,
}

impl Log {
    fn version(&self, stream: &StreamId) -> u64 {
        self.entries.iter().filter(|entry| entry.stream == *stream).map(|entry| entry.version).max().unwrap_or(0)
    }

    fn floor(&self, stream: &StreamId) -> u64 {
        let removed = self.entries.iter().filter(|entry| entry.stream == *stream && entry.removed);
        removed.map(|entry| entry.version).max().unwrap_or(0)
    }

    fn find(&self, stream: &StreamId, id: &EventId) -> Option<(u64, &Entry)> {
        let mut numbered = (1..).zip(&self.entries);
        numbered.find(|(_, entry)| entry.stream == *stream && entry.event.id() == Some(id))
    }

    /// The position of the first event after one that matches a query. Nothing is left of a removed event that could
    /// match.
    fn first_match(&self, AppendCondition { query, after, .. }: &AppendCondition) -> Option<u64> {
        let meets = |criterion: &Criterion, event: &CandidateEvent| {
            let name = event.event_type().name();
            let of_type = criterion.types.is_empty() || criterion.types.iter().any(|wanted| **wanted == *name);
            of_type && criterion.tags.iter().all(|tag| event.tags().contains(tag))
        };
        let matches = |event: &CandidateEvent| query.criteria().iter().any(|criterion| meets(criterion, event));
        let mut numbered = (1..).zip(&self.entries);
        numbered.find(|(at, entry)| *at > after.get() && !entry.removed && matches(&entry.event)).map(|(at, _)| at)
    }

    /// How many times a cell was set, and whether it exists.
    fn cell(&self, key: &CellKey) -> (u64, bool) {
        let sets = self.cells.get(key).map_or(&[][..], Vec::as_slice);
        (sets.len() as u64, sets.last().is_some_and(Option::is_some))
    }

    fn end(&self) -> (u64, i64) {
        (self.entries.len() as u64, self.entries.last().map_or(i64::MIN, |entry| entry.time))
    }

    /// What an engine does: answers the questions.
    fn facts(&self, questions: Questions<'_>, with_ids: bool) -> Facts {
        let (head, time) = self.end();
        let mut facts = Facts::new(Position::new(head), Timestamp::from_micros(time));
        let record = |key: &CommandKey| self.commands.iter().find(|record| record.command.key == *key).cloned();
        facts.command = questions.command().and_then(record);
        for question in questions.streams() {
            let mut head = StreamHead::at(Version::new(self.version(question.stream)));
            head.floor = Version::new(self.floor(question.stream));
            if self.closed.contains(question.stream) {
                head.state = StreamState::Tombstoned;
            }
            let mut known = Vec::new();
            for id in question.ids().filter(|_| with_ids) {
                let Some((position, Entry { version, time, event, removed, .. })) = self.find(question.stream, id)
                else {
                    continue;
                };
                known.push(KnownEvent {
                    id: id.clone(),
                    version: Version::new(*version),
                    position: Position::new(position),
                    time: Timestamp::from_micros(*time),
                    content: (!removed).then(|| (Arc::clone(event.event_type()), event.payload().clone())),
                });
            }
            facts.push(StreamFacts::new(head, known));
        }
        for condition in questions.conditions() {
            facts.push_condition(self.first_match(condition).map(Position::new));
        }
        for key in questions.cells() {
            facts.push_cell(match self.cell(key) {
                (0, _) => CellFacts::missing(),
                (sets, true) => CellFacts::existing(sets),
                (sets, false) => CellFacts::removed(sets),
            });
        }
        facts
    }

    /// What an engine does: writes by the plan.
    fn append(&mut self, append: &Append, now: i64, by_the_index: bool) -> Result<Appended, AppendError> {
        let questions = Questions::of(append);
        // An engine with a unique index over ids may write by this, for the index knows of no id that is in the way.
        let unknown = || {
            let new = questions.streams().all(|question| {
                let ids: Vec<_> = question.ids().collect();
                let twice = (1..ids.len()).any(|i| ids[i..].contains(&ids[i - 1]));
                !twice && ids.into_iter().all(|id| self.find(question.stream, id).is_none())
            });
            if new { judge_as_unknown(append, &self.facts(questions, false)) } else { None }
        };
        let plan = match if by_the_index { unknown() } else { None } {
            Some(plan) => plan,
            None => match judge(append, &self.facts(questions, true))? {
                Verdict::Write(plan) => plan,
                Verdict::Known { appended, remember } => {
                    assert_eq!(remember, append.command.is_some() && !self.remembers(append), "what is remembered");
                    if remember {
                        self.remember(append, &appended);
                    }
                    return Ok(appended);
                }
            },
        };
        let appended = plan.appended(append, Timestamp::from_micros(now));
        let before = self.end().0;
        let mut last = before;
        for PlannedEvent { stream, version, position, event, .. } in plan.events(append) {
            last += 1;
            assert_eq!(position, last, "positions are one contiguous block");
            let (stream, event) = (stream.clone(), event.clone());
            let time = appended.time.as_micros();
            self.entries.push(Entry { stream, version: version.get(), time, event, removed: false });
        }
        assert_eq!(plan.event_count() as u64, last - before);
        for cell in plan.cells(append) {
            let sets = self.cells.entry(cell.key.clone()).or_default();
            sets.push(cell.value.cloned());
            assert_eq!(sets.len() as u64, cell.revision, "no revision is given twice");
        }
        self.remember(append, &appended);
        Ok(appended)
    }

    fn remembers(&self, append: &Append) -> bool {
        let key = |command: &KeyedCommand| self.commands.iter().any(|record| record.command.key == command.key);
        append.command.as_ref().is_some_and(key)
    }

    fn remember(&mut self, append: &Append, appended: &Appended) {
        if let Some(command) = &append.command {
            self.commands.push(CommandRecord::new(command.clone(), appended.clone()));
        }
    }
}

/// What the contract says an append is answered.
#[derive(Debug, PartialEq)]
enum Says {
    /// For each stream: first and last version, written, known. Then position, time, and how far the clock is behind.
    /// Then the revision of each cell.
    Written(Vec<(u64, u64, usize, usize)>, u64, i64, u64, Vec<u64>),
    /// The same of the first write.
    Known(Vec<(u64, u64)>, u64, i64),
    /// Every stream that failed, then every condition that failed with the position it failed by, then every cell that
    /// was at another revision, with the expected and the actual one.
    Conflict(Vec<(String, u64)>, Vec<(AppendCondition, u64)>, Vec<(String, u64, u64)>),
    Partly(usize, usize),
    Reused(String, u64),
    Twice(String),
    Closed(String),
    OtherCommand,
}

fn same_content(a: &CandidateEvent, b: &CandidateEvent) -> bool {
    // B3: type, schema version, codec and payload. Metadata and tags are not compared.
    let of = |event: &CandidateEvent| {
        let event_type = event.event_type();
        (event_type.name().to_owned(), event_type.schema_version(), event_type.codec().to_owned())
    };
    of(a) == of(b) && a.payload() == b.payload()
}

/// Sections A, B and I, one sentence after the other.
fn contract(log: &Log, append: &Append, now: i64) -> Says {
    // A12: the same key with another fingerprint is an error; with the same one it is the first answer.
    if let Some(command) = &append.command
        && let Some(record) = log.commands.iter().find(|record| record.command.key == command.key)
    {
        if record.command.fingerprint != command.fingerprint {
            return Says::OtherCommand;
        }
        let streams = record.appended.streams.iter().map(|part| (part.first.get(), part.last.get())).collect();
        return Says::Known(streams, record.appended.position.get(), record.appended.time.as_micros());
    }
    // B2, B3, B5: what of it is known, stream by stream, event by event.
    let mut parts = Vec::new();
    for write in &append.streams {
        let (mut known, mut new): (Vec<(u64, &Entry)>, Vec<&CandidateEvent>) = (Vec::new(), Vec::new());
        for (i, event) in write.events.iter().enumerate() {
            let Some(id) = event.id() else {
                new.push(event);
                continue;
            };
            if let Some(twin) = write.events[..i].iter().find(|twin| twin.id() == Some(id)) {
                // B5. All before it are compared with the last of them, so any that differ are found.
                if !same_content(twin, event) {
                    return Says::Twice(write.stream.to_string());
                }
                continue;
            }
            match log.find(&write.stream, id) {
                // B6: of a removed event nothing is left to compare.
                Some((position, entry)) if entry.removed || same_content(&entry.event, event) => {
                    known.push((position, entry));
                }
                Some((_, entry)) => return Says::Reused(write.stream.to_string(), entry.version),
                None => new.push(event),
            }
        }
        parts.push((write, known, new));
    }
    let known: usize = parts.iter().map(|(_, known, _)| known.len()).sum();
    let new: usize = parts.iter().map(|(_, _, new)| new.len()).sum();
    // B2: all of it is known, whatever was expected, and whatever check-only streams say.
    if known > 0 && new == 0 {
        let last = parts.iter().flat_map(|(_, known, _)| known).max_by_key(|(position, _)| *position).unwrap();
        let streams = parts.iter().map(|(write, known, _)| {
            let versions = || known.iter().map(|(_, entry)| entry.version);
            let now = log.version(&write.stream);
            (versions().min().unwrap_or(now), versions().max().unwrap_or(now))
        });
        return Says::Known(streams.collect(), last.0, last.1.time);
    }
    // B4 for one stream, B2 for several: known in part.
    if known > 0 {
        let written: Vec<_> = append.streams.iter().filter(|write| !write.events.is_empty()).collect();
        let tolerant = |write: &es_framework::StreamWrite| {
            matches!(write.expected, ExpectedVersion::Any | ExpectedVersion::StreamExists)
        };
        if written.len() != 1 || !tolerant(written[0]) {
            return Says::Partly(known, new);
        }
    }
    // A stream that was closed for good is not written.
    if let Some(write) = append.streams.iter().find(|w| !w.events.is_empty() && log.closed.contains(&w.stream)) {
        return Says::Closed(write.stream.to_string());
    }
    // A2, A5: every stream that failed is listed.
    let conflicts: Vec<_> = append
        .streams
        .iter()
        .map(|write| (write, log.version(&write.stream)))
        .filter(|(write, version)| match write.expected {
            ExpectedVersion::Any => false,
            ExpectedVersion::NoStream => *version != 0,
            ExpectedVersion::StreamExists => *version == 0,
            ExpectedVersion::Exact(exact) => exact.get() != *version,
        })
        .map(|(write, version)| (write.stream.to_string(), version))
        .collect();
    // I3: so is every condition, beside the streams. I5: all that was known was answered before.
    let failed: Vec<_> = append
        .conditions
        .iter()
        .filter_map(|condition| Some((condition.clone(), log.first_match(condition)?)))
        .collect();
    // So is every cell.
    let cells: Vec<_> = append.cells.iter().map(|write| (write, log.cell(&write.key))).collect();
    let changed: Vec<_> = cells
        .iter()
        .map(|(write, (sets, exists))| (write.key.to_string(), write.expected, if *exists { *sets } else { 0 }))
        .filter(|(_, expected, actual)| expected != actual)
        .collect();
    if !conflicts.is_empty() || !failed.is_empty() || !changed.is_empty() {
        return Says::Conflict(conflicts, failed, changed);
    }
    // A1, A4, A8.
    let streams = parts.iter().map(|(write, known, new)| {
        let version = log.version(&write.stream);
        let first = if new.is_empty() { version } else { version + 1 };
        (first, version + new.len() as u64, new.len(), known.len())
    });
    let (head, time) = log.end();
    let behind = if time > now { time.abs_diff(now) } else { 0 };
    let revisions = cells.iter().map(|(_, (sets, _))| sets + 1).collect();
    Says::Written(streams.collect(), head + new as u64, now.max(time), behind, revisions)
}

fn said(answer: &Result<Appended, AppendError>) -> Says {
    match answer {
        Ok(appended) if appended.outcome == Outcome::AlreadyWritten => {
            let streams = appended.streams.iter().map(|part| (part.first.get(), part.last.get())).collect();
            assert_eq!(appended.cells, [0; 0], "nothing was set");
            Says::Known(streams, appended.position.get(), appended.time.as_micros())
        }
        Ok(Appended { streams, position, time, clock_behind, cells, .. }) => {
            let streams = streams.iter().map(|part| (part.first.get(), part.last.get(), part.written, part.known));
            let behind = u64::try_from(clock_behind.as_micros()).unwrap();
            Says::Written(streams.collect(), position.get(), time.as_micros(), behind, cells.clone())
        }
        Err(AppendError::Conflict { conflicts }) => {
            let (mut failed, mut changed) = (Vec::new(), Vec::new());
            for conflict in conflicts {
                match conflict {
                    Conflict::Condition { query, after, position } => {
                        failed.push((AppendCondition::new(query, *after), position.get()));
                    }
                    Conflict::Cell { key, expected, actual } => changed.push((key.to_string(), *expected, *actual)),
                    _ => {}
                }
            }
            let told = conflicts.iter().filter_map(Conflict::actual_version);
            Says::Conflict(told.map(|(stream, actual)| (stream.to_string(), actual.get())).collect(), failed, changed)
        }
        Err(AppendError::PartlyKnown { known, new }) => Says::Partly(*known, *new),
        Err(AppendError::IdReused { stream, version, .. }) => Says::Reused(stream.to_string(), version.get()),
        Err(AppendError::Invalid(InvalidAppend::IdTwice { stream, .. })) => Says::Twice(stream.to_string()),
        Err(AppendError::Tombstoned { stream }) => Says::Closed(stream.to_string()),
        Err(AppendError::CommandKeyReused { .. }) => Says::OtherCommand,
        Err(error) => panic!("{error}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        parts: Vec<(usize, Expect, Vec<New>)>,
        with_ids: bool,
        conditions: Vec<(Query, After)>,
        /// Which cell, how far the expected revision is from the actual one, and whether it is removed.
        cells: Vec<(u8, i8, bool)>,
        command: Option<(u8, u8)>,
        now: i64,
        index: bool,
    },
    /// The last append once more, as a caller would who has not got the answer.
    Retry,
    /// Removes the events of a stream up to a version.
    Truncate {
        stream: usize,
        upto: u64,
    },
    Close {
        stream: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Any,
    NoStream,
    Exists,
    /// The version of the stream at that time, and so much more or less.
    Near(i8),
}

#[derive(Debug, Clone, Copy)]
enum After {
    /// The head of the log at that time, and so much more or less.
    Near(i8),
    Zero,
}

#[derive(Debug, Clone)]
struct New {
    id: u8,
    content: u8,
    metadata: bool,
    tags: Vec<Tag>,
}

impl New {
    fn event(&self, with_id: bool) -> CandidateEvent {
        // Mostly the content that belongs to the id, so that retries are as frequent as mistakes.
        let content = if self.content > 1 { self.id } else { 100 + self.content };
        let id = if self.id.is_multiple_of(2) {
            EventId::text(format!("id-{}", self.id)).unwrap()
        } else {
            EventId::uuid([self.id; 16])
        };
        let metadata = es_framework::Metadata::parse(r#"{"trace":1}"#).unwrap();
        CandidateEvent::new(format!("type-{}", content % 3), vec![content])
            .unwrap()
            .with_id(with_id.then_some(id))
            .with_metadata(self.metadata.then_some(metadata))
            .with_tags(self.tags.clone())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tags = || prop_oneof![1 => Just(vec![]), 2 => subsequence(["a:1", "a:2", "b:1"].to_vec(), 0..=3)];
    let tags = || tags().prop_map(|tags| tags.into_iter().map(|tag| Tag::new(tag).unwrap()).collect::<Vec<_>>());
    let new = (0..8_u8, 0..12_u8, any::<bool>(), tags());
    let new = new.prop_map(|(id, content, metadata, tags)| New { id, content, metadata, tags });
    let types = subsequence(["type-0", "type-1", "type-2", "type-3"].to_vec(), 0..3);
    let criterion = (types, tags()).prop_map(|(types, tags)| Criterion::types(types).all_of(tags));
    let after = prop_oneof![3 => (-4..2_i8).prop_map(After::Near), 1 => Just(After::Zero)];
    let condition = (vec(criterion, 0..3).prop_map(Query::from_iter), after);
    let conditions = prop_oneof![3 => Just(vec![]), 2 => vec(condition.clone(), 1), 1 => vec(condition, 2..4)];
    let expect = prop_oneof![
        4 => Just(Expect::Any),
        1 => Just(Expect::NoStream),
        1 => Just(Expect::Exists),
        4 => Just(Expect::Near(0)),
        1 => (-2..3_i8).prop_map(Expect::Near),
    ];
    let part = (0..STREAMS.len(), expect, vec(new, 0..4));
    let parts =
        prop_oneof![1 => Just(vec![]), 12 => vec(part.clone(), 1), 6 => vec(part, 2..4)].prop_map(|mut parts| {
            parts.sort_by_key(|(stream, _, _)| *stream);
            parts.dedup_by_key(|(stream, _, _)| *stream);
            parts
        });
    let command = proptest::option::weighted(0.2, (0..4_u8, prop_oneof![5 => Just(0_u8), 1 => Just(1_u8)]));
    let cell = (0..3_u8, prop_oneof![6 => Just(0_i8), 1 => -2..3_i8], proptest::bool::weighted(0.3));
    let cells =
        prop_oneof![3 => Just(vec![]), 2 => vec(cell.clone(), 1), 1 => vec(cell, 2..4)].prop_map(|mut cells| {
            cells.sort_by_key(|(key, _, _)| *key);
            cells.dedup_by_key(|(key, _, _)| *key);
            cells
        });
    let append = (parts, any::<bool>(), conditions, cells, command, 0..50_i64, any::<bool>());
    let step = prop_oneof![
        12 => append.prop_map(|(parts, with_ids, conditions, cells, command, now, index)| {
            Step::Append { parts, with_ids, conditions, cells, command, now, index }
        }),
        4 => Just(Step::Retry),
        1 => (0..STREAMS.len(), 0..6_u64).prop_map(|(stream, upto)| Step::Truncate { stream, upto }),
        1 => (0..2 * STREAMS.len()).prop_map(|stream| Step::Close { stream }),
    ];
    vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is appended, in whatever order: the judge says what the contract says.
    #[test]
    fn the_judge_says_what_the_contract_says(steps in steps()) {
        let mut log = Log::default();
        let mut last: Option<Append> = None;
        for step in steps {
            let (append, now, index) = match step {
                Step::Append { parts, with_ids, conditions, cells, command, now, index } => {
                    let mut append = Append::default();
                    for (key, by, removed) in cells {
                        let key = CellKey::new(format!("cell-{key}")).unwrap();
                        let (sets, exists) = log.cell(&key);
                        let expected = if exists { sets } else { 0 }.saturating_add_signed(by.into());
                        append = append.set_cell(key, expected, (!removed).then(|| Bytes::from_static(b"x")));
                    }
                    for (query, after) in conditions {
                        let after = match after {
                            After::Near(by) => log.end().0.saturating_add_signed(by.into()),
                            After::Zero => 0,
                        };
                        append = append.unless(query, Position::new(after));
                    }
                    for (stream, expect, events) in parts {
                        let stream = StreamId::new(STREAMS[stream]).unwrap();
                        let expected = match expect {
                            Expect::Any => ExpectedVersion::Any,
                            Expect::NoStream => ExpectedVersion::NoStream,
                            Expect::Exists => ExpectedVersion::StreamExists,
                            Expect::Near(by) => {
                                ExpectedVersion::Exact(Version::new(log.version(&stream).saturating_add_signed(by.into())))
                            }
                        };
                        let events: Vec<_> = events.iter().map(|new| new.event(with_ids)).collect();
                        append = append.and(stream, expected, events);
                    }
                    if let Some((key, fingerprint)) = command {
                        let key = CommandKey::new(format!("key-{key}")).unwrap();
                        append = append.command(KeyedCommand::new(key, Fingerprint::of(&[fingerprint])));
                    }
                    (append, now, index)
                }
                Step::Retry => match &last {
                    Some(append) => (append.clone(), 0, false),
                    None => continue,
                },
                Step::Truncate { stream, upto } => {
                    for entry in log.entries.iter_mut().filter(|entry| entry.stream == *STREAMS[stream]) {
                        entry.removed |= entry.version <= upto;
                    }
                    continue;
                }
                Step::Close { stream } => {
                    log.closed.extend(STREAMS.get(stream).map(|stream| StreamId::new(*stream).unwrap()));
                    continue;
                }
            };
            let expected = contract(&log, &append, now);
            let answer = log.append(&append, now, index);
            prop_assert_eq!(said(&answer), expected, "{:?}", append);
            // A12: also what was known is remembered under a new key, and also where no event was written.
            if answer.is_ok() {
                prop_assert_eq!(log.remembers(&append), append.command.is_some());
            }
            last = Some(append);
        }
    }
}

/// An engine that leaves out a stream would have it written without a look at its expectation.
#[test]
fn an_answer_that_is_missing_is_an_error() {
    let event = || CandidateEvent::new("happened", "x").unwrap();
    let [a, b] = ["a", "b"].map(|stream| StreamId::new(stream).unwrap());
    let append = Append::to(a, ExpectedVersion::Any, event()).and(b, ExpectedVersion::NoStream, event());
    let mut facts = Facts::new(Position::ZERO, Timestamp::from_micros(i64::MIN));
    for enough in [false, false, true, false] {
        assert_eq!(judge(&append, &facts).is_ok(), enough);
        assert_eq!(judge_as_unknown(&append, &facts).is_some(), enough);
        facts.push(StreamHead::default());
    }
}

/// An engine that leaves out a condition, or finds an event where the condition does not look, has a bug.
#[test]
fn an_answer_about_a_condition_that_cannot_be_true_is_an_error() {
    let append = Append::default().unless(Query::all(), Position::new(5)).unless(Query::new(), Position::ZERO);
    let judged = |answers: &[Option<u64>]| {
        let mut facts = Facts::new(Position::new(7), Timestamp::from_micros(0));
        for answer in answers {
            facts.push_condition(answer.map(Position::new));
        }
        assert!(judge_as_unknown(&append, &facts).is_none() || answers == [None, None]);
        judge(&append, &facts).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(judged(&[]), Err(ErrorKind::Internal));
    assert_eq!(judged(&[None]), Err(ErrorKind::Internal));
    assert_eq!(judged(&[None, None]), Ok(()));
    assert_eq!(judged(&[None, None, None]), Err(ErrorKind::Internal));
    assert_eq!(judged(&[Some(5), None]), Err(ErrorKind::Internal));
    assert_eq!(judged(&[Some(8), None]), Err(ErrorKind::Internal));
    assert_eq!(judged(&[Some(7), None]), Err(ErrorKind::Conflict));
}

/// An engine that leaves out a cell would set it without a look at its revision.
#[test]
fn an_answer_about_a_cell_that_is_missing_is_an_error() {
    let key = |name: &str| CellKey::new(name).unwrap();
    let append = Append::default().set_cell(key("a"), 0, None).set_cell(key("b"), 7, None);
    let mut facts = Facts::new(Position::ZERO, Timestamp::from_micros(0));
    for (cell, enough) in
        [(CellFacts::removed(3), false), (CellFacts::existing(7), false), (CellFacts::missing(), true)]
    {
        assert_eq!(judge(&append, &facts).is_ok(), enough);
        assert_eq!(judge_as_unknown(&append, &facts).is_some(), enough);
        facts.push_cell(cell);
    }
    assert!(judge(&append, &facts).is_err(), "an answer too many");
}

/// A stream that was closed for good still knows its events, and can be checked without being written.
#[test]
fn a_tombstoned_stream_is_known_and_checked_but_not_written() {
    let stream = StreamId::new("a").unwrap();
    let mut head = StreamHead::at(Version::new(3));
    (head.floor, head.state) = (Version::new(3), StreamState::Tombstoned);
    let facts = |known| {
        let mut facts = Facts::new(Position::new(9), Timestamp::from_micros(5));
        facts.push(StreamFacts::new(head, known));
        facts
    };
    let id = EventId::text("1").unwrap();
    let event = CandidateEvent::new("happened", "x").unwrap().with_id(id.clone());
    let (version, position, time) = (Version::new(2), Position::new(4), Timestamp::from_micros(3));
    let known = KnownEvent { id, version, position, time, content: None };
    let append = Append::to(stream.clone(), ExpectedVersion::Any, event);
    assert!(matches!(judge(&append, &facts(vec![known])), Ok(Verdict::Known { .. })));
    let refused = judge(&append, &facts(vec![])).unwrap_err();
    assert!(matches!(&refused, AppendError::Tombstoned { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Caller);
    assert!(judge_as_unknown(&append, &facts(vec![])).is_none());
    let check = Append::default().check(stream, ExpectedVersion::Exact(Version::new(3)));
    assert!(matches!(judge(&check, &facts(vec![])), Ok(Verdict::Write(_))));
}
