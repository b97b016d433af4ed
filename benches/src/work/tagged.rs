//! W12 and W13: appends on a condition. Each caller has a stream of its own; its events have one tag, and it appends on
//! the condition that no event with that tag came since it last looked.

use std::sync::Arc;
use std::time::Instant;

use es_framework::engine::checksum;
use es_framework::{
    Append, AppendError, CandidateEvent, Criterion, EventType, ExpectedVersion, Filter, Position, Query, Store,
    StreamId, SystemClock, Tag, Version,
};
use es_sqlite::rusqlite::types::Null;
use es_sqlite::rusqlite::{Connection, Statement};

use super::{event_type, open, path, payload};
use crate::Result;
use crate::floor::{TYPE, connect};
use crate::measure::{Dice, Latency, figure};
use crate::spec::{Outcome, Side, Spec};

/// How many tags the callers of W13 share.
const HOT_TAGS: u64 = 10;

pub(super) async fn run(spec: &Spec, hot: bool) -> Result<Outcome> {
    let tags = if hot { HOT_TAGS } else { spec.callers };
    let tags = (0..tags).map(|n| Tag::of("account", n)).collect::<std::result::Result<Vec<_>, _>>()?;
    let store = open(spec).await?;
    let mut begin = Append::default();
    for caller in 0..spec.callers {
        let tag = tag_of(&tags, caller)?;
        let event = CandidateEvent::of_type(event_type()?, payload(0, spec.payload)).with_tags([tag.clone()]);
        begin = begin.and(stream(caller)?, ExpectedVersion::NoStream, event);
    }
    let begun = store.append(begin).await?.position;
    match spec.side {
        Side::Engine => engine(spec, store.clone().into(), &tags, begun).await,
        Side::Floor => {
            store.close().await?;
            floor(spec, &tags).await
        }
    }
}

fn stream(caller: u64) -> Result<StreamId> {
    Ok(StreamId::new(format!("account-{caller}"))?)
}

fn tag_of(tags: &[Tag], n: u64) -> Result<&Tag> {
    Ok(tags.get(usize::try_from(n % tags.len() as u64)?).ok_or("no such tag")?)
}

async fn engine(spec: &Spec, store: Store, tags: &[Tag], begun: Position) -> Result<Outcome> {
    let event_type = event_type()?;
    let each = spec.events / spec.callers;
    let started = Instant::now();
    let callers = (0..spec.callers).map(|caller| {
        let (event_type, spec, store, tags) = (Arc::clone(&event_type), spec.clone(), store.clone(), tags.to_vec());
        tokio::spawn(async move {
            let mut dice = Dice::new(caller + 1);
            let mut seen = vec![begun; tags.len()];
            let stream = stream(caller)?;
            let mut taken = Vec::with_capacity(usize::try_from(each)?);
            let mut conflicts = 0_u64;
            for n in 0..each {
                let appended = Instant::now();
                let choice = if tags.len() as u64 == spec.callers { caller } else { dice.below(tags.len() as u64) };
                let tag = tag_of(&tags, choice)?;
                let after = seen.get_mut(usize::try_from(choice)?).ok_or("no such tag")?;
                let query = Query::from(Criterion::tags([tag]));
                loop {
                    let event = CandidateEvent::of_type(Arc::clone(&event_type), payload(n, spec.payload));
                    let append = Append::to(stream.clone(), ExpectedVersion::Any, event.with_tags([tag.clone()]));
                    match store.append(append.unless(&query, *after)).await {
                        Ok(appended) => {
                            *after = appended.position;
                            break;
                        }
                        Err(AppendError::Conflict { .. }) => conflicts += 1,
                        Err(error) => return Err(error.into()),
                    }
                    // What a decision does: fold what is new, and decide again.
                    let new = store.all().read().after(*after).filter(Filter::new().query(&query)).collect().await?;
                    *after = new.last().map_or(*after, |event| event.position);
                }
                taken.push(appended.elapsed());
            }
            Result::Ok((taken, conflicts))
        })
    });
    let callers: Vec<_> = callers.collect();
    let (mut taken, mut conflicts) = (Vec::new(), 0);
    for caller in callers {
        let (of_one, failed) = caller.await??;
        taken.extend(of_one);
        conflicts += failed;
    }
    let seconds = started.elapsed().as_secs_f64();
    store.close().await?;
    let events = each * spec.callers;
    let outcome = Outcome::of(events, seconds).with_latency(Latency::of(taken));
    Ok(outcome.with_fact("conflicts_per_append", figure(conflicts) / figure(events)))
}

/// What the floor knows of a stream, and of a tag: its number, and its last version, or last position and their number.
struct Place {
    number: i64,
    last: i64,
    count: i64,
}

/// Writes the same rows and postings, and checks the same conditions, with as many appends a commit as callers wait.
async fn floor(spec: &Spec, tags: &[Tag]) -> Result<Outcome> {
    let connection = connect(&path(spec), spec.mode).await?;
    let event_type = EventType::new(TYPE, 1, "raw")?;
    let one = |sql: &str, parameter: &str| connection.query_row(sql, [parameter], |row| row.get::<_, i64>(0));
    let mut streams = Vec::new();
    for caller in 0..spec.callers {
        let id = stream(caller)?;
        let number = one("SELECT id FROM es_stream WHERE name = ?1", id.as_str())?;
        streams.push((id, Place { number, last: 1, count: 1 }));
    }
    let mut known = Vec::new();
    for tag in tags {
        let number = one("SELECT id FROM es_tag WHERE name = ?1", tag.as_str())?;
        let end = "SELECT max(position), count(*) FROM es_posting WHERE term = ?1";
        let (last, count) = connection.query_row(end, [number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        known.push(Place { number, last, count });
    }
    let mut position: i64 = connection.query_row("SELECT max(position) FROM es_event", [], |row| row.get(0))?;
    let mut blocks = 1;
    let (rounds, mut dice) = (spec.events / spec.callers, Dice::new(1));
    let mut taken = Vec::with_capacity(usize::try_from(rounds)?);
    let begun = Instant::now();
    for n in 0..rounds {
        let appended = Instant::now();
        let payload = payload(n, spec.payload);
        let time = es_framework::Clock::now(&SystemClock);
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let (mut rows, mut postings) = (Vec::new(), Vec::new());
        for (caller, (id, place)) in (0..).zip(&mut streams) {
            let choice = if tags.len() as u64 == spec.callers { caller } else { dice.below(tags.len() as u64) };
            let tag = tag_of(tags, choice)?;
            let end = known.get_mut(usize::try_from(choice)?).ok_or("no such tag")?;
            let newer = "SELECT 1 FROM es_posting WHERE term = ?1 AND position > ?2 LIMIT 1";
            if connection.prepare_cached(newer)?.exists((end.number, end.last))? {
                return Err("nobody else writes".into());
            }
            position += 1;
            place.last += 1;
            (end.last, end.count) = (position, end.count + 1);
            if position >> 10 >= blocks {
                blocks += 1;
                postings.push([-1, position, blocks]);
            }
            postings.push([end.number, position, end.count]);
            let (at, version) = (Position::new(position.unsigned_abs()), Version::new(place.last.unsigned_abs()));
            let tags = std::slice::from_ref(tag);
            let sum = checksum(at, id, version, time, &event_type, None, None, tags, &payload).cast_signed();
            rows.push([position, place.number, place.last, 1, time.as_micros(), sum.into(), end.number]);
        }
        insert(&connection, EVENTS, spec.rows, &rows, |[head @ .., tag], statement, first| {
            for (value, n) in head.iter().zip(first..) {
                statement.raw_bind_parameter(n, value)?;
            }
            statement.raw_bind_parameter(first + 6, Null)?;
            statement.raw_bind_parameter(first + 7, Null)?;
            statement.raw_bind_parameter(first + 8, &payload)?;
            statement.raw_bind_parameter(first + 9, tag)
        })?;
        postings.sort_unstable();
        insert(&connection, POSTINGS, spec.rows, &postings, |posting, statement, first| {
            posting.iter().zip(first..).try_for_each(|(value, n)| statement.raw_bind_parameter(n, value))
        })?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        taken.push(appended.elapsed());
    }
    Ok(Outcome::of(rounds * spec.callers, begun.elapsed().as_secs_f64()).with_latency(Latency::of(taken)))
}

/// A table, and the number of its columns.
const EVENTS: (&str, usize) = ("es_event", 10);
const POSTINGS: (&str, usize) = ("es_posting", 3);

fn insert<T>(
    connection: &Connection,
    (table, width): (&str, usize),
    at_once: usize,
    rows: &[T],
    bind: impl Fn(&T, &mut Statement<'_>, usize) -> es_sqlite::rusqlite::Result<()>,
) -> Result<()> {
    let (whole, rest) = rows.split_at(rows.len() - rows.len() % at_once);
    for (rows, at_once) in [(whole, at_once), (rest, 1)] {
        let row = format!("({})", vec!["?"; width].join(", "));
        let sql = format!("INSERT INTO {table} VALUES {}", vec![row; at_once].join(", "));
        let mut statement = connection.prepare_cached(&sql)?;
        for chunk in rows.chunks_exact(at_once) {
            for (row, first) in chunk.iter().zip((1..).step_by(width)) {
                bind(row, &mut statement, first)?;
            }
            statement.raw_execute()?;
        }
    }
    Ok(())
}
