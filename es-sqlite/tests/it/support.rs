//! Helpers shared by the tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use es_framework::{CandidateEvent, EventId, ExpectedVersion, Store, StoredEvent, StreamId};
use es_sqlite::{SqliteStore, rusqlite};
use tempfile::TempDir;

/// The variable that passes the store's path to a test that runs as a process of its own.
pub(crate) const CHILD: &str = "ES_SQLITE_TEST_STORE";

pub(crate) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    (folder, path)
}

pub(crate) fn event(payload: impl AsRef<str>) -> CandidateEvent {
    CandidateEvent::new("tested", payload.as_ref().to_owned()).unwrap()
}

pub(crate) fn with_id(payload: &str, id: &str) -> CandidateEvent {
    event(payload).with_id(EventId::text(id).unwrap())
}

pub(crate) fn typed(name: &str, payload: &str, id: &str) -> CandidateEvent {
    CandidateEvent::new(name, payload.to_owned()).unwrap().with_id(EventId::text(id).unwrap())
}

pub(crate) fn id(stream: &str) -> StreamId {
    StreamId::new(stream).unwrap()
}

pub(crate) async fn write(store: &Store, stream: &str, payload: &str) {
    store.stream(id(stream)).write(event(payload), ExpectedVersion::Any).await.unwrap();
}

pub(crate) async fn all(store: &Store) -> Vec<StoredEvent> {
    store.all().read().collect().await.unwrap()
}

pub(crate) fn texts(events: &[StoredEvent]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.payload.to_vec()).unwrap()).collect()
}

/// A connection for plain SQL.
pub(crate) fn sql(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

/// Returns the files next to the store whose names start with its name.
pub(crate) fn files(path: &Path) -> Vec<String> {
    let folder = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Builds the command that runs a test of this binary as a process of its own on the store at `path`.
pub(crate) fn command(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, path);
    command
}

/// Runs a test of this binary as a process of its own, on the store at `path`.
pub(crate) fn child(test: &str, path: &Path) -> Child {
    command(test, path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The store of a test that runs as a process of its own; [`None`] when it runs among all others.
pub(crate) fn in_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs `body` in a write transaction on the store's own connection.
pub(crate) async fn on_writer<T: Send + 'static>(
    store: &SqliteStore,
    body: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> T {
    store.transact(body).await.unwrap()
}

/// Deletes rows of the log as a later release will, recording it in the store's generation.
pub(crate) fn delete(path: &Path, condition: &str) {
    let text = |text: &str| [&[2][..], &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
    let generation = [text("meta"), text("generation"), vec![1], 1_i64.to_le_bytes().to_vec()].concat();
    let plain = sql(path);
    let set = "INSERT OR REPLACE INTO es_meta VALUES ('generation', 1, ?1)";
    plain.execute(set, [crc32c::crc32c(&generation).cast_signed()]).unwrap();
    plain.execute(&format!("DELETE FROM es_event WHERE {condition}"), []).unwrap();
}

/// Writes a line to the output of this process, which the test harness does not capture.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Directly to the output: the test harness captures `println!`.
    writeln!(std::io::stdout().lock(), "\n> {line}").unwrap();
}
