//! The workloads as measured: the participants, the amount of work, and the goal.

use crate::measure::figure;
use crate::options::{Options, Size};
use crate::spec::{Mode, Results, Spec, Work};

/// A workload in one of its forms.
#[derive(Debug, Clone)]
pub struct Case {
    /// The workload's id, `W1`.
    pub workload: &'static str,
    /// What distinguishes it within its workload.
    pub name: String,
    /// The durability mode, if it matters.
    pub mode: Option<Mode>,
    /// The participants: first the engine, then what it is compared with, then others for information.
    pub sides: Vec<(String, Spec)>,
    /// The goals of the engine.
    pub goals: Vec<Goal>,
    /// Its name on the peers' command line, if they support it.
    pub peer: Option<&'static str>,
}

/// A goal of the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Minimum ratio of events per second to the second side.
    Ratio(f64),
    /// Maximum ratio of time per event to the second side.
    Cost(f64),
    /// Maximum ratio of a percentile to the second side.
    Latency(f64, f64),
    /// Upper bound of a percentile, in microseconds.
    Below(f64, f64),
    /// Upper bound of a figure.
    Fact(&'static str, f64),
    /// Maximum number of bytes per event in addition to the payload.
    Bytes(f64),
}

impl Case {
    fn new(workload: &'static str, name: impl Into<String>, spec: &Spec) -> Self {
        let sides = vec![("engine".to_owned(), spec.clone()), ("floor".to_owned(), spec.on_the_floor())];
        Self { workload, name: name.into(), mode: None, sides, goals: Vec::new(), peer: None }
    }

    fn against(mut self, label: &str, spec: &Spec) -> Self {
        self.sides.truncate(1);
        self.also(label, spec)
    }

    fn also(mut self, label: &str, spec: &Spec) -> Self {
        self.sides.push((label.to_owned(), spec.clone()));
        self
    }

    fn alone(mut self) -> Self {
        self.sides.truncate(1);
        self
    }

    fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    fn in_mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self.sides.iter_mut().for_each(|(_, spec)| spec.mode = mode);
        self
    }

    fn peer(mut self, workload: &'static str) -> Self {
        self.peer = Some(workload);
        self
    }
}

/// All cases selected by the options.
pub fn all(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in &options.modes {
        cases.extend(bulk(options).into_iter().chain(writes(options, *mode)).map(|case| case.in_mode(*mode)));
    }
    cases.extend(reads(options));
    cases.extend(queries(options));
    cases.extend(watches(options));
    cases.extend(growth(options));
    cases.retain(|case| options.wants(case.workload));
    cases
}

fn bulk(options: &Options) -> Vec<Case> {
    let w1 = |ids| Spec {
        payload: 0,
        per_append: 10_000,
        ..Spec::new(Work::Bulk { ids }, options.pick(50_000, 500_000, 1_000_000))
    };
    let w2 = Spec { per_append: 1_000, ..Spec::new(Work::Bulk { ids: false }, options.pick(20_000, 200_000, 200_000)) };
    let overlapped =
        Spec { per_append: 1_000, callers: 3, ..Spec::new(Work::Overlapped, options.pick(50_000, 300_000, 1_000_000)) };
    vec![
        Case::new("W1", "bulk, no ids, 10,000 an append", &w1(false))
            .goal(Goal::Ratio(0.8))
            .goal(Goal::Bytes(52.0))
            .peer("W1"),
        Case::new("W1", "bulk, ids, 10,000 an append", &w1(true)).goal(Goal::Ratio(0.8)).goal(Goal::Bytes(92.0)),
        Case::new("W2", "bulk, 100 bytes, 1,000 an append", &w2).goal(Goal::Ratio(0.8)).peer("W2"),
        Case::new("WAL", "bulk, 3 readers overlap", &overlapped).alone().goal(Goal::Fact("wal_mib", 64.0)),
    ]
}

fn writes(options: &Options, mode: Mode) -> Vec<Case> {
    let single = |new_streams| Spec::new(Work::Single { new_streams }, options.pick(300, 1_000, 10_000));
    let many =
        |callers, streams| Spec { callers, streams, ..Spec::new(Work::Many, options.pick(6_400, 20_480, 20_480)) };
    let commands = |streams| Spec {
        callers: 64,
        streams,
        ..Spec::new(
            Work::Commands,
            if streams == 8 { options.pick(640, 6_400, 20_480) } else { options.pick(6_400, 20_480, 20_480) },
        )
    };
    let full = mode == Mode::Full;
    let lone = if full { 0.75 } else { 0.4 };
    let mut cases = vec![
        Case::new("W3", "one caller, new streams", &single(true)).goal(Goal::Ratio(lone)).peer("W3-new"),
        Case::new("W3", "one caller, one stream", &single(false)).goal(Goal::Ratio(lone)).peer("W3-one"),
        Case::new("W4", "64 callers", &many(64, 1)).peer("W4"),
        Case::new("W4", "512 callers", &many(512, 1)),
        Case::new("W4", "64 callers, 1,000 streams each", &many(64, 1_000)),
    ];
    if full {
        for (case, ratio) in cases.iter_mut().skip(2).zip([0.8, 0.75, 0.8]) {
            case.goals.push(Goal::Ratio(ratio));
        }
    }
    cases.push(
        Case::new("W5", "64 callers, own aggregates", &commands(64))
            .against("W4, 64 callers", &many(64, 1))
            .goal(Goal::Ratio(0.7))
            .peer("W5"),
    );
    cases.push(Case::new("W5", "64 callers, 8 aggregates", &commands(8)).against("W4, 8 callers", &many(8, 1)));
    let conditional =
        |hot| Spec { callers: 64, ..Spec::new(Work::Conditional { hot }, options.pick(6_400, 20_480, 20_480)) };
    cases.push(
        Case::new("W12", "64 callers, own tags", &conditional(false))
            .against("W4, 64 callers", &many(64, 1))
            .also("floor", &conditional(false).on_the_floor())
            .goal(Goal::Ratio(0.75))
            .peer("W12"),
    );
    cases.push(Case::new("W13", "64 callers, ten tags", &conditional(true)).peer("W13"));
    // The example decides how many decisions there are.
    let courses = Spec { callers: 64, ..Spec::new(Work::Courses, 5_184) };
    cases.push(Case::new("W15", "courses, 64 callers", &courses).alone());
    cases
}

fn reads(options: &Options) -> Vec<Case> {
    let small = 10_000;
    let large = options.pick(30_000, 300_000, 1_000_000);
    let load = |snapshot, events| Spec { per_append: 1_000, ..Spec::new(Work::Load { snapshot }, events) };
    let scan = |filtered| Spec { streams: 1_000, per_append: 1_000, ..Spec::new(Work::Scan { filtered }, large) };
    let project = |results| Spec { streams: 1_000, per_append: 1_000, ..Spec::new(Work::Project { results }, large) };
    let thousands = |events: u64| match (events / 1_000_000, events / 1_000 % 1_000) {
        (0, thousands) => format!("{thousands},000"),
        (millions, thousands) => format!("{millions},{thousands:03},000"),
    };
    vec![
        Case::new("W6", "load 10,000 events", &load(false, small)).goal(Goal::Ratio(0.6)).peer("W6"),
        Case::new("W6", format!("load {} events", thousands(large)), &load(false, large)).goal(Goal::Ratio(0.6)),
        Case::new("W6", format!("load {} events, snapshot", thousands(large)), &load(true, large))
            .alone()
            .goal(Goal::Below(50.0, 150.0)),
        Case::new("W7", format!("read @all, {} events", thousands(large)), &scan(false))
            .goal(Goal::Ratio(0.75))
            .peer("W7"),
        Case::new("W7", "read @all, one type in a hundred", &scan(true)).goal(Goal::Ratio(0.75)),
        Case::new("W8", "projection, state in memory", &project(Results::State))
            .against("W7 read @all", &scan(false))
            .goal(Goal::Ratio(0.6)),
        Case::new("W8", "projection, one upsert an event", &project(Results::Upserts)).goal(Goal::Ratio(0.7)),
        Case::new("W8", "projection, sums by batch", &project(Results::Sums))
            .against("floor", &project(Results::Upserts).on_the_floor())
            .also("floor by batch", &project(Results::Sums).on_the_floor())
            .goal(Goal::Ratio(0.7)),
        Case::new("W8", "projection, rows by batch", &project(Results::Rows))
            .against("floor", &project(Results::Upserts).on_the_floor())
            .also("floor by batch", &project(Results::Rows).on_the_floor())
            .goal(Goal::Ratio(0.7)),
    ]
}

fn queries(options: &Options) -> Vec<Case> {
    let (small, large) = (options.pick(20_000, 100_000, 1_000_000), options.pick(100_000, 1_000_000, 10_000_000));
    let query = |skewed, events| Spec::new(Work::Query { skewed }, events);
    let million = |events| format!("{} million", figure(events) / 1e6);
    vec![
        Case::new("W14", format!("read 100 events of {}", million(small)), &query(false, small))
            .goal(Goal::Below(50.0, 500.0))
            .peer("W14"),
        Case::new("W14", format!("read 100 events of {}", million(large)), &query(false, large))
            .against(&format!("of {}", million(small)), &query(false, small))
            .also("floor", &query(false, large).on_the_floor())
            .goal(Goal::Below(50.0, 500.0))
            .goal(Goal::Latency(50.0, 1.3)),
        Case::new("W14", format!("read 10 of {}, half have the other tag", million(large)), &query(true, large))
            .goal(Goal::Below(50.0, 500.0)),
    ]
}

fn watches(options: &Options) -> Vec<Case> {
    let watch = |pause_us, elsewhere| Spec {
        mode: Mode::Normal,
        ..Spec::new(Work::Watch { pause_us, elsewhere }, options.pick(100, 1_000, 3_000))
    };
    let watchers = |streams| Spec {
        streams,
        mode: Mode::Normal,
        per_append: options.pick(1, 5, 10),
        ..Spec::new(Work::Watchers, options.pick(100, 500, 1_000))
    };
    let quiet = Spec { events: 0, ..watchers(0) };
    let busy = Goal::Fact("idle_cpu_percent", 0.5);
    vec![
        Case::new("W9", "watch, idle", &watch(2_000, false))
            .alone()
            .goal(Goal::Below(50.0, 50.0))
            .goal(Goal::Below(99.0, 1_000.0)),
        Case::new("W9", "watch, back to back", &watch(0, false))
            .alone()
            .goal(Goal::Below(50.0, 50.0))
            .goal(Goal::Below(99.0, 1_000.0)),
        Case::new("W9", "watch, another process", &watch(5_000, true)).alone().goal(Goal::Below(99.0, 15_000.0)),
        Case::new("W10", "100 watchers", &watchers(100)).against("1 watcher", &watchers(1)).goal(busy),
        Case::new("W10", "10,000 watchers", &watchers(10_000))
            .against("1 watcher", &watchers(1))
            .goal(busy)
            .goal(Goal::Latency(50.0, 2.0)),
        Case::new("W10", "idle store", &quiet).alone().goal(busy),
    ]
}

fn growth(options: &Options) -> Vec<Case> {
    let sizes: &[u64] = match options.size {
        Size::Quick => &[20_000, 100_000],
        Size::Usual => &[100_000, 1_000_000],
        Size::Full => &[100_000, 1_000_000, 10_000_000],
    };
    let Some((smallest, larger)) = sizes.split_first() else { return Vec::new() };
    let mut cases = Vec::new();
    let works = [
        (Work::Grown { alone: true }, "one caller", options.pick(200, 1_000, 5_000)),
        (Work::Grown { alone: false }, "64 callers", options.pick(3_200, 12_800, 12_800)),
        (Work::GrownLoad, "load a stream of ten", options.pick(500, 3_000, 3_000)),
    ];
    for (work, name, events) in works {
        let at = |size: u64| Spec { callers: 64, streams: size / 10, ..Spec::new(work, events) };
        for size in larger {
            let name = format!("{name}, {} million in the store", figure(*size) / 1e6);
            let smaller = format!("at {} million", figure(*smallest) / 1e6);
            let mut case = Case::new("W11", name, &at(*size)).against(&smaller, &at(*smallest));
            if work != Work::GrownLoad {
                case = case
                    .also("floor", &at(*size).on_the_floor())
                    .also(&format!("floor {smaller}"), &at(*smallest).on_the_floor());
            }
            cases.push(case.goal(Goal::Cost(1.3)).in_mode(Mode::Full));
        }
    }
    cases
}
