//! What holds of the suite itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A fact that no list names would be kept by nobody and missed by nobody.
#[test]
fn every_fact_is_on_a_list() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: &str| fs::read_to_string(source.join(file)).unwrap();
    let names = |text: &str, before: &str| -> BTreeSet<String> {
        let end = |rest: &str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        text.lines()
            .filter_map(|line| line.trim_start().strip_prefix(before))
            .map(|rest| rest[..end(rest)].to_owned())
            .collect()
    };
    let listed = names(&read("macros.rs"), "");
    let mut facts = 0;
    for module in names(&read("lib.rs"), "pub mod ").iter().filter(|module| *module != "support") {
        for fact in names(&read(&format!("{module}.rs")), "pub async fn ") {
            assert!(listed.contains(module), "{module} is on no list in macros.rs");
            assert!(listed.contains(&fact), "{module}::{fact} is on no list in macros.rs");
            facts += 1;
        }
    }
    assert!(facts > 150, "only {facts} facts were found, so nothing was compared");
}
