//! What the `-wal` file's metadata reveals about commits.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How long after a change every look checks the log itself: a commit becomes visible later than its frames, which are
/// written and flushed before, and the frames of several commits within one tick of the file system's clock (1 to 10
/// ms) have the same timestamp.
const SETTLED: Duration = Duration::from_secs(1);
/// The log is checked at least this often, whatever the metadata says.
const ANYWAY: Duration = Duration::from_secs(1);

/// The `-wal` file of a database. Each commit writes a frame to it, and so changes its modification time.
///
/// Reading that time costs 5 µs, while `PRAGMA data_version` takes and releases a file lock: 50 µs, at every look of a
/// poller that itself costs 30 µs to wake.
///
/// Read by path and never through a handle of our own: [`open::look`](crate::opening::open::look) says why.
#[derive(Debug)]
pub(crate) struct WalFile {
    /// [`None`] if its metadata does not reveal commits: then the log is always checked.
    path: Option<PathBuf>,
    stamp: Option<Stamp>,
    /// When the stamp last changed.
    changed: Instant,
    /// When the log was last checked.
    looked: Instant,
}

type Stamp = (SystemTime, u64);

/// Whether the log has to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing was written.
    Needless,
    /// Something may have been written.
    Needed,
    /// Nothing was written according to the metadata, but it has said so for a while.
    ToBeSure,
}

impl WalFile {
    pub(crate) fn of(path: PathBuf, now: Instant) -> Self {
        // On systems other than Unix the modification time may not change until the writer closes the file.
        let path = Some(path).filter(|_| cfg!(unix));
        Self { path, stamp: None, changed: now, looked: now }
    }

    /// Reads the metadata.
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

    /// Stops trusting the metadata: there was a commit that it did not show, for example because the file system keeps
    /// no such time.
    pub(crate) fn distrust(&mut self) {
        tracing::debug!(path = ?self.path, "the -wal file's time does not reveal commits: checking the log each time");
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
            // From the second round on the file is overwritten from the start, and does not grow.
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
