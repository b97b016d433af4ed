//! `flights`, on the real file and on pieces of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use es_sqlite::rusqlite::{Connection, types::Value};
use flate2::read::GzDecoder;
use serde_json::Value as Json;

use crate::{january, program, stderr, stdout};

/// Every row of both tables.
type Tables = Vec<Vec<Value>>;

/// The result of an undisturbed run.
static UNDISTURBED: LazyLock<(Json, Json, Tables)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("flights.db");
    let first = summary(&run(&january(), &db));
    let second = summary(&run(&january(), &db));
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["flights.db", "flights.db.tables"], "no -wal or -shm stays behind");
    (first, second, tables(&db))
});

#[test]
fn a_month_of_flights_comes_out_as_it_went_in() {
    let (first, ..) = &*UNDISTURBED;
    // Counted with other tools: 521 rows without a departure time, 85 that departed and have no arrival delay.
    for (key, number) in
        [("rows", 27_004), ("cancelled", 521), ("diverted", 85), ("events", 80_491), ("written", 80_491)]
    {
        assert_eq!(first[key], number, "{key}");
    }
    assert_eq!(first["carriers"].as_array().unwrap().len(), 16);
    let hawaiian = first["carriers"].as_array().unwrap().iter().find(|carrier| carrier["carrier"] == "HA").unwrap();
    assert_eq!(hawaiian["flights"], 31);
    assert_eq!(hawaiian["mean_departure_delay"], 1686.0 / 31.0);
    assert!(first["seconds"].as_f64() > Some(0.0) && first["file_bytes"].as_u64() > Some(1_000_000));
}

#[test]
fn a_second_run_adds_nothing() {
    let (first, second, _) = &*UNDISTURBED;
    assert_eq!(second["written"], 0);
    for key in ["rows", "events", "cancelled", "diverted", "carriers", "file_bytes"] {
        assert_eq!(first[key], second[key], "{key}");
    }
}

#[test]
fn a_run_that_was_killed_is_resumed_without_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("flights.db");
    let wal = folder.path().join("flights.db-wal");
    let mut child = flights(&january(), &db).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // Killed twice: early, and once part of the tables exists too.
    for bytes in [300_000, 1_500_000] {
        while wal.metadata().map_or(0, |file| file.len()) < bytes {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            assert!(Instant::now() < deadline, "it wrote less than {bytes} bytes");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        child = flights(&january(), &db).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let resumed = summary(&run(&january(), &db));
    let written = resumed["written"].as_u64().unwrap();
    assert!(written > 0 && written < 80_491, "it was killed part-way, and {written} events were left to write");
    let (undisturbed, _, expected) = &*UNDISTURBED;
    for key in ["rows", "events", "cancelled", "diverted", "carriers"] {
        assert_eq!(resumed[key], undisturbed[key], "{key}");
    }
    assert_eq!(&tables(&db), expected);
}

#[test]
fn rows_that_say_the_same_are_flights_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = lines(20);
    lines.extend_from_within(3..5);
    lines.extend_from_within(3..4);
    let file = write(folder.path().join("twice.csv"), &lines);
    let db = folder.path().join("twice.db");
    let first = summary(&run(&file, &db));
    assert_eq!(first["rows"], 23);
    let second = summary(&run(&file, &db));
    assert_eq!((&second["written"], &second["events"]), (&Json::from(0), &first["events"]));
}

#[test]
fn a_second_file_is_added_and_checked_against_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let all = lines(300);
    let one = write(folder.path().join("one.csv"), &all[..201]);
    let (header, rest) = (all[..1].to_vec(), all[201..].to_vec());
    let two = write(folder.path().join("two.csv"), &[header, rest].concat());
    let db = folder.path().join("both.db");
    assert!(stdout(&run_text(&one, &db)).contains("equal a direct computation over the file"));
    let output = run_text(&two, &db);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("equal a replay of the log, which also holds 200 flights of other files"));
}

#[test]
fn a_wrong_figure_is_named_and_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path().join("few.csv"), &lines(50));
    let db = folder.path().join("few.db");
    assert!(run(&file, &db).status.success());
    let before = tables(&db);
    let connection = Connection::open(tables_file(&db)).unwrap();
    connection.execute("UPDATE carriers SET diverted = diverted + 1 WHERE carrier = 'UA'", []).unwrap();
    connection.close().unwrap();
    assert_ne!(before, tables(&db));
    let output = run(&file, &db);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("carrier UA: diverted is 1, should be 0"), "{}", stderr(&output));
}

#[test]
fn a_bad_row_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let good = lines(30);
    let spoil = |column: usize, with: &str| {
        let mut fields: Vec<&str> = good[17].split(',').collect();
        fields[column] = with;
        fields.join(",")
    };
    let cases = [
        (spoil(5, "late"), "dep_delay is \"late\""),
        (spoil(5, "NA"), "dep_delay is \"NA\""),
        (spoil(1, "13"), "month is \"13\""),
        (spoil(4, "1275"), "sched_dep_time is \"1275\""),
        (spoil(9, ""), "carrier is \"NA\""),
        (spoil(12, "EW R"), "origin is \"EW R\""),
        ("2013,1,1".to_owned(), "this row has 3 columns, expected 19"),
    ];
    for (n, (line, said)) in cases.into_iter().enumerate() {
        let mut lines = good.clone();
        lines[17] = line;
        let file = write(folder.path().join(format!("{n}.csv")), &lines);
        let db = folder.path().join(format!("{n}.db"));
        let output = run(&file, &db);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let error = stderr(&output);
        assert!(error.contains("row 17 (line 18)") && error.contains(said), "{said:?} is not in {error:?}");
        assert!(output.stdout.is_empty() && !db.exists(), "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("none.db");
    let whole = fs::read(january()).unwrap();
    let cut = folder.path().join("cut.csv.gz");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let no_column = write(folder.path().join("column.csv"), &["year,month".to_owned(), "2013,1".to_owned()]);
    let missing = folder.path().join("missing.csv");
    for (file, said) in [
        (&cut, "cannot be read after row"),
        (&no_column, "has no column \"day\""),
        (&missing, "cannot be read"),
        (&folder.path().to_owned(), "cannot be read"),
    ] {
        let output = run(file, &db);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(stderr(&output).contains(said), "{said:?} is not in {}", stderr(&output));
        assert!(!db.exists());
    }
    let not_a_store = write(folder.path().join("text.db"), &lines(3));
    let output = run(&january(), &not_a_store);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn a_command_line_that_cannot_be_understood_is_answered_with_the_usage() {
    for (line, said) in [
        ("", "which file?"),
        ("--jsn a.csv", "unknown option --jsn"),
        ("a.csv b.csv", "b.csv is one too many"),
        ("a.csv --db", "--db needs a path"),
        ("a.csv --db=x.db", "write --db PATH"),
        ("a.csv --db x.db --db y.db", "--db is given twice"),
    ] {
        let output = program("flights").args(line.split_whitespace()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        let error = stderr(&output);
        assert!(error.contains(said) && error.contains("usage:"), "{said:?} is not in {error:?}");
    }
}

fn flights(file: &Path, db: &Path) -> Command {
    let mut command = program("flights");
    command.arg(file).arg("--db").arg(db).arg("--json");
    command
}

fn run(file: &Path, db: &Path) -> Output {
    flights(file, db).output().unwrap()
}

fn run_text(file: &Path, db: &Path) -> Output {
    program("flights").arg(file).arg("--db").arg(db).output().unwrap()
}

/// The JSON object on stdout of a successful run.
fn summary(output: &Output) -> Json {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

fn tables_file(db: &Path) -> PathBuf {
    db.with_extension("db.tables")
}

fn tables(db: &Path) -> Tables {
    let connection = Connection::open(tables_file(db)).unwrap();
    let mut rows = Vec::new();
    for table in ["carriers", "routes"] {
        let mut query = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
        let found = query.query_map([], |row| (0..8).map(|column| row.get(column)).collect()).unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

/// The header and the first `rows` rows of the real file.
fn lines(rows: usize) -> Vec<String> {
    let file = GzDecoder::new(File::open(january()).unwrap());
    BufReader::new(file).lines().take(1 + rows).map(Result::unwrap).collect()
}

fn write(path: PathBuf, lines: &[String]) -> PathBuf {
    let mut file = File::create(&path).unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    path
}
