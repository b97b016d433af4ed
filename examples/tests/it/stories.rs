//! `counter`, `bank` and `courses`.

use crate::{program, stderr, stdout};

#[test]
fn counter_shows_the_log_from_end_to_end() {
    let output = program("counter").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let story = stdout(&output);
    for said in [
        "counter-visitors is at version 2, the log at position 2",
        "Decreased { by: 3 }, so the value is 7",
        "is at version 2, expected version 1",
        "watcher: version 4 Increased { by: 20 }",
        "the watcher saw 4 events, the last of them a reset",
        "from the snapshot: 4 events read, value 10",
        "from the start:    9 events read, value 10",
    ] {
        assert!(story.contains(said), "{said:?} is not in:\n{story}");
    }
}

#[test]
fn bank_tells_its_story_and_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = program("bank").env("TMPDIR", folder.path()).env("TEMP", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let story = stdout(&output);
    for said in [
        "rejected, €9,000.00 requested, only €150.00 available",
        "again: known already, nothing written",
        "returned: the account is closed",
        "to carol: rejected, the account is closed",
        "noticed at the write, loaded what was new and decided again: 1 conflict",
        "bob has €453.00 at version 8",
        "at version 3: €1,250.50; now, at version 8: €950.50",
        "transfer 91: completed after 2 steps",
        "transfer 92: completed after 3 steps",
        "read again from the beginning: nothing is sent again",
        "killed after some letters",
        "started again: ",
        "every effect repeated: ",
    ] {
        assert!(story.contains(said), "{said:?} is not in:\n{story}");
    }
    let entries = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file()).map(|entry| entry.file_name());
    let files: Vec<_> = files.collect();
    assert_eq!(files.len(), 1, "no -wal or -shm stays behind: {files:?}");
}

#[test]
fn bank_does_not_touch_a_file_that_is_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = program("bank").arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("name another"));
    assert_eq!(file.path().metadata().unwrap().len(), 0);
}

#[test]
fn courses_keeps_its_rules_under_64_callers() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["--memory"]] {
        let mut courses = program("courses");
        let output = courses.args(arguments).env("TMPDIR", folder.path()).env("TEMP", folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let story = stdout(&output);
        for said in [
            "the user name is taken",
            "again: known already, nothing written",
            "subscribing to c00: ",
            "193 students with unique names, ",
            "full and none overbooked",
            "of 10 courses, invoices 1 to",
        ] {
            assert!(story.contains(said), "{said:?} is not in:\n{story}");
        }
    }
}
