//! W14: reads by query, and the store they read.

use std::hint::black_box;
use std::time::{Duration, Instant};

use es_framework::{CandidateEvent, Criterion, ExpectedVersion, Filter, Query, Tag};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::{self, COLUMNS, connect};
use crate::measure::{Dice, Latency};
use crate::spec::{Outcome, Side, Spec};

/// How many events have each `course:` tag.
const OF_A_COURSE: u64 = 100;
/// How many events have the tag `ten:1`; all of them have `half:1` too, as every other event has.
const TEN: u64 = 10;
/// For how long reads are repeated, and how often at most.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
const MOST: usize = 3_000;

/// Writes events with tags, in appends of 1,000: the events of a course are spread over the whole log.
pub(super) async fn fill(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let begun = Instant::now();
    let (half, ten, event_type) = (Tag::of("half", 1)?, Tag::of("ten", 1)?, event_type()?);
    for first in (0..spec.events).step_by(usize::try_from(spec.per_append)?) {
        let mut events = Vec::with_capacity(usize::try_from(spec.per_append)?);
        for n in first..spec.events.min(first + spec.per_append) {
            let mut tags = vec![Tag::of("course", n % courses(spec))?];
            if n.is_multiple_of(2) {
                tags.push(half.clone());
            }
            if n % (spec.events / TEN) == 6 {
                tags.push(ten.clone());
            }
            events.push(
                CandidateEvent::of_type(std::sync::Arc::clone(&event_type), payload(n, spec.payload)).with_tags(tags),
            );
        }
        let stream = format!("account-{}", first / spec.per_append % 100);
        store.open_stream(stream)?.write(events, ExpectedVersion::Any).await?;
    }
    store.close().await?;
    Ok(Outcome::of(spec.events, begun.elapsed().as_secs_f64()))
}

fn courses(spec: &Spec) -> u64 {
    (spec.events / OF_A_COURSE).max(1)
}

pub(super) async fn run(spec: &Spec, skewed: bool) -> Result<Outcome> {
    match spec.side {
        Side::Engine => engine(spec, skewed).await,
        Side::Floor => floor(spec, skewed).await,
    }
}

async fn engine(spec: &Spec, skewed: bool) -> Result<Outcome> {
    let store = open(spec).await?;
    let mut dice = Dice::new(7);
    let (half, ten) = (Tag::of("half", 1)?, Tag::of("ten", 1)?);
    let (mut events, mut taken) = (0, Vec::new());
    let expected = if skewed { TEN } else { OF_A_COURSE };
    let mut begun = Instant::now();
    // The first ones open connections.
    for warm_up in (0..50).map(|_| true).chain(std::iter::repeat_n(false, MOST)) {
        let query: Query = if skewed {
            Criterion::tags([&half, &ten]).into()
        } else {
            Criterion::tags([Tag::of("course", dice.below(courses(spec)))?]).into()
        };
        let asked = Instant::now();
        let found = black_box(store.all().read().filter(Filter::new().query(query)).collect().await?);
        if found.len() as u64 != expected {
            return Err(format!("found {} events instead of {expected}", found.len()).into());
        }
        if warm_up {
            begun = Instant::now();
            continue;
        }
        taken.push(asked.elapsed());
        events += expected;
        if begun.elapsed() > LONG_ENOUGH {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    store.close().await?;
    Ok(Outcome::of(events, seconds).with_latency(Latency::of(taken)))
}

async fn floor(spec: &Spec, skewed: bool) -> Result<Outcome> {
    let connection = connect(&path(spec), spec.mode).await?;
    let columns = COLUMNS.replace(", ", ", e.").replacen("position", "e.position", 1);
    let both = if skewed {
        " AND EXISTS (SELECT 1 FROM es_posting o WHERE o.position = p.position AND o.term = (SELECT id FROM es_tag
         WHERE name = 'half:1'))"
    } else {
        ""
    };
    let sql = format!(
        "SELECT {columns}, e.tags FROM es_posting p CROSS JOIN es_event e ON e.position = p.position
         WHERE p.term = (SELECT id FROM es_tag WHERE name = ?1){both} ORDER BY p.position"
    );
    let mut dice = Dice::new(7);
    let (mut events, mut taken) = (0, Vec::new());
    let mut begun = Instant::now();
    for warm_up in (0..50).map(|_| true).chain(std::iter::repeat_n(false, MOST)) {
        let tag = if skewed { "ten:1".to_owned() } else { format!("course:{}", dice.below(courses(spec))) };
        let asked = Instant::now();
        let found = black_box(floor::scan(&connection, &sql, [tag])?).0;
        if warm_up {
            begun = Instant::now();
            continue;
        }
        taken.push(asked.elapsed());
        events += found;
        if begun.elapsed() > LONG_ENOUGH {
            break;
        }
    }
    Ok(Outcome::of(events, begun.elapsed().as_secs_f64()).with_latency(Latency::of(taken)))
}
