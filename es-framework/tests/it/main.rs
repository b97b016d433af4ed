//! The contract on the memory engine, and what the suite cannot reach from outside.

mod commands;
mod engines;
#[cfg(all(feature = "bincode", feature = "json"))]
mod hostile;
mod judged;
#[cfg(feature = "bincode")]
mod kit;
mod ledgers;
#[cfg(feature = "bincode")]
mod observed;
mod process_managers;
mod processes;
mod projections;
mod sends;
#[cfg(feature = "bincode")]
mod typed;

/// The memory engine, handed over as a value.
mod memory_as_a_value {
    use crate::engines::MemoryByValue;

    es_conformance::conformance!(MemoryByValue);
    es_conformance::conformance_inspected!(MemoryByValue);
}

/// The memory engine behind a trait object that the caller keeps.
mod memory_as_a_trait_object {
    use crate::engines::MemoryAsObject;

    es_conformance::conformance!(MemoryAsObject);
}

/// The memory engine inside the testing kit's.
mod memory_without_faults {
    use crate::engines::MemoryWithoutFaults;

    es_conformance::conformance!(MemoryWithoutFaults);
    es_conformance::conformance_inspected!(MemoryWithoutFaults);
}

/// Memory stores that several handles share, whose watchers are told of the events.
mod processes_that_tell_events {
    use crate::processes::{Processes, Tells};

    es_conformance::conformance!(Processes::that_tell(Tells::Events));
    es_conformance::conformance_durable!(Processes::that_tell(Tells::Events));
    es_conformance::conformance_shared!(Processes::that_tell(Tells::Events));
}

/// Memory stores that several handles share, whose watchers are told of the head only.
mod processes_that_tell_the_head {
    use crate::processes::{Processes, Tells};

    es_conformance::conformance!(Processes::that_tell(Tells::Head));
    es_conformance::conformance_durable!(Processes::that_tell(Tells::Head));
    es_conformance::conformance_shared!(Processes::that_tell(Tells::Head));
}

/// Consumers with a state in memory.
mod consumers_with_a_state {
    use crate::ledgers::StateInMemory;

    es_conformance::conformance_consumers!(StateInMemory);
}

/// Consumers of a store that several handles share.
mod consumers_of_processes {
    use crate::ledgers::StateOfProcesses;

    es_conformance::conformance_consumers!(StateOfProcesses::new());
    es_conformance::conformance_consumers_shared!(StateOfProcesses::new());
}
