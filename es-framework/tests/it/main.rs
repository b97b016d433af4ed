//! The contract on the memory engine, and what the suite cannot reach from outside.

mod engines;

/// The memory engine, handed over as a value.
mod memory_as_a_value {
    use crate::engines::MemoryByValue;

    es_conformance::conformance!(MemoryByValue);
}

/// The memory engine behind a trait object that the caller keeps.
mod memory_as_a_trait_object {
    use crate::engines::MemoryAsObject;

    es_conformance::conformance!(MemoryAsObject);
}
