//! Several processes append under conditions, some are killed, and the log is audited: each condition is recomputed as
//! of the position where it was judged.
//!
//! For a minute, with 40 writers in four processes:
//!
//! ```sh
//! ES_SQLITE_AUDIT_SECONDS=60 cargo test -p es-sqlite --test it audit:: -- --nocapture
//! ```

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use es_framework::{
    Append, AppendError, CandidateEvent, Conflict, Criterion, ExpectedVersion, Filter, Position, Query, StoredEvent,
    Tag,
};
use es_sqlite::{Durability, SqliteStore};
use serde_json::{Value, json};

use crate::support::{all, command, folder, id, in_child, say};

const SECONDS: &str = "ES_SQLITE_AUDIT_SECONDS";
const PROCESSES: usize = 4;
const WRITERS: u64 = 10;
const TYPES: [&str; 3] = ["subscribed", "unsubscribed", "invoiced"];

fn seconds() -> u64 {
    std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4)
}

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn course(&mut self) -> Tag {
        Tag::of("course", self.below(12)).unwrap()
    }

    fn student(&mut self) -> Tag {
        Tag::of("student", self.below(200)).unwrap()
    }

    fn query(&mut self) -> Query {
        match self.below(6) {
            0 => Criterion::types(["invoiced"]).into(),
            1 => Criterion::tags([self.course(), self.student()]).into(),
            2 => Criterion::types(["subscribed", "unsubscribed"]).tag(self.course()).into(),
            3 => Query::new().or(Criterion::tags([self.course()])).or(Criterion::tags([self.student()])),
            4 => Query::new().or(Criterion::tags([self.student()])).or(Criterion::types(["invoiced"])),
            _ => Criterion::tags([self.student()]).into(),
        }
    }
}

/// A condition as text, so that it can be stored in the events it was judged for.
fn noted(query: &Query, after: Position) -> Value {
    let criteria = query.criteria().iter().map(|criterion| json!([criterion.types, criterion.tags]));
    json!([criteria.collect::<Vec<_>>(), after])
}

fn condition(noted: &Value) -> (Query, u64) {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let criterion = |parts: &Value| {
        let tags = strings(&parts[1]).into_iter().map(|text| Tag::new(text).unwrap());
        tags.fold(Criterion::types(strings(&parts[0])), Criterion::tag)
    };
    (noted[0].as_array().unwrap().iter().map(criterion).collect(), noted[1].as_u64().unwrap())
}

/// The process of [`no_condition_is_violated_and_none_fails_without_a_match`]. Prints a line for each append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_decides() {
    let Some(path) = in_child() else { return };
    let store = SqliteStore::builder().durability(Durability::Normal).open(&path).await.unwrap();
    let until = Instant::now() + Duration::from_secs(seconds());
    let process = u64::from(std::process::id());
    let writers = (1..=WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut dice = Dice((process * WRITERS + writer).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            let mut n = 0;
            while Instant::now() < until {
                n += 1;
                // What a caller does: learn where the log ends, look, decide, append. Some look into the past.
                let head = store.all().metrics().await.unwrap().position;
                let back = if dice.below(4) == 0 { dice.below(100) } else { 0 };
                let after = Position::new(head.get().saturating_sub(back));
                let query = dice.query();
                if dice.below(3) == 0 {
                    let read = store.all().read().before(after.next()).backward().limit(5);
                    let seen = read.filter(Filter::new().query(query.clone())).collect().await.unwrap();
                    assert!(seen.iter().all(|event| query.matches(&event.header())));
                }
                let mut conditions = vec![(query, after)];
                if dice.below(5) == 0 {
                    conditions.push((dice.query(), head));
                }
                let noted: Vec<Value> = conditions.iter().map(|(query, after)| noted(query, *after)).collect();
                let payload = json!({ "process": process, "writer": writer, "n": n, "conditions": noted }).to_string();
                let event = |dice: &mut Dice| {
                    let mut tags = BTreeSet::from([dice.course()]);
                    (0..dice.below(3)).for_each(|_| _ = tags.insert(dice.student()));
                    let tags = if dice.below(8) == 0 { BTreeSet::new() } else { tags };
                    let event =
                        CandidateEvent::new(TYPES[usize::try_from(dice.below(30).min(2)).unwrap()], payload.clone())
                            .unwrap();
                    event.with_tags(tags)
                };
                let events: Vec<_> = (0..=dice.below(4) / 3).map(|_| event(&mut dice)).collect();
                let mut append = Append::to(id(&format!("w-{process}-{writer}")), ExpectedVersion::Any, events);
                for (query, after) in conditions {
                    append = append.unless(query, after);
                }
                match store.append(append).await {
                    Ok(appended) => say(&json!({ "written": appended.position, "n": n, "writer": writer }).to_string()),
                    Err(AppendError::Conflict { conflicts }) => {
                        for conflict in conflicts {
                            let Conflict::Condition { query, after, position, .. } = conflict else { panic!() };
                            say(&json!({ "failed": self::noted(&query, after), "at": position }).to_string());
                        }
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    store.close().await.unwrap();
}

/// A child whose output is read while it runs.
struct Decider {
    process: u64,
    child: Child,
    lines: JoinHandle<Vec<Value>>,
}

/// Starts a process that ends when the audit begins, or is killed before.
fn decider(path: &Path, until: Instant) -> Decider {
    let left = until.saturating_duration_since(Instant::now()).as_secs().max(1);
    let mut child = command("audit::a_process_that_decides", path)
        .env(SECONDS, left.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines = std::thread::spawn(move || {
        // A process that was killed may leave half a line.
        let said = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned));
        said.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    });
    Decider { process: child.id().into(), child, lines }
}

/// The log as the audit sees it: nothing of it is shared with the engine.
struct Audit {
    log: Vec<StoredEvent>,
    by_tag: HashMap<Tag, Vec<usize>>,
    by_type: HashMap<String, Vec<usize>>,
}

impl Audit {
    fn of(log: Vec<StoredEvent>) -> Self {
        let (mut by_tag, mut by_type) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (at, event) in log.iter().enumerate() {
            assert_eq!(event.position, at as u64 + 1);
            by_type.entry(event.name().to_owned()).or_default().push(at);
            for tag in &event.tags {
                by_tag.entry(tag.clone()).or_default().push(at);
            }
        }
        Self { log, by_tag, by_type }
    }

    /// The position of the first event after a position that matches.
    fn first_match(&self, query: &Query, after: u64) -> Option<u64> {
        let first = |criterion: &Criterion| -> Option<u64> {
            let lists: Vec<&Vec<usize>> = match criterion.tags.first() {
                Some(tag) => self.by_tag.get(tag).into_iter().collect(),
                None => criterion.types.iter().filter_map(|name| self.by_type.get(&**name)).collect(),
            };
            let first_of = |list: &&Vec<usize>| {
                let start = list.partition_point(|at| (*at as u64) < after);
                let matches = |at: &&usize| criterion.selects(self.log[**at].name(), &self.log[**at].tags);
                list[start..].iter().find(matches).map(|at| *at as u64 + 1)
            };
            lists.iter().filter_map(first_of).min()
        };
        query.criteria().iter().filter_map(first).min()
    }
}

#[tokio::test]
async fn no_condition_is_violated_and_none_fails_without_a_match() {
    let (_folder, path) = folder();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds());
    let mut running: Vec<Decider> = (0..PROCESSES).map(|_| decider(&path, until)).collect();
    let mut ended = Vec::new();
    let mut killed = 0;
    while Instant::now() + Duration::from_millis(900) < until {
        std::thread::sleep(Duration::from_millis(700));
        let mut victim = running.remove(0);
        victim.child.kill().unwrap();
        victim.child.wait().unwrap();
        killed += 1;
        ended.push(victim);
        running.push(decider(&path, until));
    }
    for mut decider in running {
        assert!(decider.child.wait().unwrap().success(), "a process failed");
        ended.push(decider);
    }
    let took = begun.elapsed();

    let store = SqliteStore::open(&path).await.unwrap();
    let audit = Audit::of(all(&store).await);
    // Each condition that was found to hold, as of the first event of its append.
    let (mut appends, mut held) = (HashMap::new(), 0_u64);
    for event in &audit.log {
        let noted: Value = serde_json::from_slice(&event.payload).unwrap();
        let key = (noted["process"].as_u64().unwrap(), noted["writer"].as_u64().unwrap(), noted["n"].as_u64().unwrap());
        let mut last = event.position.get();
        std::mem::swap(appends.entry(key).or_insert(event.position.get()), &mut last);
        if last != event.position.get() {
            continue;
        }
        for condition in noted["conditions"].as_array().unwrap() {
            let (query, after) = self::condition(condition);
            let first = audit.first_match(&query, after);
            let violated = first.is_some_and(|first| first < event.position.get());
            assert!(!violated, "{query} after {after} was violated at {first:?}, before {}", event.position);
            held += 1;
        }
    }
    // What the processes were told.
    let (mut acknowledged, mut failed) = (0_u64, 0_u64);
    for Decider { process, lines, .. } in ended {
        for said in lines.join().unwrap() {
            if let Some(position) = said["written"].as_u64() {
                let key = (process, said["writer"].as_u64().unwrap(), said["n"].as_u64().unwrap());
                assert_eq!(appends.get(&key), Some(&position), "an acknowledged append is there");
                acknowledged += 1;
            } else {
                let (query, after) = condition(&said["failed"]);
                let at = said["at"].as_u64();
                assert_eq!(audit.first_match(&query, after), at, "{query} after {after} failed without a match");
                failed += 1;
            }
        }
    }
    say(&format!(
        "{} events in {took:.1?}, {PROCESSES} processes of {WRITERS} writers, {killed} killed; {held} conditions held, \
         {failed} failed, {acknowledged} appends acknowledged of {}",
        audit.log.len(),
        appends.len()
    ));
    assert!(held > 300 && failed > 30 && killed > 1, "{held} {failed} {killed}");
    assert_eq!(crate::tag_damage::findings(&store).await, [""; 0]);
    store.close().await.unwrap();
}
