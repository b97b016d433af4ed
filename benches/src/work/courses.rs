//! W15: the example `courses` from end to end, checked by its own audit.

use std::error::Error;

use super::open;
use crate::Result;
use crate::measure::figure;
use crate::spec::{Outcome, Spec};

#[path = "../../../examples/courses/audit.rs"]
mod audit;
#[path = "../../../examples/courses/load.rs"]
mod load;
#[path = "../../../examples/courses/school.rs"]
mod school;

type BoxError = Box<dyn Error + Send + Sync>;

/// An event is a decision here, whatever became of it.
pub(super) async fn run(spec: &Spec) -> Result<Outcome> {
    let store = open(spec).await?;
    let figures = load::run(&store, spec.callers).await?;
    let audited = audit::audit(&store).await?;
    store.close().await?;
    let (mut written, mut known) = (0, 0);
    for outcomes in figures.commands.values() {
        (written, known) = (written + outcomes.made, known + outcomes.known);
    }
    Ok(Outcome::of(figures.decisions(), figures.took.as_secs_f64())
        .with_fact("written", figure(written))
        .with_fact("known", figure(known))
        .with_fact("students", figure(audited.students() as u64))
        .with_fact("invoices", figure(audited.invoices)))
}
