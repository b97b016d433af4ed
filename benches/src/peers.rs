//! Other event stores: separate programs, built and run only on request.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::Result;
use crate::rounds::progress;
use crate::spec::{Outcome, Spec};

/// The time limit of a peer for one measurement.
const PATIENCE: Duration = Duration::from_secs(120);
/// Maximum number of events for peers: the slow ones would take hours.
const MOST_EVENTS: u64 = 100_000;
/// The exit code of a peer that cannot do a workload.
const UNSUPPORTED: i32 = 3;

/// Another event store.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name.
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

/// The last line of a peer's output.
#[derive(Debug, Deserialize)]
struct Line {
    events: u64,
    seconds: f64,
    file_bytes: Option<u64>,
    peak_rss_bytes: Option<u64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    note: Option<String>,
}

/// Builds every peer that can be built, and finds the Python ones that can be imported.
pub fn find() -> Vec<Peer> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut peers = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(here.join("peers")).into_iter().flatten().flatten().collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    for folder in folders {
        let (manifest, name) = (folder.path().join("Cargo.toml"), folder.file_name().to_string_lossy().into_owned());
        if !manifest.is_file() || !folder.path().join("src/main.rs").is_file() {
            continue;
        }
        progress(&format!("building peer {name}"));
        match build(&manifest, &name) {
            Ok(program) => peers.push(Peer { name, program, arguments: Vec::new() }),
            Err(error) => progress(&format!("    left out: {error}")),
        }
    }
    let script = here.join("seeds.py");
    let python = || Command::new("python3").arg(&script).arg("--available").stderr(Stdio::null()).output();
    let available = python().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for name in available.lines() {
        let arguments = vec![script.display().to_string(), name.to_owned()];
        peers.push(Peer { name: name.to_owned(), program: "python3".into(), arguments });
    }
    peers
}

fn build(manifest: &Path, name: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from).join("peers");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--ignore-rust-version", "--quiet", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .stdin(Stdio::null())
        .status()?;
    let program = target.join("release").join(format!("peer-{name}"));
    if built.success() && program.is_file() { Ok(program) } else { Err("it does not build".into()) }
}

impl Peer {
    /// Runs one measurement.
    ///
    /// # Errors
    ///
    /// If the peer does not support the workload, fails, or takes too long.
    pub fn run(&self, workload: &str, spec: &Spec, dir: &Path) -> Result<Outcome> {
        let said = dir.join("said");
        let mut peer = Command::new(&self.program)
            .args(&self.arguments)
            .arg(workload)
            .arg("--dir")
            .arg(dir.join("store"))
            .args(["--events", &spec.events.min(MOST_EVENTS).to_string()])
            .args(["--payload", &spec.payload.to_string()])
            .args(["--per-append", &spec.per_append.to_string()])
            .args(["--callers", &spec.callers.to_string()])
            .args(["--mode", spec.mode.word()])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&said)?)
            .stderr(Stdio::null())
            .spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = peer.try_wait()? {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                peer.kill()?;
                peer.wait()?;
                return Err(format!("took more than {} s", PATIENCE.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match status.code() {
            Some(0) => {}
            Some(UNSUPPORTED) => return Err("does not do this".into()),
            _ => return Err(format!("ended with {status}").into()),
        }
        let said = std::fs::read_to_string(said)?;
        let line: Line = serde_json::from_str(said.lines().last().unwrap_or_default())?;
        let mut outcome = Outcome::of(line.events, line.seconds);
        outcome.file_bytes = line.file_bytes.unwrap_or(0);
        outcome.peak_rss_bytes = line.peak_rss_bytes.unwrap_or(0);
        outcome.note = line.note.unwrap_or_default();
        for (name, figure) in [("p50_us", line.p50_us), ("p99_us", line.p99_us)] {
            outcome.facts.extend(figure.map(|figure| (name.to_owned(), figure)));
        }
        Ok(outcome)
    }
}
