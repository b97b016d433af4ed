//! Which call goes wrong, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// A call that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Call {
    /// An append to the log.
    Append,
    /// A look-up of a command's key.
    Command,
    /// A page of the log.
    Read,
    /// A load of a snapshot and of the events after it.
    Load,
    /// A list of streams.
    Streams,
    /// A snapshot that is saved.
    SaveSnapshot,
    /// A look at a cell.
    Cell,
    /// A list of cells.
    Cells,
    /// A cell that is set.
    SetCell,
    /// A read model that is prepared for a run.
    Start,
    /// A transaction of a read model.
    Transact,
    /// A read model that is made durable at the end of a run.
    Settle,
    /// A read model that is asked what its rows look like.
    Shape,
    /// A place that is opened to build a read model anew.
    Beside,
    /// A read model that is replaced by another.
    Replace,
    /// A place for building that is removed.
    Discard,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 16] = [
        Self::Append,
        Self::Command,
        Self::Read,
        Self::Load,
        Self::Streams,
        Self::SaveSnapshot,
        Self::Cell,
        Self::Cells,
        Self::SetCell,
        Self::Start,
        Self::Transact,
        Self::Settle,
        Self::Shape,
        Self::Beside,
        Self::Replace,
        Self::Discard,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Command => "command",
            Self::Read => "read",
            Self::Load => "load",
            Self::Streams => "streams",
            Self::SaveSnapshot => "save-snapshot",
            Self::Cell => "cell",
            Self::Cells => "cells",
            Self::SetCell => "set-cell",
            Self::Start => "start",
            Self::Transact => "transact",
            Self::Settle => "settle",
            Self::Shape => "shape",
            Self::Beside => "beside",
            Self::Replace => "replace",
            Self::Discard => "discard",
        }
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done, and the error says to try again.
    Busy,
    /// Nothing is done, and the error says that the device failed.
    Io,
    /// Nothing is done: another writer was faster. Only appends that expect something, and cells that are set.
    Conflict,
    /// It is done, but its result is lost: the error says that the device failed.
    LostAnswer,
    /// It is done after other tasks had this many turns.
    Delay(u32),
    /// The process dies before it is done: this call and every later one fails.
    Crash,
    /// The process dies after it is done: this call and every later one fails.
    CrashAfter,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("busy"),
            Self::Io => f.write_str("io"),
            Self::Conflict => f.write_str("conflict"),
            Self::LostAnswer => f.write_str("lost-answer"),
            Self::Delay(turns) => write!(f, "delay-{turns}"),
            Self::Crash => f.write_str("crash"),
            Self::CrashAfter => f.write_str("crash-after"),
        }
    }
}

/// Which calls go wrong, and how: by a seed, or one by one.
///
/// A plan depends on the number of each call among those of its kind, and on nothing else: a run with the same calls
/// goes wrong in the same way. It is shown as text, which can be parsed back, so a test that fails prints its plan, and
/// the plan replays it:
///
/// ```
/// use es_framework::testing::{Call, Fault, FaultPlan};
///
/// let seeded = FaultPlan::seeded(17).one_in(4);
/// assert_eq!(seeded.to_string(), "seed 17 one-in 4");
///
/// let plan: FaultPlan = "append 3 lost-answer, read 1 delay-2".parse()?;
/// assert_eq!(plan, FaultPlan::none().at(Call::Append, 3, Fault::LostAnswer).at(Call::Read, 1, Fault::Delay(2)));
/// # Ok::<(), es_framework::testing::InvalidPlan>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct FaultPlan {
    seed: Option<u64>,
    one_in: u32,
    /// Faults that a seed may choose; empty for its default.
    only: Vec<Fault>,
    fixed: BTreeMap<(Call, u64), Fault>,
}

/// What a seed chooses from by default. A crash ends a run, so it is left to those who name it.
const SEEDED: [Fault; 5] = [Fault::Busy, Fault::Io, Fault::Conflict, Fault::LostAnswer, Fault::Delay(3)];

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// One call in eight goes wrong, chosen by a seed: in any way that leaves the process alive.
    pub fn seeded(seed: u64) -> Self {
        Self { seed: Some(seed), one_in: 8, ..Self::default() }
    }

    /// Lets the seed choose one call in this many, at least 1.
    pub fn one_in(mut self, calls: u32) -> Self {
        self.one_in = calls.max(1);
        self
    }

    /// Lets the seed choose from these faults only.
    pub fn only(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.only = faults.into_iter().collect();
        self
    }

    /// Lets the call with this number go wrong; the first call of each kind is number 1.
    pub fn at(mut self, call: Call, number: u64, fault: Fault) -> Self {
        self.fixed.insert((call, number), fault);
        self
    }

    /// What happens to a call.
    pub fn fault(&self, call: Call, number: u64) -> Option<Fault> {
        if let Some(fault) = self.fixed.get(&(call, number)) {
            return Some(*fault);
        }
        let random = mix(mix(self.seed?) ^ (call as u64) << 56 ^ number);
        if !random.is_multiple_of(u64::from(self.one_in.max(1))) {
            return None;
        }
        let faults = if self.only.is_empty() { &SEEDED[..] } else { &self.only };
        let chosen = usize::try_from(mix(random) % faults.len() as u64).unwrap_or(0);
        faults.get(chosen).copied()
    }
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators": the finalizer of SplitMix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(seed) = self.seed {
            let mut words = vec![format!("seed {seed} one-in {}", self.one_in)];
            if !self.only.is_empty() {
                words.push("of".to_owned());
                words.extend(self.only.iter().map(ToString::to_string));
            }
            parts.push(words.join(" "));
        }
        parts.extend(self.fixed.iter().map(|((call, number), fault)| format!("{} {number} {fault}", call.name())));
        if parts.is_empty() { f.write_str("nothing") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A text that is not a [`FaultPlan`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not part of a plan; write `seed 17 one-in 8`, or a call, its number and a fault: `append 3 io`")]
#[non_exhaustive]
pub struct InvalidPlan {
    /// The part that could not be understood.
    pub part: String,
}

impl FromStr for FaultPlan {
    type Err = InvalidPlan;

    fn from_str(text: &str) -> Result<Self, InvalidPlan> {
        let mut plan = Self::none();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "nothing") {
            let invalid = || InvalidPlan { part: part.to_owned() };
            let words: Vec<_> = part.split_whitespace().collect();
            match words.as_slice() {
                ["seed", seed, "one-in", calls, only @ ..] => {
                    plan.seed = Some(seed.parse().map_err(|_| invalid())?);
                    plan.one_in = calls.parse().map_err(|_| invalid())?;
                    let faults = match only {
                        [] => &[][..],
                        ["of", faults @ ..] => faults,
                        _ => return Err(invalid()),
                    };
                    plan.only =
                        faults.iter().map(|fault| parse_fault(fault)).collect::<Option<_>>().ok_or_else(invalid)?;
                }
                [call, number, fault] => {
                    let call = Call::ALL.into_iter().find(|known| known.name() == *call).ok_or_else(invalid)?;
                    let number = number.parse().map_err(|_| invalid())?;
                    plan = plan.at(call, number, parse_fault(fault).ok_or_else(invalid)?);
                }
                _ => return Err(invalid()),
            }
        }
        Ok(plan)
    }
}

fn parse_fault(text: &str) -> Option<Fault> {
    match text {
        "busy" => Some(Fault::Busy),
        "io" => Some(Fault::Io),
        "conflict" => Some(Fault::Conflict),
        "lost-answer" => Some(Fault::LostAnswer),
        "crash" => Some(Fault::Crash),
        "crash-after" => Some(Fault::CrashAfter),
        _ => text.strip_prefix("delay-")?.parse().ok().map(Fault::Delay),
    }
}

/// The cause of an injected error: which call went wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("injected: {} {number} {fault}", call.name())]
#[non_exhaustive]
pub struct InjectedFault {
    /// The call.
    pub call: Call,
    /// Its number among the calls of its kind.
    pub number: u64,
    /// How it went wrong.
    pub fault: Fault,
}

/// Counts calls, and decides by a plan which of them go wrong. Clones share the counts: an engine and a read model that
/// die together have one.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: FaultPlan,
    calls: [AtomicU64; Call::ALL.len()],
    injected: Mutex<FaultPlan>,
    crashed: AtomicBool,
}

impl Faults {
    /// Starts to follow a plan.
    pub fn new(plan: FaultPlan) -> Self {
        let shared = Shared {
            plan,
            calls: Default::default(),
            injected: Mutex::new(FaultPlan::none()),
            crashed: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The number of calls of a kind so far.
    pub fn calls(&self, call: Call) -> u64 {
        self.shared.calls.get(call as usize).map_or(0, |calls| calls.load(Ordering::Acquire))
    }

    /// What went wrong so far, as a plan that replays it.
    pub fn injected(&self) -> FaultPlan {
        self.shared.injected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process has died: every call fails from then on.
    pub fn has_crashed(&self) -> bool {
        self.shared.crashed.load(Ordering::Acquire)
    }

    /// Counts a call, and returns how it goes wrong. `applies` says whether a fault can happen to this call at all.
    pub(super) fn next(&self, call: Call, applies: impl FnOnce(Fault) -> bool) -> Next {
        let number = self.shared.calls.get(call as usize).map_or(0, |calls| calls.fetch_add(1, Ordering::AcqRel) + 1);
        if self.has_crashed() {
            return Next::Dead;
        }
        let Some(fault) = self.shared.plan.fault(call, number).filter(|fault| applies(*fault)) else {
            return Next::Fine;
        };
        let mut plan = self.shared.injected.lock().unwrap_or_else(PoisonError::into_inner);
        *plan = std::mem::take(&mut *plan).at(call, number, fault);
        drop(plan);
        Next::Wrong(InjectedFault { call, number, fault })
    }

    /// Lets the process die now.
    pub fn crash(&self) {
        self.shared.crashed.store(true, Ordering::Release);
    }
}

/// What is to become of a call.
#[derive(Debug)]
pub(super) enum Next {
    /// It is done.
    Fine,
    /// It goes wrong.
    Wrong(InjectedFault),
    /// The process has died before.
    Dead,
}

/// Gives other tasks this many turns.
pub(super) async fn turns(turns: u32) {
    let mut left = turns;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_text_and_the_text_is_the_plan() {
        let plans = [
            FaultPlan::none(),
            FaultPlan::seeded(u64::MAX).one_in(3),
            FaultPlan::seeded(1).only([Fault::Crash, Fault::Delay(7)]).at(Call::SetCell, 2, Fault::Conflict),
            Call::ALL.into_iter().fold(FaultPlan::none(), |plan, call| plan.at(call, 9, Fault::CrashAfter)),
        ];
        for plan in plans {
            assert_eq!(plan.to_string().parse(), Ok(plan.clone()), "{plan}");
        }
        for text in ["append", "append x io", "append 1 fire", "jump 1 io", "seed 1", "seed 1 one-in 2 but io"] {
            assert_eq!(text.parse::<FaultPlan>(), Err(InvalidPlan { part: text.to_owned() }));
        }
    }

    #[test]
    fn a_seed_chooses_one_call_in_so_many_and_always_the_same() {
        let plan = FaultPlan::seeded(7).one_in(5);
        let chosen = |plan: &FaultPlan| (1..=5_000).filter_map(|n| plan.fault(Call::Append, n)).collect::<Vec<_>>();
        let faults = chosen(&plan);
        assert_eq!(faults, chosen(&plan.clone()));
        assert!((800..1_200).contains(&faults.len()), "{}", faults.len());
        for fault in SEEDED {
            assert!(faults.iter().filter(|chosen| **chosen == fault).count() > 100, "{fault}");
        }
        assert_ne!(faults, chosen(&FaultPlan::seeded(8).one_in(5)));
        assert_eq!(plan.one_in(1).only([Fault::Io]).fault(Call::Read, 1), Some(Fault::Io));
    }
}
