//! One reading of the log for several runs: a task reads each stretch once and hands it to all of them.
//!
//! A run that cannot keep up, or that must begin again, leaves the pass and reads for itself from then on. An error of
//! the log ends the pass for all: each then reads for itself, and meets the error if it concerns it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{Instrument, debug};

use super::timer::Timer;
use crate::log::{Clause, Filter, Position, Store, StoreId, StoredEvent, Stretch};

/// How many stretches a run may be behind the one that is read.
const AHEAD: usize = 4;

/// How long the others wait for a run that does not take its next stretch.
const WAITS: Duration = Duration::from_secs(3);

/// Admits one run to a pass, which begins once every ticket was used or dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    store: StoreId,
    joins: mpsc::UnboundedSender<Member>,
}

/// The reader's end of a run that has joined.
#[derive(Debug)]
struct Member {
    /// The position of its checkpoint.
    after: u64,
    wanted: Filter,
    stretches: mpsc::Sender<Arc<Stretch>>,
}

/// A run's end of a pass.
#[derive(Debug)]
pub(super) struct Seat {
    /// Everything at or below it is not for this run.
    after: u64,
    wanted: Filter,
    stretches: mpsc::Receiver<Arc<Stretch>>,
}

/// So many tickets for one reading of a store's log. Without a runtime there is none, and nobody can start either.
pub(crate) fn tickets(store: &Store, count: usize) -> Vec<Ticket> {
    let (joins, joined) = mpsc::unbounded_channel();
    let tickets = (0..count).map(|_| Ticket { store: store.id(), joins: joins.clone() }).collect();
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(read_for_all(store.clone(), joined).instrument(tracing::info_span!("pass")));
    }
    tickets
}

impl Ticket {
    /// Joins the pass as a run that has got this far; [`None`] if the pass reads another log, or is over.
    pub(super) fn join(self, store: &Store, after: u64, wanted: &Filter) -> Option<Seat> {
        if self.store != store.id() {
            return None;
        }
        let (stretches, taken) = mpsc::channel(AHEAD);
        self.joins.send(Member { after, wanted: wanted.clone(), stretches }).ok()?;
        Some(Seat { after, wanted: wanted.clone(), stretches: taken })
    }
}

impl Seat {
    /// The next stretch, with what is for this run; [`None`] if the pass is over for it. Nothing is lost when the future
    /// is dropped.
    pub(super) async fn next(&mut self) -> Option<Stretch> {
        loop {
            let shared = self.stretches.recv().await?;
            // One that ends the log says so, even if this run has been there before.
            if shared.upto <= self.after && !shared.caught_up {
                continue;
            }
            let is_ours =
                |event: &&StoredEvent| event.position.get() > self.after && self.wanted.matches(&event.header());
            return Some(Stretch {
                events: shared.events.iter().filter(is_ours).cloned().collect(),
                upto: shared.upto.max(self.after),
                mark: shared.mark,
                caught_up: shared.caught_up,
            });
        }
    }
}

/// Reads the log, from the least of the positions, until nobody listens or it cannot go on.
async fn read_for_all(store: Store, mut joined: mpsc::UnboundedReceiver<Member>) {
    let mut members = Vec::new();
    while let Some(member) = joined.recv().await {
        members.push(member);
    }
    let Some(after) = members.iter().map(|member| member.after).min() else { return };
    let wanted = wanted_by_any(&members);
    let watch = store.all().watch().after(Position::new(after)).filter(wanted).await;
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => {
            debug!(%error, "a pass over the log cannot begin");
            return;
        }
    };
    debug!(after, members = members.len(), "a pass over the log begins");
    while !members.is_empty() {
        let next = tokio::select! {
            biased;
            () = anyone_leaves(&members) => {
                members.retain(|member| !member.stretches.is_closed());
                continue;
            }
            next = watch.next_stretch() => next,
        };
        let stretch = match next {
            Some(Ok(stretch)) => Arc::new(stretch),
            Some(Err(error)) => {
                debug!(%error, "a pass over the log ends");
                return;
            }
            None => return,
        };
        members = hand_out(&stretch, members).await;
    }
}

/// Hands a stretch to all, and returns those that have taken it. One that is busy does not keep the others from theirs,
/// only from the one after it.
async fn hand_out(stretch: &Arc<Stretch>, members: Vec<Member>) -> Vec<Member> {
    let (mut took, mut busy) = (Vec::with_capacity(members.len()), Vec::new());
    for member in members {
        match member.stretches.try_send(Arc::clone(stretch)) {
            Ok(()) => took.push(member),
            Err(mpsc::error::TrySendError::Full(_)) => busy.push(member),
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
    let until = Instant::now().checked_add(WAITS);
    for member in busy {
        tokio::select! {
            biased;
            sent = member.stretches.send(Arc::clone(stretch)) => if sent.is_ok() { took.push(member) },
            () = Timer::shared().at(until) => debug!("a run is too slow for its pass over the log, and goes on alone"),
        }
    }
    took
}

async fn anyone_leaves(members: &[Member]) {
    let mut leaves: Vec<_> = members.iter().map(|member| Box::pin(member.stretches.closed())).collect();
    poll_fn(|context| {
        let left = leaves.iter_mut().any(|leaves| leaves.as_mut().poll(context).is_ready());
        if left { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A filter that lets through at least what any of them wants: the types of all, if all say which.
fn wanted_by_any(members: &[Member]) -> Filter {
    let mut names: Vec<&str> = Vec::new();
    for member in members {
        let types = member.wanted.clauses().iter().find_map(|clause| match clause {
            Clause::Types(types) => Some(types),
            _ => None,
        });
        let Some(types) = types else { return Filter::new() };
        names.extend(types.iter().map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    Filter::new().types(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{CandidateEvent, ExpectedVersion, MemoryStore, StreamId};

    async fn store_with(events: usize) -> Store {
        let store = Store::from(MemoryStore::new());
        let event = |n| CandidateEvent::new(if n % 2 == 0 { "even" } else { "odd" }, "x").unwrap();
        let stream = store.stream(StreamId::new("a-1").unwrap());
        for n in 1..=events {
            stream.write(event(n), ExpectedVersion::Any).await.unwrap();
        }
        store
    }

    async fn positions(seat: &mut Seat, upto: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Some(stretch) = seat.next().await {
            seen.extend(stretch.events.iter().map(|event| event.position.get()));
            if stretch.upto >= upto {
                break;
            }
        }
        seen
    }

    /// It begins at the least of the checkpoints, and each gets what is behind its own and passes its filter.
    #[tokio::test]
    async fn each_run_gets_what_is_for_it() {
        let store = store_with(10).await;
        let mut tickets = tickets(&store, 3).into_iter();
        let mut next = || tickets.next().unwrap();
        let even = Filter::new().types(["even"]);
        let mut first = next().join(&store, 2, &even).unwrap();
        let mut second = next().join(&store, 7, &Filter::new().types(["odd", "even"]).types(["odd"])).unwrap();
        // One that could not begin keeps nobody waiting.
        drop(next());
        assert_eq!(positions(&mut first, 10).await, [4, 6, 8, 10]);
        assert_eq!(positions(&mut second, 10).await, [9]);
    }

    /// The others go on without it, and it learns that the pass is over for it only after what it was handed.
    #[tokio::test]
    async fn a_run_that_is_stuck_is_left_behind() {
        let store = store_with(1).await;
        let mut tickets = tickets(&store, 2).into_iter();
        let mut next = || tickets.next().unwrap().join(&store, 0, &Filter::new()).unwrap();
        let (mut stuck, mut other) = (next(), next());
        assert_eq!(positions(&mut other, 1).await, [1]);
        for n in 2..=10 {
            let event = CandidateEvent::new("more", "x").unwrap();
            store.stream(StreamId::new("a-1").unwrap()).write(event, ExpectedVersion::Any).await.unwrap();
            assert_eq!(positions(&mut other, n).await, [n]);
        }
        let handed = positions(&mut stuck, u64::MAX).await;
        assert_eq!(handed, [1, 2, 3, 4], "what there was room for, and then the end");
    }
}
