//! When to look at the log next, while changes of the `-wal` file are reported.

use std::time::Duration;

/// The pause after the first look that follows a report.
const FIRST: Duration = Duration::from_micros(200);
/// The longest pause: the log is looked at this often even if nothing is reported.
pub(super) const ANYWAY: Duration = Duration::from_secs(1);
/// The shortest time for which reports are ignored because they were of this process.
const IGNORED: Duration = Duration::from_millis(1);

/// What a look at the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No new commit.
    Nothing,
    /// A commit that the notifier knows: one of this process, or one without events.
    Known,
    /// Events of another process.
    News,
}

/// How to rest until the next look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// For this long, or until the next report.
    Listening(Duration),
    /// For this long, whatever is reported.
    Ignoring(Duration),
}

/// The rhythm of the poller's looks.
///
/// A report comes early: a commit's frames are written, then flushed, and only then become visible, which is not
/// reported. So after a report the poller looks again and again, with pauses that grow by a half. A commit that takes
/// 3 ms to be flushed is then seen at most 1 ms later, and a report costs 22 looks of 0.05 ms over three seconds.
///
/// This process's own commits are reported as well, and it may commit thousands of times a second. When a look finds
/// nothing else, the next reports are ignored: for 1 ms, then 2, 4 and so on, up to the poll interval. Meanwhile the
/// writer finds the commits of other processes itself, at its own next commit.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    pause: Duration,
    /// For how long to ignore reports next.
    ignored: Duration,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, pause: FIRST, ignored: Duration::ZERO }
    }

    /// Whether the last report was so long ago that its commit has been seen.
    pub(super) fn is_settled(&self) -> bool {
        self.pause == ANYWAY
    }

    /// Notes that a change was reported.
    pub(super) fn reported(&mut self) {
        self.pause = FIRST;
    }

    /// Notes what a look found, and returns the rest before the next one.
    pub(super) fn after(&mut self, found: Found) -> Rest {
        match found {
            Found::Known => {
                self.ignored = (self.ignored * 2).clamp(IGNORED, self.interval.clamp(IGNORED, ANYWAY));
                return Rest::Ignoring(self.ignored);
            }
            Found::News => self.ignored = Duration::ZERO,
            Found::Nothing => {
                if self.pause > self.interval {
                    self.ignored = Duration::ZERO;
                }
            }
        }
        let pause = self.pause;
        self.pause = (pause + pause / 2).min(ANYWAY);
        Rest::Listening(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(12);

    #[test]
    fn a_commit_that_takes_long_to_flush_is_seen_within_half_of_that_time_again() {
        let mut pace = Pace::new(INTERVAL);
        pace.reported();
        let (mut since, mut looks) = (Duration::ZERO, 0);
        while !pace.is_settled() {
            let Rest::Listening(pause) = pace.after(Found::Nothing) else { panic!("there was nothing of our own") };
            assert!(pause <= FIRST + since / 2, "a pause of {pause:?} at {since:?}");
            (since, looks) = (since + pause, looks + 1);
        }
        assert!((15..30).contains(&looks), "{looks}");
        assert_eq!(pace.after(Found::Nothing), Rest::Listening(ANYWAY));
    }

    /// Every commit of ours is reported while it is written, and found at the look after.
    #[test]
    fn commits_of_our_own_are_looked_at_no_more_often_than_by_polling() {
        let mut pace = Pace::new(INTERVAL);
        let mut rested = Duration::ZERO;
        for _ in 0..100 {
            pace.reported();
            let Rest::Ignoring(pause) = pace.after(Found::Known) else { panic!("a report of ours is listened to") };
            rested += pause;
        }
        assert!(rested > INTERVAL * 95, "{rested:?}");
        pace.reported();
        assert_eq!(pace.after(Found::News), Rest::Listening(FIRST), "another process writes");
        pace.reported();
        assert_eq!(pace.after(Found::Known), Rest::Ignoring(IGNORED));
        while !pace.is_settled() {
            pace.after(Found::Nothing);
        }
        assert_eq!(pace.after(Found::Known), Rest::Ignoring(IGNORED), "the last one was long ago");
    }
}
