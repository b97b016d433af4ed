//! Many callers at once, each with its own list of wishes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use es_framework::{Command, Decide, Decided, DecisionError, ExpectedVersion, Store};
use serde::Serialize;
use tokio::task::JoinSet;

use super::BoxError;
use super::school::{CourseEvent, Invoice, Refused, Register, Subscribe, Unsubscribe};

/// The courses, and the seats of each.
const COURSES: u64 = 40;
pub(crate) const SEATS: usize = 20;
/// The students that a caller speaks for, and what it wishes for each of them.
const STUDENTS: u64 = 3;
const WISHES: u64 = 12;

/// What became of the wishes.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// By command: how many were made, how many were known already, and how many were refused and why.
    pub(crate) commands: BTreeMap<&'static str, Outcomes>,
    pub(crate) took: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) made: u64,
    pub(crate) known: u64,
    pub(crate) refused: BTreeMap<String, u64>,
}

impl Figures {
    /// All decisions, whatever became of them.
    pub(crate) fn decisions(&self) -> u64 {
        let outcomes = self.commands.values();
        outcomes.map(|outcomes| outcomes.made + outcomes.known + outcomes.refused.values().sum::<u64>()).sum()
    }

    fn add(&mut self, command: &'static str, outcome: Result<Decided, DecisionError<Refused>>) -> Result<(), BoxError> {
        let outcomes = self.commands.entry(command).or_default();
        match outcome {
            Ok(decided) if decided.was_known => outcomes.known += 1,
            Ok(_) => outcomes.made += 1,
            Err(DecisionError::Rejected(refused)) => *outcomes.refused.entry(refused.to_string()).or_default() += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn add_all(&mut self, other: Self) {
        for (command, theirs) in other.commands {
            let ours = self.commands.entry(command).or_default();
            (ours.made, ours.known) = (ours.made + theirs.made, ours.known + theirs.known);
            for (why, count) in theirs.refused {
                *ours.refused.entry(why).or_default() += count;
            }
        }
    }
}

/// Opens the courses and lets this many callers in.
pub(crate) async fn run(store: &Store, callers: u64) -> Result<Figures, BoxError> {
    for n in 0..COURSES {
        let course = course(n);
        let stream = store.open_stream(format!("course-{course}"))?;
        stream.write_events(&[CourseEvent::Opened { course, seats: SEATS }], ExpectedVersion::NoStream).await?;
    }
    let started = Instant::now();
    let mut running = JoinSet::new();
    for caller in 0..callers {
        running.spawn(wishes(store.clone(), caller));
    }
    let mut figures = Figures::default();
    while let Some(caller) = running.join_next().await {
        figures.add_all(caller??);
    }
    figures.took = started.elapsed();
    Ok(figures)
}

/// What one caller does, the same in every run.
async fn wishes(store: Store, caller: u64) -> Result<Figures, BoxError> {
    let mut dice = Dice(caller + 1);
    let mut figures = Figures::default();
    for n in 0..STUDENTS {
        let student = format!("{caller}-{n}");
        // Two callers want each name.
        let name = format!("name-{}-{n}", caller / 2);
        let register = Register { student: student.clone(), name };
        if let Err(DecisionError::Rejected(Refused::NameTaken)) =
            twice(&store, &mut figures, &student, register).await?
        {
            let register = Register { student: student.clone(), name: format!("other-{student}") };
            twice(&store, &mut figures, &format!("{student}-again"), register).await?.ok();
        }
        for wish in 0..WISHES {
            let (student, course) = (student.clone(), course(dice.roll(COURSES)));
            let form = format!("{student}-{wish}");
            match dice.roll(8) {
                0 => drop(twice(&store, &mut figures, &form, Unsubscribe { student, course }).await?),
                1 => drop(twice(&store, &mut figures, &form, Invoice { year: 2026, student }).await?),
                _ => drop(twice(&store, &mut figures, &form, Subscribe { student, course }).await?),
            }
        }
    }
    Ok(figures)
}

/// Sends a form twice at the same time, as an impatient person does. The token makes both the same decision.
async fn twice<D>(
    store: &Store,
    figures: &mut Figures,
    token: &str,
    form: D,
) -> Result<Result<(), DecisionError<Refused>>, BoxError>
where
    D: Decide<Error = Refused> + Command + Serialize + Clone,
{
    let name = form.name();
    let send = || store.decide(form.clone()).key(format!("{name}/{token}")).tries(100);
    let (first, second) = tokio::join!(send(), send());
    let refused = match (&first, &second) {
        (Err(DecisionError::Rejected(refused)), Err(_)) => Err(DecisionError::Rejected(*refused)),
        _ => Ok(()),
    };
    figures.add(name, first)?;
    figures.add(name, second)?;
    Ok(refused)
}

fn course(n: u64) -> String {
    format!("c{n:02}")
}

/// Numbers that look random and are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
