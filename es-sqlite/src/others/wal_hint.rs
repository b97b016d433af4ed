//! What a look at the `-wal` file's metadata tells of commits.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How long after a change every look is one at the log: a commit shows later than its frames, which are written and
/// flushed before, and the frames of several commits within one tick of the file system's clock (1 to 10 ms) bear the
/// same time.
const SETTLED: Duration = Duration::from_secs(1);
/// The log is looked at so often at least, whatever the metadata says.
const ANYWAY: Duration = Duration::from_secs(1);

/// The `-wal` file beside a database. Each commit writes a frame to it, and so changes the time of its last write.
///
/// To ask for that time costs 5 µs, and `PRAGMA data_version` takes and gives back a lock of the file: 50 µs, at every
/// look of a poller that itself costs 30 µs to wake.
///
/// Asked by path and never by a handle of our own: [`open::look`](crate::opening::open::look) says why.
#[derive(Debug)]
pub(crate) struct WalFile {
    /// None if its metadata do not tell of commits: then the log is looked at always.
    path: Option<PathBuf>,
    stamp: Option<Stamp>,
    /// When the stamp was last found to be another.
    changed: Instant,
    /// When the log was last looked at.
    looked: Instant,
}

type Stamp = (SystemTime, u64);

/// Whether the log is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing was written.
    Needless,
    /// Something may have been written.
    Needed,
    /// Nothing was written as far as the metadata say, and they said so for long.
    ToBeSure,
}

impl WalFile {
    pub(crate) fn of(path: PathBuf, now: Instant) -> Self {
        // Elsewhere than on Unix the time of the last write may not change before the writer closes the file.
        let path = Some(path).filter(|_| cfg!(unix));
        Self { path, stamp: None, changed: now, looked: now }
    }

    /// Asks for the metadata.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        let stamp = self.path.as_ref().and_then(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        });
        if stamp != self.stamp {
            (self.stamp, self.changed) = (stamp, now);
        }
        let look = if stamp.is_none() || now.saturating_duration_since(self.changed) < SETTLED {
            Look::Needed
        } else if now.saturating_duration_since(self.looked) >= ANYWAY {
            Look::ToBeSure
        } else {
            Look::Needless
        };
        if look != Look::Needless {
            self.looked = now;
        }
        look
    }

    /// Never trusts the metadata again: there was a commit that they did not tell of, for example because the file system
    /// keeps no such time.
    pub(crate) fn distrust(&mut self) {
        tracing::debug!(path = ?self.path, "the -wal file's time does not tell of commits: looking at the log each time");
        (self.path, self.stamp) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use tokio_rusqlite::rusqlite::Connection;

    use super::*;

    const LATER: Duration = Duration::from_secs(2);

    fn database(folder: &tempfile::TempDir, name: &str) -> Connection {
        let connection = Connection::open(folder.path().join(name)).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x)").unwrap();
        connection
    }

    fn age(wal: &WalFile) {
        let file = fs::File::options().write(true).open(wal.path.as_ref().unwrap()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_commit_after_a_long_pause_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let writer = database(&folder, "log.db");
        let start = Instant::now();
        let mut wal = WalFile::of(folder.path().join("log.db-wal"), start);
        assert_eq!(wal.look(start), Look::Needed, "nothing is known yet");
        age(&wal);
        assert_eq!(wal.look(start), Look::Needed);
        for round in 1..=3 {
            let now = start + LATER * round;
            assert_eq!(wal.look(now), Look::ToBeSure);
            assert_eq!(wal.look(now), Look::Needless);
            // From the second on the file is written over from its begin, and does not become longer.
            writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
            writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            assert_eq!(wal.look(now), Look::Needed, "round {round}");
            age(&wal);
            wal.look(now);
        }
    }

    /// The second of two commits in one tick changes nothing that the first has not changed, and may follow a look.
    #[test]
    fn commits_within_one_tick_are_looked_for_until_the_file_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let _writer = database(&folder, "log.db");
        let start = Instant::now();
        let mut wal = WalFile::of(folder.path().join("log.db-wal"), start);
        age(&wal);
        for n in 0..1_000 {
            let now = start + Duration::from_millis(n);
            assert_eq!(wal.look(now), Look::Needed, "{n} ms after the change");
        }
        let settled = start + SETTLED;
        assert_eq!(wal.look(settled), Look::Needless);
        assert_eq!(wal.look(settled + ANYWAY), Look::ToBeSure);
    }

    #[test]
    fn where_the_file_is_not_to_be_trusted_or_gone_the_log_is_looked_at_always() {
        let folder = tempfile::tempdir().unwrap();
        let _writer = database(&folder, "log.db");
        let path = folder.path().join("log.db-wal");
        for gone in [false, true] {
            let start = Instant::now();
            let mut wal = WalFile::of(path.clone(), start);
            wal.look(start);
            if gone {
                fs::rename(&path, folder.path().join("elsewhere")).unwrap();
            } else if wal.path.is_some() {
                assert_eq!(wal.look(start + LATER), Look::ToBeSure, "it was trusted");
                wal.distrust();
            }
            for n in 1..10 {
                assert_eq!(wal.look(start + LATER * n), Look::Needed);
                assert_eq!(wal.look(start + LATER * n), Look::Needed);
            }
        }
    }
}
