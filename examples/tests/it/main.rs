//! Runs the example programs as a user would, and checks their output.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop anywhere, in its helpers too")]

mod axum_bank;
mod flights;
mod stories;

use std::path::PathBuf;
use std::process::{Command, Output};

/// A program of this package, built by `cargo test` along with this test.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(|deps| deps.parent()).expect("a test lies in target/…/deps");
    let program = target.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is not built: run `cargo build -p examples --examples`", program.display());
    Command::new(program)
}

/// The real file.
fn january() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "data", "flights-2013-01.csv.gz"].iter().collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the programs print UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
