//! Clocks, percentiles, and the operating system's figures about this process.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;

/// A count, formatted for people.
#[expect(clippy::cast_precision_loss, reason = "figures for people; counts here stay far below 2^52")]
pub fn figure(count: u64) -> f64 {
    count as f64
}

/// How long a [`Duration`] is in microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Durations by percentiles, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many durations.
    pub count: u64,
    /// Pairs of a percentile and its duration.
    pub points: Vec<(f64, f64)>,
}

impl Latency {
    /// The percentiles that are kept.
    pub const PERCENTILES: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0];

    /// Sorts durations into percentiles.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let last = durations.len().saturating_sub(1);
        let at = |percentile: f64| durations.get(part_of(last, percentile / 100.0)).map_or(0.0, |d| micros(*d));
        let points = Self::PERCENTILES.iter().map(|percentile| (*percentile, at(*percentile))).collect();
        Self { count: durations.len() as u64, points }
    }

    /// The duration of a percentile; one of [`Self::PERCENTILES`].
    pub fn at(&self, percentile: f64) -> f64 {
        let near = |point: &&(f64, f64)| (point.0 - percentile).abs() < 1e-6;
        self.points.iter().find(near).map_or(f64::NAN, |(_, us)| *us)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a slice, from a part between 0 and 1"
)]
fn part_of(last: usize, part: f64) -> usize {
    (last as f64 * part).round() as usize
}

/// The median; for an even number of values the mean of the two in the middle.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
    figures.sort_unstable_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2).copied();
    let lower = figures.get(figures.len().saturating_sub(1) / 2).copied();
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(lower, upper),
        _ => f64::NAN,
    }
}

/// The smallest and the largest.
pub fn spread(figures: impl IntoIterator<Item = f64>) -> (f64, f64) {
    figures.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), f| (low.min(f), high.max(f)))
}

/// The peak memory of this process, in bytes; 0 if the system does not provide it.
pub fn peak_rss_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// The current memory of this process, in bytes; 0 if the system does not provide it.
pub fn rss_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// The processor time of all live threads of this process; zero if the system does not provide it.
pub fn cpu_time() -> Duration {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let nanos = threads.flatten().filter_map(|thread| {
        let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// The processor time that this process has used, including ended threads, in steps of 10 ms.
pub fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted behind the program's name, which may hold blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// How long this disk currently takes to persist 4 KiB: the median of some writes with fdatasync.
pub fn fsync_micros(dir: &Path) -> Result<f64> {
    let path = dir.join("fsync");
    let mut file = fs::File::create(&path)?;
    let mut taken = Vec::new();
    for _ in 0..25 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        taken.push(micros(begun.elapsed()));
    }
    fs::remove_file(path)?;
    Ok(median(taken))
}

/// The size of a file; 0 if there is none.
pub fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Pseudo-random numbers: random enough to spread work, and the same in every run.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Creates dice with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_durations() {
        let latency = Latency::of((0..=100).rev().map(Duration::from_micros).collect());
        assert!((latency.at(50.0) - 50.0).abs() < 1e-9);
        assert!((latency.at(99.0) - 99.0).abs() < 1e-9);
        assert!((latency.at(100.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median([4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
    }
}
