use es_framework::{Boundary, Decide, DecideContext, Event, Events, States, View};

#[derive(Debug, Event)]
#[es(name = "account.deposited")]
struct Deposited;

#[derive(Debug, Default, Clone, View)]
#[es(event = Deposited)]
struct Total;

struct Deposit;

impl Decide for Deposit {
    type Over = Total;
    type Error = std::fmt::Error;

    fn over(&self) -> Boundary<Self> {
        Total::of()
    }

    fn decide(&self, _: States<'_, Self>, _: &DecideContext) -> Result<Events, Self::Error> {
        Ok(Events::new())
    }
}

fn main() {}
