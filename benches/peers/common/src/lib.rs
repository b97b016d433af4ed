//! What every peer program shares: the command line, the workloads, the timing and the line of JSON.
//!
//! A peer implements [`Peer`] over its library and hands it to [`run`]. The workloads are written once, here, so that
//! every library does the same work in the same order; how an append, a command or a read is done belongs to the peer.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{Duration, Instant};

use serde_json::json;

const USAGE: &str = "WORKLOAD --dir DIR --events N --payload BYTES --per-append K --callers C \
    --mode full|normal [--check]\nWORKLOAD: W1 W2 W3-new W3-one W4 W5 W6 W7";

/// Different payloads kept ready, so that making them is not measured; each event gets a copy of one.
const READY_PAYLOADS: u64 = 4096;

/// Loads of a short stream take milliseconds, so that many are made and the median is reported.
const LOADS_OF_A_SHORT_STREAM: usize = 7;
const SHORT_STREAM: u64 = 50_000;

/// The data of one event: nothing, or that many characters of a 64-letter alphabet (so any JSON holds them unescaped).
pub type Payload = Option<String>;

/// When an append counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Survives a power loss: synced before the append returns (`synchronous = FULL` in SQLite).
    Full,
    /// Survives a crash of the process; a power loss may take the newest appends (`synchronous = NORMAL` with a WAL).
    Normal,
}

impl Mode {
    /// The mode as SQLite's `synchronous` pragma calls it.
    pub fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// One run, as asked for on the command line.
#[derive(Debug, Clone)]
pub struct Args {
    /// The workload's name, as in the usage line.
    pub workload: String,
    /// A directory of this run's own; made when missing, refused when it holds files.
    pub dir: PathBuf,
    /// Events written or read in all.
    pub events: u64,
    /// Characters of data in an event; without effect in `W1`, whose events carry none.
    pub payload: usize,
    /// Events an append in `W1`, `W2` and in the writing that precedes `W6` and `W7`.
    pub per_append: u64,
    /// Concurrent callers in `W4` and `W5`.
    pub callers: u64,
    /// Durability asked for.
    pub mode: Mode,
    /// Whether the events are counted afterwards through the library's own reading.
    pub check: bool,
}

impl Args {
    /// Reads the command line; a wrong one ends the program with code 2 and the usage.
    pub fn parse() -> Self {
        Self::from_words(std::env::args().skip(1)).unwrap_or_else(|wrong| {
            eprintln!("{wrong}\nusage: {USAGE}");
            exit(2);
        })
    }

    fn from_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            workload: words.next().ok_or("no workload")?,
            dir: PathBuf::new(),
            events: 10_000,
            payload: 100,
            per_append: 1_000,
            callers: 64,
            mode: Mode::Full,
            check: false,
        };
        while let Some(key) = words.next() {
            if key == "--check" {
                args.check = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{key} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{key} {value}: not a number"));
            match key.as_str() {
                "--dir" => args.dir = PathBuf::from(&value),
                "--events" => args.events = number()?.max(1),
                "--payload" => args.payload = usize::try_from(number()?).map_err(|e| e.to_string())?,
                "--per-append" => args.per_append = number()?.max(1),
                "--callers" => args.callers = number()?.max(1),
                "--mode" => {
                    args.mode = match value.as_str() {
                        "full" => Mode::Full,
                        "normal" => Mode::Normal,
                        _ => return Err(format!("--mode {value}: full or normal")),
                    };
                }
                _ => return Err(format!("unknown option {key}")),
            }
        }
        if args.dir.as_os_str().is_empty() {
            return Err("--dir is missing".to_owned());
        }
        fs::create_dir_all(&args.dir).map_err(|e| format!("{}: {e}", args.dir.display()))?;
        if bytes_under(&args.dir) > 0 {
            return Err(format!("{}: is not empty", args.dir.display()));
        }
        Ok(args)
    }

    /// A file of the given name in the run's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Ends the program with code 3: the library cannot do this workload or this mode.
pub fn cannot(reason: &str) -> ! {
    eprintln!("{reason}");
    exit(3);
}

/// What is left of a stream or a log after folding its decoded events: enough to prove that each was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fold {
    /// Events folded.
    pub events: u64,
    /// Sum of the lengths of their data.
    pub bytes: u64,
}

impl Fold {
    /// Folds one more event.
    pub fn add(&mut self, data: usize) {
        self.events += 1;
        self.bytes += data as u64;
    }
}

/// A library under test. Every method panics when the library fails: a run that lost an event must not report.
pub trait Peer: Clone + Send + Sync + 'static {
    /// Appends the events, as one append, to a stream that holds `version` events.
    fn append(&self, stream: &str, version: u64, events: Vec<Payload>) -> impl Future<Output = ()> + Send;

    /// Executes a command that loads the aggregate, decides and appends one event, as the library's users would.
    fn execute(&self, stream: &str, event: Payload) -> impl Future<Output = ()> + Send;

    /// Loads one stream from its first event, decoded and folded.
    fn load(&self, stream: &str) -> impl Future<Output = Fold> + Send;

    /// Reads every event in global order, decoded and folded.
    fn read_all(&self) -> impl Future<Output = Fold> + Send;

    /// Runs the callers at the same time, each as a task or a thread of its own, and returns what they return.
    fn at_once<F>(callers: Vec<F>) -> impl Future<Output = Vec<Vec<Duration>>>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static;
}

/// What one run measured, before its directory is weighed.
#[derive(Debug)]
pub struct Measured {
    seconds: f64,
    latencies: Vec<Duration>,
    peak_rss_bytes: u64,
    loads: usize,
}

/// Runs the workload of the command line. Opening the store and what precedes the work are not in the measured time.
pub async fn run<P: Peer>(args: &Args, peer: &P) -> Measured {
    let payloads = Payloads::new(args);
    let mut loads = 1;
    let (seconds, latencies) = match args.workload.as_str() {
        "W1" | "W2" => (bulk(args, peer, &payloads).await, Vec::new()),
        "W3-new" => one_caller(args, peer, &payloads, true).await,
        "W3-one" => one_caller(args, peer, &payloads, false).await,
        "W4" => callers(args, peer, &payloads, false).await,
        "W5" => callers(args, peer, &payloads, true).await,
        "W6" => {
            bulk(args, peer, &payloads).await;
            if args.events <= SHORT_STREAM {
                loads = LOADS_OF_A_SHORT_STREAM;
            }
            let mut times = Vec::new();
            for _ in 0..loads {
                let start = Instant::now();
                let fold = peer.load(ONE_STREAM).await;
                times.push(start.elapsed());
                expect_all(args, fold);
            }
            times.sort();
            (times[loads / 2].as_secs_f64(), Vec::new())
        }
        "W7" => {
            bulk(args, peer, &payloads).await;
            let start = Instant::now();
            let fold = peer.read_all().await;
            let seconds = start.elapsed().as_secs_f64();
            expect_all(args, fold);
            (seconds, Vec::new())
        }
        other => {
            eprintln!("unknown workload {other}\nusage: {USAGE}");
            exit(2);
        }
    };
    let peak_rss_bytes = peak_rss_bytes();
    if args.check {
        check(args, peer).await;
    }
    Measured { seconds, latencies, peak_rss_bytes, loads }
}

/// Prints the line of JSON. To be called when the store is closed, since it weighs the directory.
#[expect(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
pub fn report(args: &Args, measured: Measured, note: &str) {
    let Measured { seconds, mut latencies, peak_rss_bytes, loads } = measured;
    latencies.sort();
    let note = if loads > 1 { format!("{note}; median of {loads} loads") } else { note.to_owned() };
    println!(
        "{}",
        json!({
            "workload": args.workload,
            "events": args.events,
            "seconds": seconds,
            "events_per_second": args.events as f64 / seconds,
            "file_bytes": bytes_under(&args.dir),
            "peak_rss_bytes": peak_rss_bytes,
            "p50_us": percentile(&latencies, 50),
            "p99_us": percentile(&latencies, 99),
            "note": note,
        })
    );
}

const ONE_STREAM: &str = "one";

fn caller_stream(caller: u64) -> String {
    format!("caller-{caller}")
}

/// Appends all events to one stream, `per_append` an append.
async fn bulk<P: Peer>(args: &Args, peer: &P, payloads: &Payloads) -> f64 {
    let start = Instant::now();
    let mut written = 0;
    while written < args.events {
        let next = (written + args.per_append).min(args.events);
        peer.append(ONE_STREAM, written, (written..next).map(|i| payloads.of(i)).collect()).await;
        written = next;
    }
    start.elapsed().as_secs_f64()
}

/// Appends one event at a time, each to a new stream or all to one.
async fn one_caller<P: Peer>(args: &Args, peer: &P, payloads: &Payloads, new: bool) -> (f64, Vec<Duration>) {
    let mut latencies = Vec::with_capacity(usize::try_from(args.events).unwrap_or_default());
    let start = Instant::now();
    for i in 0..args.events {
        let before = Instant::now();
        let event = vec![payloads.of(i)];
        if new {
            peer.append(&format!("new-{i}"), 0, event).await;
        } else {
            peer.append(ONE_STREAM, i, event).await;
        }
        latencies.push(before.elapsed());
    }
    (start.elapsed().as_secs_f64(), latencies)
}

/// Lets every caller append to, or execute commands on, a stream of its own.
async fn callers<P: Peer>(args: &Args, peer: &P, payloads: &Payloads, execute: bool) -> (f64, Vec<Duration>) {
    let callers: Vec<_> = (0..args.callers)
        .map(|caller| {
            let share = args.events / args.callers + u64::from(caller < args.events % args.callers);
            let (peer, payloads, stream) = (peer.clone(), payloads.clone(), caller_stream(caller));
            async move {
                let mut latencies = Vec::with_capacity(usize::try_from(share).unwrap_or_default());
                for i in 0..share {
                    let before = Instant::now();
                    let event = payloads.of(caller * 31 + i);
                    if execute {
                        peer.execute(&stream, event).await;
                    } else {
                        peer.append(&stream, i, vec![event]).await;
                    }
                    latencies.push(before.elapsed());
                }
                latencies
            }
        })
        .collect();
    let start = Instant::now();
    let latencies = P::at_once(callers).await;
    (start.elapsed().as_secs_f64(), latencies.into_iter().flatten().collect())
}

/// Counts, through the library, what the workload wrote: the log as a whole, and one stream.
async fn check<P: Peer>(args: &Args, peer: &P) {
    expect_all(args, peer.read_all().await);
    let (stream, expected) = match args.workload.as_str() {
        "W3-new" => ("new-0".to_owned(), 1),
        "W4" | "W5" => (caller_stream(0), args.events.div_ceil(args.callers)),
        _ => (ONE_STREAM.to_owned(), args.events),
    };
    let found = peer.load(&stream).await.events;
    assert_eq!(found, expected, "stream {stream} holds {found} events, not {expected}");
    eprintln!("checked: {} events in the log, {expected} in stream {stream}", args.events);
}

fn expect_all(args: &Args, fold: Fold) {
    let size = if args.workload == "W1" { 0 } else { args.payload as u64 };
    let expected = Fold { events: args.events, bytes: args.events * size };
    assert_eq!(fold, expected, "the library read something else than what was written");
}

#[derive(Clone)]
struct Payloads(std::sync::Arc<Vec<Payload>>);

impl Payloads {
    fn new(args: &Args) -> Self {
        if args.workload == "W1" {
            return Self(std::sync::Arc::new(vec![None]));
        }
        // xorshift64*: no two payloads alike, the same in every run.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut letter = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let index = (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 58) as usize;
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[index])
        };
        let ready = READY_PAYLOADS.min(args.events);
        Self(std::sync::Arc::new((0..ready).map(|_| Some((0..args.payload).map(|_| letter()).collect())).collect()))
    }

    fn of(&self, event: u64) -> Payload {
        self.0[usize::try_from(event).unwrap_or_default() % self.0.len()].clone()
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[last * percent / 100].as_secs_f64() * 1e6)
}

/// The process's largest resident size so far; 0 where the system does not say.
fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
