//! Queries and conditions against a naive evaluation of the same events.

use std::collections::BTreeSet;

use es_framework::{
    Append, AppendError, CandidateEvent, Conflict, Criterion, ExpectedVersion, Filter, Position, Query, Store,
    StoredEvent, Tag,
};
use es_sqlite::{Durability, SqliteStore};

use crate::support::{all, delete, folder, id};
use crate::tags::{query, tag, with_tags};

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// xorshift64: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A tag that half of all events have, one of fifty, one of a few, or one that no event has.
    fn tag(&mut self) -> Tag {
        match self.below(10) {
            0 => tag("half:1"),
            1..=6 => Tag::of("n", self.below(50)).unwrap(),
            7 => tag("rare:1"),
            8 => Tag::of("few", self.below(5)).unwrap(),
            _ => tag("none:1"),
        }
    }

    fn event(&mut self, n: u64) -> CandidateEvent {
        let mut tags = BTreeSet::new();
        if self.one_in(2) {
            tags.insert(tag("half:1"));
        }
        if n.is_multiple_of(331) {
            tags.insert(tag("rare:1"));
        }
        for _ in 0..self.below(3) {
            tags.insert(Tag::of("n", self.below(50)).unwrap());
        }
        if self.one_in(40) {
            tags.insert(Tag::of("few", self.below(5)).unwrap());
        }
        CandidateEvent::new(["opened", "moved", "closed"][size(n) % 3], n.to_string()).unwrap().with_tags(tags)
    }

    fn criterion(&mut self) -> Criterion {
        let types: &[&str] = match self.below(5) {
            0 => &["opened"],
            1 => &["moved", "closed", "unheard-of"],
            _ => &[],
        };
        let tags = match self.below(8) {
            0 => 0,
            1..=4 => 1,
            5 | 6 => 2,
            _ => 3,
        };
        Criterion::types(types.iter().copied()).and_tags((0..tags).map(|_| self.tag()).collect())
    }

    fn query(&mut self) -> Query {
        (0..=self.below(3)).map(|_| self.criterion()).collect()
    }
}

trait AndTags {
    fn and_tags(self, tags: Vec<Tag>) -> Self;
}

impl AndTags for Criterion {
    fn and_tags(self, tags: Vec<Tag>) -> Self {
        tags.iter().fold(self, Self::tag)
    }
}

async fn open(path: &std::path::Path) -> SqliteStore {
    SqliteStore::builder().durability(Durability::Normal).open(path).await.unwrap()
}

async fn fill(store: &Store, dice: &mut Dice, events: u64) {
    for n in 0..events / 50 {
        let batch: Vec<_> = (0..50).map(|m| dice.event(n * 50 + m)).collect();
        store.stream(id(&format!("s-{}", n % 7))).write(batch, ExpectedVersion::Any).await.unwrap();
    }
}

/// Reads by 600 random queries, in either direction and with pages of any size, from a log with and without gaps.
#[tokio::test]
async fn a_read_by_query_returns_exactly_what_matches() {
    for gaps in [false, true] {
        let (_folder, path) = folder();
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
        let mut store = open(&path).await;
        fill(&store, &mut dice, 4_000).await;
        if gaps {
            store.close().await.unwrap();
            delete(&path, "position BETWEEN 300 AND 420 OR position % 97 = 5 OR position = 1");
            store = open(&path).await;
        }
        let events = all(&store).await;
        assert_eq!(events.len() < 4_000, gaps);
        let (mut found, mut empty) = (0, 0);
        for _ in 0..300 {
            let query = dice.query();
            let (after, before) = (dice.below(4_200), dice.below(4_200));
            let (after, before) = if dice.one_in(3) { (0, 5_000) } else { (after.min(before), after.max(before)) };
            let mut filter = Filter::new().query(query.clone());
            if dice.one_in(4) {
                filter = filter.types(["opened", "closed"]);
            }
            if dice.one_in(4) {
                filter = filter.query(dice.query());
            }
            if dice.one_in(5) {
                filter = filter.stream(id("s-3"));
            }
            let expected: Vec<&StoredEvent> = events
                .iter()
                .filter(|event| event.position.get() > after && event.position.get() < before)
                .filter(|event| filter.matches(&event.header()))
                .collect();
            let read = store
                .all()
                .read()
                .after(Position::new(after))
                .before(Position::new(before))
                .filter(filter.clone())
                .page(1 + size(dice.below(40)), 1 + size(dice.below(4_000)));
            let forward = read.clone().collect().await.unwrap();
            assert_eq!(forward.iter().collect::<Vec<_>>(), expected, "{query} in {after}..{before}");
            let backward = read.clone().backward().collect().await.unwrap();
            assert_eq!(backward.iter().rev().collect::<Vec<_>>(), expected, "{query} in {after}..{before}, backward");
            assert_eq!(read.count().await.unwrap(), expected.len() as u64, "{query} in {after}..{before}, counted");
            if !gaps {
                let there = store.stream(id("s-2")).read().filter(filter.clone()).collect().await.unwrap();
                let expected: Vec<&StoredEvent> = events
                    .iter()
                    .filter(|event| event.stream == id("s-2") && filter.matches(&event.header()))
                    .collect();
                assert_eq!(there.iter().collect::<Vec<_>>(), expected, "{query} in a stream");
            }
            found += expected.len();
            empty += usize::from(expected.is_empty());
        }
        assert!(found > 5_000 && empty < 200, "{found} {empty}");
        store.close().await.unwrap();
    }
}

/// 3,000 appends under random conditions by two handles, whose writers remember what the other one changes.
#[tokio::test]
async fn a_condition_fails_at_the_first_match_and_only_then() {
    let (_folder, path) = folder();
    let stores = [open(&path).await, open(&path).await];
    let mut dice = Dice(0x2545_F491_4F6C_DD1D);
    let mut events: Vec<(String, Vec<Tag>)> = Vec::new();
    let (mut written, mut failed) = (0, 0);
    for n in 0..3_000 {
        let store = &stores[size(dice.below(10).min(1))];
        let head = events.len() as u64;
        let conditions: Vec<(Query, u64)> = (0..dice.below(3))
            .map(|_| {
                let back = if dice.one_in(10) { head } else { dice.below(30) };
                (dice.query(), (head + 2).saturating_sub(back))
            })
            .collect();
        let batch: Vec<CandidateEvent> = (0..dice.below(3)).map(|m| dice.event(n * 3 + m)).collect();
        let first_match = |(query, after): &(Query, u64)| {
            let after = usize::try_from(*after).unwrap();
            let mut later = (1..).zip(&events).skip(after);
            later.find(|(_, (name, tags))| query.selects(name, tags)).map(|(position, _)| position)
        };
        let expected: Vec<u64> = conditions.iter().filter_map(first_match).collect();
        let mut append = Append::to(id(&format!("s-{}", n % 7)), ExpectedVersion::Any, batch.clone());
        for (query, after) in &conditions {
            append = append.unless(query, Position::new(*after));
        }
        match store.append(append).await {
            Ok(_) => {
                assert_eq!(expected, [0; 0], "{n}: {conditions:?}");
                events.extend(batch.iter().map(|event| (event.event_type().name().to_owned(), event.tags().to_vec())));
                written += 1;
            }
            Err(AppendError::Conflict { conflicts }) => {
                let found: Vec<u64> = conflicts
                    .iter()
                    .map(|conflict| match conflict {
                        Conflict::Condition { position, .. } => position.get(),
                        other => panic!("{other}"),
                    })
                    .collect();
                assert_eq!(found, expected, "{n}: {conditions:?}");
                failed += 1;
            }
            Err(error) => panic!("{n}: {error:?}"),
        }
    }
    assert!(written > 1_000 && failed > 500, "{written} {failed}");
    for store in stores {
        assert_eq!(all(&store).await.len(), events.len());
        store.close().await.unwrap();
    }
}

/// The writer remembers 131,072 tags at most. 140,000 others are written, and then the first ones are asked for.
#[tokio::test]
async fn a_tag_that_was_forgotten_is_looked_up() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let at = |n: u64| Tag::of("t", n).unwrap();
    let mut n = 0;
    while n < 140_000 {
        let event = |first: u64| CandidateEvent::new("tested", "x").unwrap().with_tags((first..first + 28).map(at));
        let batch: Vec<_> = (0..1_000).map(|m| event(n + m * 28)).collect();
        store.stream(id("s-1")).write(batch, ExpectedVersion::Any).await.unwrap();
        n += 28_000;
    }
    for n in [0, 1, 139_999, 70_000, 28] {
        let position = Position::new(n / 28 + 1);
        let before = Position::new(n / 28);
        let query: Query = Criterion::tags([at(n)]).into();
        let refused = store.append(Append::default().unless(&query, before)).await.unwrap_err();
        let AppendError::Conflict { conflicts } = refused else { panic!("{refused:?}") };
        assert!(
            matches!(&conflicts[..], [Conflict::Condition { position: at, .. }] if *at == position),
            "{conflicts:?}"
        );
        store.append(Append::default().unless(query, position)).await.unwrap();
    }
    let again = CandidateEvent::new("tested", "y").unwrap().with_tags([at(28), at(28 * 2)]);
    store.stream(id("s-1")).write(again, ExpectedVersion::Any).await.unwrap();
    let found = query(&store, with_tags(&["t:28"])).await.unwrap();
    assert_eq!(found.iter().map(|event| event.position.get()).collect::<Vec<_>>(), [2, 5_001]);
    store.close().await.unwrap();
}

/// Callers that arrive together are written in one transaction, partly before their rows are inserted. Of each name one
/// gets through, whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_want_the_same_name_one_gets_it() {
    let (_folder, path) = folder();
    let stores = [open(&path).await, open(&path).await];
    for name in 0..20 {
        let callers = (0..40).map(|n| {
            let store = stores[n % 10 / 9].clone();
            tokio::spawn(async move {
                let tag = Tag::of("name", name).unwrap();
                let event = CandidateEvent::new("registered", "x").unwrap().with_tags([tag.clone()]);
                let append = Append::to(id(&format!("user-{n}")), ExpectedVersion::Any, event);
                match store.append(append.unless(Criterion::tags([tag]), Position::ZERO)).await {
                    Ok(_) => true,
                    Err(AppendError::Conflict { .. }) => false,
                    Err(error) => panic!("{error:?}"),
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        let mut registered = 0;
        for caller in callers {
            registered += u32::from(caller.await.unwrap());
        }
        assert_eq!(registered, 1, "name {name}");
    }
    assert_eq!(all(&stores[0]).await.len(), 20);
    for store in stores {
        store.close().await.unwrap();
    }
}
