//! Process managers on the memory engine, where a commit takes no time.

use crate::engines::MemoryByValue;

/// On the other engines only every append goes wrong, and every third of the other calls.
#[test]
fn h14_whatever_call_goes_wrong_nothing_is_lost_or_repeated() {
    es_conformance::run(es_conformance::processes::at_every_call(&MemoryByValue));
}
