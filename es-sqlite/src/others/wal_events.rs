//! Changes of the `-wal` file, as Linux reports them.

#[cfg(target_os = "linux")]
pub(super) use linux::{Bell, WalEvents};
#[cfg(not(target_os = "linux"))]
pub(super) use nowhere::{Bell, WalEvents};

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::path::PathBuf;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::io::Errno;

    /// What is watched: writes, and everything after which another file may be at the path.
    const WATCHED: WatchFlags =
        WatchFlags::MODIFY.union(WatchFlags::ATTRIB).union(WatchFlags::MOVE_SELF).union(WatchFlags::DELETE_SELF);
    /// After these, the file at the path is looked up again.
    const MOVED: ReadFlags =
        ReadFlags::ATTRIB.union(ReadFlags::MOVE_SELF).union(ReadFlags::DELETE_SELF).union(ReadFlags::IGNORED);

    /// Reports of inotify that the `-wal` file was written, from whatever process.
    ///
    /// The file is watched by its inode and never opened: [`open::look`](crate::opening::open::look) says why.
    #[derive(Debug)]
    pub(crate) struct WalEvents {
        inotify: OwnedFd,
        path: PathBuf,
        /// The inode that is watched.
        watch: i32,
    }

    impl WalEvents {
        /// Watches the file at this path.
        ///
        /// # Errors
        ///
        /// The operating system's: there is no such file, or the user's share of watches is used up.
        pub(crate) fn of(path: PathBuf) -> io::Result<Self> {
            let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            let watch = inotify::add_watch(&inotify, &path, WATCHED)?;
            Ok(Self { inotify, path, watch })
        }

        /// Takes all reports; returns whether there were any.
        ///
        /// # Errors
        ///
        /// The operating system's: the file can no longer be watched.
        pub(crate) fn take(&mut self) -> io::Result<bool> {
            let (mut any, mut moved) = (false, false);
            let mut buffer = [MaybeUninit::uninit(); 1_024];
            let mut reports = Reader::new(&self.inotify, &mut buffer);
            loop {
                match reports.next() {
                    // An overflow is a report, too: something changed.
                    Ok(report) => (any, moved) = (true, moved || report.events().intersects(MOVED)),
                    Err(Errno::WOULDBLOCK) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if moved {
                self.renew()?;
            }
            Ok(any)
        }

        /// Watches the file that is at the path now. If it is still the same, nothing changes.
        pub(crate) fn renew(&mut self) -> io::Result<()> {
            let watch = inotify::add_watch(&self.inotify, &self.path, WATCHED)?;
            if watch != self.watch {
                // Fails if the old file is gone, which ended its watch.
                let _ = inotify::remove_watch(&self.inotify, self.watch);
                self.watch = watch;
            }
            Ok(())
        }

        /// Waits until there is a report, the bell rings or the time is over; returns false if it cannot wait.
        pub(crate) fn wait(&self, bell: &Bell, time: Duration) -> bool {
            let Some(bell) = &bell.eventfd else { return false };
            let Ok(time) = Timespec::try_from(time) else { return false };
            let mut wanted = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
            match rustix::event::poll(&mut wanted, Some(&time)) {
                Ok(_) => {
                    let rung = wanted.last().is_some_and(|bell| !bell.revents().is_empty());
                    if rung {
                        // Resets it; it cannot fail with anything but "not rung".
                        let _ = rustix::io::read(bell, &mut [0; 8]);
                    }
                    true
                }
                Err(Errno::INTR) => true,
                Err(_) => false,
            }
        }
    }

    /// Interrupts [`WalEvents::wait`]. Once rung, it ends the next wait, too, if nobody waits right now.
    #[derive(Debug)]
    pub(crate) struct Bell {
        /// [`None`] if this process has no file descriptor left.
        eventfd: Option<OwnedFd>,
    }

    impl Default for Bell {
        fn default() -> Self {
            let eventfd = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
            Self { eventfd: eventfd.ok() }
        }
    }

    impl Bell {
        pub(crate) fn ring(&self) {
            if let Some(eventfd) = &self.eventfd {
                // It can only be full, and then it is rung.
                let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::convert::Infallible;
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    /// Other systems have no such reports that need no thread of their own.
    #[derive(Debug)]
    pub(crate) struct WalEvents(Infallible);

    impl WalEvents {
        pub(crate) fn of(_: PathBuf) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn take(&mut self) -> io::Result<bool> {
            match self.0 {}
        }

        pub(crate) fn renew(&mut self) -> io::Result<()> {
            match self.0 {}
        }

        pub(crate) fn wait(&self, _: &Bell, _: Duration) -> bool {
            match self.0 {}
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Bell;

    impl Bell {
        pub(crate) fn ring(&self) {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use tokio_rusqlite::rusqlite::Connection;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn commits_are_reported_even_after_the_file_was_reset_emptied_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().join("log.db-wal");
        assert!(WalEvents::of(wal.clone()).is_err(), "there is no such file");
        let writer = Connection::open(folder.path().join("log.db")).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x)").unwrap();
        let commit = || writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        let checkpoint = |mode: &str| {
            writer.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).unwrap();
        };
        let (mut events, bell) = (WalEvents::of(wal.clone()).unwrap(), Bell::default());
        assert!(!events.take().unwrap());
        for before in ["", "PASSIVE", "RESTART", "TRUNCATE"] {
            if !before.is_empty() {
                checkpoint(before);
                events.take().unwrap();
            }
            assert!(!events.take().unwrap());
            commit();
            let begun = Instant::now();
            assert!(events.wait(&bell, LONG) && begun.elapsed() < LONG);
            assert!(events.take().unwrap(), "after {before:?}");
            assert!(!events.take().unwrap());
        }
        // As after a restored backup: another file, first with the old one still there and then without.
        for gone in [false, true] {
            if gone {
                fs::remove_file(&wal).unwrap();
                fs::write(&wal, "").unwrap();
            } else {
                fs::rename(&wal, folder.path().join("old")).unwrap();
                fs::write(&wal, "").unwrap();
            }
            assert!(events.take().unwrap(), "it went away");
            events.take().unwrap();
            fs::write(&wal, "written").unwrap();
            assert!(events.take().unwrap(), "the new one is watched");
        }
        fs::remove_file(&wal).unwrap();
        assert!(events.take().is_err(), "there is nothing to watch");
    }

    #[test]
    fn a_bell_that_rings_early_is_heard_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let (events, bell) = (WalEvents::of(file).unwrap(), Bell::default());
        for _ in 0..2 {
            bell.ring();
            bell.ring();
            let begun = Instant::now();
            assert!(events.wait(&bell, LONG) && begun.elapsed() < LONG);
            let begun = Instant::now();
            assert!(events.wait(&bell, Duration::from_millis(5)) && begun.elapsed() >= Duration::from_millis(5));
        }
    }
}
