//! `axum-bank`, from the outside: the program in a process of its own, spoken to over HTTP.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use es_framework::{Provenance, StoredEvent};
use es_sqlite::{SqliteStore, rusqlite};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Request;
use ureq::{Agent, BodyReader};

use crate::{program, stderr, stdout};

const OPEN: &str = r#"{"open": {"owner": "Alice"}}"#;
const DEPOSIT: &str = r#"{"deposit": {"cents": 500}}"#;
const SOON: Duration = Duration::from_secs(30);

/// A running server; killed when it is dropped.
struct Server {
    process: Child,
    out: Lines<BufReader<ChildStdout>>,
    url: String,
    agent: Agent,
}

impl Server {
    fn start(path: &Path) -> Self {
        let mut command = program("axum-bank");
        let command = command.arg("127.0.0.1:0").arg(path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = out.next().unwrap().unwrap();
        let url = first.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
        let agent = Agent::config_builder().http_status_as_error(false).timeout_global(Some(SOON)).build().into();
        Self { process, out, url, agent }
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    fn post(&self, account: &str, headers: &[(&str, &str)], command: &str) -> Answer {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        self.send("POST", &format!("/accounts/{account}"), &headers, command)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut response = self.agent.run(self.request(method, path, headers).body(body.to_owned()).unwrap()).unwrap();
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (tag, content_type, again) = (header("ETag"), header("Content-Type"), header("Retry-After"));
        let body = response.body_mut().read_to_string().unwrap();
        Answer { status: response.status().as_u16(), tag, content_type: content_type.unwrap(), again, body }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    fn events(&self, account: &str, headers: &[(&str, &str)]) -> Events {
        let request = self.request("GET", &format!("/accounts/{account}/events"), headers);
        let response = self.agent.run(request.body(()).unwrap()).unwrap();
        assert_eq!(response.headers()["Content-Type"], "text/event-stream");
        Events(BufReader::new(response.into_body().into_reader()).lines())
    }

    /// Sends what Ctrl-C sends.
    fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended, and returns what it printed to stderr.
    fn ended(&mut self) -> (ExitStatus, String) {
        let began = Instant::now();
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > SOON => panic!("the server has not ended"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        let log = std::io::read_to_string(self.process.stderr.take().unwrap()).unwrap();
        assert_eq!(self.out.by_ref().last().unwrap().unwrap(), "The bank is closed.", "{log}");
        (status, log)
    }

    fn stop(mut self) {
        self.interrupt();
        let (status, log) = self.ended();
        assert!(status.success(), "{log}");
        assert_eq!(log, "");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    status: u16,
    tag: Option<String>,
    content_type: String,
    again: Option<String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// An account at a version.
    #[track_caller]
    fn shows(&self, version: u64, cents: u64) {
        assert_eq!((self.status, self.content_type.as_str()), (200, "application/json"), "{}", self.body);
        assert_eq!(self.tag, Some(format!("\"{version}\"")));
        assert_eq!(self.json()["version"], version);
        assert_eq!(self.json()["state"], json!({"owner": "Alice", "cents": cents}));
    }

    /// A problem, with these words in its detail.
    #[track_caller]
    fn is_problem(&self, status: u16, detail: &str) {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string(), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        assert_eq!(self.again.is_some(), status == 503);
        assert_eq!(self.tag, None);
    }
}

/// A response of server-sent events.
struct Events(Lines<BufReader<BodyReader<'static>>>);

impl Iterator for Events {
    type Item = (String, String, Value);

    /// Id, name and data of the next event; `None` when the response ends as it should.
    fn next(&mut self) -> Option<Self::Item> {
        let lines: Vec<_> = self.0.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let id = field("id: ")?;
        Some((id, field("event: ").unwrap(), serde_json::from_str(&field("data: ").unwrap()).unwrap()))
    }
}

fn fresh() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.db");
    (folder, path)
}

/// What the log holds of an account, read as a second process.
fn stored(path: &Path, account: &str) -> Vec<StoredEvent> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path).await.unwrap();
        let events = store.open_stream(format!("account-{account}")).unwrap().read().collect().await.unwrap();
        store.close().await.unwrap();
        events
    })
}

#[test]
fn axum_bank_tells_its_story_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("axum-bank").env("TMPDIR", folder.path()).env("TEMP", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let story = stdout(&output);
    for said in [
        "The bank listens on http://127.0.0.1:",
        "< 412 Precondition Failed",
        "the account holds only 500 cents",
        r#"< [{"account":"alice","owner":"Alice","cents":500}]"#,
        "< id: 2\n   < event: account.deposited\n   < data: {\"cents\":500}",
        "The bank is closed.",
    ] {
        assert!(story.contains(said), "{said:?} is not in:\n{story}");
    }
    assert_eq!(story.matches("< ETag: \"2\"").count(), 2, "the retry has the same response:\n{story}");
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files.len(), 1, "no -wal or -shm stays behind: {files:?}");
}

#[test]
fn a_command_returns_the_account_and_its_version_as_an_etag() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN).shows(1, 0);
    let deposited = server.post("alice", &[], DEPOSIT);
    deposited.shows(2, 500);
    assert_eq!(deposited.json()["position"], 2);
    assert_eq!(server.get("/accounts/alice"), deposited);
    server.stop();
}

#[test]
fn an_account_shows_its_past() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    server.post("alice", &[], DEPOSIT);
    server.post("alice", &[], DEPOSIT).shows(3, 1_000);
    server.get("/accounts/alice?version=2").shows(2, 500);
    let opened = stored(&path, "alice")[0].time.as_micros();
    let long_after = opened + 3_600_000_000;
    server.get(&format!("/accounts/alice?at={long_after}")).shows(3, 1_000);
    server.get(&format!("/accounts/alice?at={}", opened - 1)).is_problem(404, "no such account");
    server.get("/accounts/alice?version=2&at=1").is_problem(400, "not both");
    server.stop();
}

#[test]
fn a_request_that_is_wrong_is_a_problem_of_the_client() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], DEPOSIT).is_problem(422, "there is no such account");
    server.post("alice", &[], OPEN);
    server.post("alice", &[], OPEN).is_problem(422, "already open");
    server.post("alice", &[], r#"{"withdraw": {"cents": 900}}"#).is_problem(422, "only 0 cents");

    server.post("alice", &[], r#"{"steal": {"cents": 900}}"#).is_problem(400, "steal");
    server.post("alice", &[], r#"{"deposit": {"cents": -1}}"#).is_problem(400, "cents");
    server.post("alice", &[], "{").is_problem(400, "JSON");
    server.post("a%00b", &[], OPEN).is_problem(400, "control character");
    server.post("%FF", &[], OPEN).is_problem(400, "UTF-8");
    server.send("POST", "/accounts/alice", &[("Content-Type", "text/plain")], OPEN).is_problem(415, "Content-Type");
    server.post("alice", &[("Idempotency-Key", "")], DEPOSIT).is_problem(400, "empty");
    for tag in ["3", "W/\"3\"", "\"three\"", "\"1\", \"2\""] {
        server.post("alice", &[("If-Match", tag)], DEPOSIT).is_problem(400, "one version");
    }
    server.post("alice", &[("If-None-Match", "\"1\"")], DEPOSIT).is_problem(400, "only *");

    server.get("/accounts/nobody").is_problem(404, "no such account");
    server.get("/accounts/alice?version=x").is_problem(400, "version");
    server.get("/balances?after=x").is_problem(400, "after");
    server.get("/nowhere").is_problem(404, "nothing here");
    server.send("PUT", "/accounts/alice", &[], OPEN).is_problem(405, "method");
    server.send("GET", "/accounts/alice/events", &[("Last-Event-ID", "x")], "").is_problem(400, "one version");
    server.get("/accounts/alice").shows(1, 0);
    server.stop();
}

#[test]
fn a_command_is_executed_only_on_the_version_that_the_client_has_seen() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[("If-Match", "*")], OPEN).is_problem(412, "at version 0");
    server.post("alice", &[("If-None-Match", "*")], OPEN).shows(1, 0);
    server.post("alice", &[("If-None-Match", "*")], DEPOSIT).is_problem(412, "at version 1");
    server.post("alice", &[("If-Match", "\"1\"")], DEPOSIT).shows(2, 500);
    server.post("alice", &[("If-Match", "\"1\"")], DEPOSIT).is_problem(412, "at version 2");
    server.post("alice", &[("If-Match", "*")], DEPOSIT).shows(3, 1_000);
    server.stop();
}

#[test]
fn of_writers_that_saw_the_same_version_one_is_first() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    for version in 1..=10_u64 {
        let (tag, together) = (format!("\"{version}\""), Barrier::new(2));
        let deposit = || {
            together.wait();
            server.post("alice", &[("If-Match", &tag)], DEPOSIT)
        };
        let mut answers =
            thread::scope(|scope| [scope.spawn(deposit), scope.spawn(deposit)].map(|w| w.join().unwrap()));
        answers.sort_by_key(|answer| answer.status);
        answers[0].shows(version + 1, version * 500);
        answers[1].is_problem(412, &format!("at version {}", version + 1));
    }
    server.stop();
}

/// Without a demand, writers on one account take turns and all of them win.
#[test]
fn writers_that_demand_no_version_all_write() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(server.post("alice", &[], DEPOSIT).status, 200));
        }
    });
    server.get("/accounts/alice").shows(9, 4_000);
    server.stop();
}

/// A response was lost because the server was restarted, so the client sends the command again.
#[test]
fn a_retry_under_its_key_gets_the_first_response_after_a_restart() {
    let (folder, path) = fresh();
    let key: &[_] = &[("Idempotency-Key", "payment-17"), ("If-Match", "\"1\"")];
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    let first = server.post("alice", key, DEPOSIT);
    first.shows(2, 500);
    assert_eq!(server.post("alice", key, DEPOSIT), first);
    server.post("alice", &[], DEPOSIT).shows(3, 1_000);
    server.stop();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the store was closed");

    let server = Server::start(&path);
    assert_eq!(server.post("alice", key, DEPOSIT), first);
    server.get("/accounts/alice").shows(3, 1_000);
    server.post("alice", key, r#"{"deposit": {"cents": 1}}"#).is_problem(400, "payment-17 was used before");
    server.stop();
}

#[test]
fn the_trace_of_a_request_is_kept_beside_its_events() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[("traceparent", TRACE)], OPEN).shows(1, 0);
    server.post("alice", &[], DEPOSIT).shows(2, 500);
    server.stop();
    let of = |key| -> Vec<_> {
        let events = stored(&path, "alice");
        events.iter().map(|event| event.metadata.as_ref().unwrap().text(key)).collect()
    };
    assert_eq!(of(Provenance::TRACEPARENT), [Some(TRACE.to_owned()), None]);
    assert_eq!(of(Provenance::COMMAND), [Some("open".to_owned()), Some("deposit".to_owned())]);
}

#[test]
fn balances_show_the_command_whose_position_is_given() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    for n in 1..=20 {
        let position = server.post("alice", &[], DEPOSIT).json()["position"].clone();
        let balances = server.get(&format!("/balances?after={position}"));
        assert_eq!(balances.json(), json!([{"account": "alice", "owner": "Alice", "cents": n * 500}]));
    }
    assert_eq!(server.get("/balances").status, 200);
    let began = Instant::now();
    server.get("/balances?after=1000").is_problem(503, "try again");
    assert!(began.elapsed() >= Duration::from_secs(2), "it waited");
    server.interrupt();
}

#[test]
fn events_are_sent_as_they_happen_and_go_on_after_the_last_one_that_was_seen() {
    let (_folder, path) = fresh();
    let mut server = Server::start(&path);
    server.post("alice", &[], OPEN);
    let event = |id: u64, name: &str, data: Value| Some((id.to_string(), name.to_owned(), data));
    let opened = event(1, "account.opened", json!({"owner": "Alice"}));
    let deposited = |id| event(id, "account.deposited", json!({"cents": 500}));

    let mut all = server.events("alice", &[]);
    assert_eq!(all.next(), opened);
    server.post("alice", &[], DEPOSIT);
    assert_eq!(all.next(), deposited(2));
    drop(all);
    server.post("alice", &[], DEPOSIT);
    let mut rest = server.events("alice", &[("Last-Event-ID", "2")]);
    assert_eq!(rest.next(), deposited(3));
    server.post("alice", &[], r#"{"withdraw": {"cents": 100}}"#);
    assert_eq!(rest.next(), event(4, "account.withdrawn", json!({"cents": 100})));

    // A watch would go on for ever; it ends with the server, and does not keep it from ending.
    let mut unborn = server.events("bob", &[]);
    server.interrupt();
    assert_eq!((rest.next(), unborn.next()), (None, None));
    let (status, log) = server.ended();
    assert!(status.success() && log.is_empty(), "{log}");
}

/// A client announces a body and never sends it.
#[test]
fn a_client_that_hangs_does_not_keep_the_server_from_ending() {
    let (_folder, path) = fresh();
    let mut server = Server::start(&path);
    let mut hanging = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let head =
        "POST /accounts/alice HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    hanging.write_all(head.as_bytes()).unwrap();
    server.post("alice", &[], OPEN).shows(1, 0);
    server.interrupt();
    let (status, log) = server.ended();
    assert!(status.success() && log.contains("a client hangs"), "{log}");
}

/// Another process holds the store for longer than a client should wait.
#[test]
fn a_busy_store_is_a_problem_for_a_moment() {
    let (_folder, path) = fresh();
    let mut server = Server::start(&path);
    server.post("alice", &[], OPEN);
    assert_eq!(server.get("/balances?after=1").status, 200);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    server.post("alice", &[], DEPOSIT).is_problem(503, "try again");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    server.post("alice", &[], DEPOSIT).shows(2, 500);
    server.interrupt();
    let (status, log) = server.ended();
    assert!(status.success() && log.contains("other processes held the store"), "{log}");
}

/// The table is broken, so the projection cannot go on: the server ends with a failure instead of showing old balances.
#[test]
fn a_server_whose_projection_failed_ends() {
    let (_folder, path) = fresh();
    let mut server = Server::start(&path);
    server.post("alice", &[], OPEN);
    assert_eq!(server.get("/balances?after=1").status, 200);
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("DROP TABLE balances").unwrap();
    drop(file);
    server.post("alice", &[], DEPOSIT).shows(2, 500);
    let (status, log) = server.ended();
    assert!(!status.success() && log.contains("no such table: balances"), "{log}");
}

/// An event of the account is damaged: the server says so in its log, and nothing of it to the client.
#[test]
fn an_error_of_the_server_tells_the_client_no_details() {
    let (_folder, path) = fresh();
    let server = Server::start(&path);
    server.post("alice", &[], OPEN);
    server.post("alice", &[], DEPOSIT);
    server.post("alice", &[], DEPOSIT);
    server.stop();
    let file = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(file.execute("UPDATE es_event SET payload = x'00' WHERE version = 2", []).unwrap(), 1);
    drop(file);

    let mut server = Server::start(&path);
    let (read, written) = (server.get("/accounts/alice"), server.post("alice", &[], DEPOSIT));
    for answer in [read, written] {
        answer.is_problem(500, "the server is at fault");
        assert!(!answer.body.contains("alice") && !answer.body.contains("damaged"), "{}", answer.body);
    }
    assert_eq!(server.get("/balances").status, 200);
    server.interrupt();
    assert!(server.ended().1.contains("damaged at position 2"));
}
