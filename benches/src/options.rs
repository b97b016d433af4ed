//! The command line of `compare`.

use std::path::PathBuf;

use crate::Result;
use crate::spec::Mode;

/// How large the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Under a minute: does everything run?
    Quick,
    /// Some minutes.
    Usual,
    /// The sizes of the goals.
    Full,
}

/// What to measure, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The ids of the workloads, such as `W1`; all if empty.
    pub workloads: Vec<String>,
    /// The number of rounds.
    pub rounds: usize,
    /// How large the work is.
    pub size: Size,
    /// Whether other event stores are measured too.
    pub peers: bool,
    /// The modes to measure in.
    pub modes: Vec<Mode>,
    /// The folder for the page; none is written without it.
    pub out: Option<PathBuf>,
    /// The folder for the stores while they are measured.
    pub dir: PathBuf,
}

/// The text of `--help`.
pub const HELP: &str = "Compares the engine with plain rusqlite, and with other event stores.

  cargo run --release -p benches --bin compare -- [options]

  --workloads W1,W3   only these (W1 to W15, WAL); all by default
  --rounds N          how often each is measured, in turns; 5 by default, 2 with --quick
  --quick | --full    small work to see that everything runs | the sizes that the goals are stated for
  --mode MODE         full (fsync before every answer), normal or both; full by default
  --peers             builds and runs benches/peers/* and benches/seeds.py too
  --out FOLDER        where results.json, results.md and the plots are written; nowhere by default
  --dir FOLDER        where the stores are made while they are measured; on the disk to be measured";

impl Options {
    /// Parses the command line; [`None`] if it requests help.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self {
            workloads: Vec::new(),
            rounds: 0,
            size: Size::Usual,
            peers: false,
            modes: vec![Mode::Full],
            out: None,
            dir: std::env::temp_dir(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--workloads" => options.workloads = value()?.split(',').map(str::to_uppercase).collect(),
                "--rounds" => options.rounds = value()?.parse()?,
                "--quick" => options.size = Size::Quick,
                "--full" => options.size = Size::Full,
                "--peers" => options.peers = true,
                "--mode" => {
                    options.modes = match value()?.as_str() {
                        "full" => vec![Mode::Full],
                        "normal" => vec![Mode::Normal],
                        "both" => vec![Mode::Full, Mode::Normal],
                        other => return Err(format!("{other} is neither full nor normal nor both").into()),
                    }
                }
                "--out" => options.out = Some(value()?.into()),
                "--dir" => options.dir = value()?.into(),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("there is no option {other}; see --help").into()),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.size == Size::Quick { 2 } else { 5 };
        }
        Ok(Some(options))
    }

    /// Whether a workload is selected.
    pub fn wants(&self, workload: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|wanted| wanted == workload)
    }

    /// The value for the selected size.
    pub fn pick(&self, quick: u64, usual: u64, full: u64) -> u64 {
        match self.size {
            Size::Quick => quick,
            Size::Usual => usual,
            Size::Full => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let line = "--workloads w1,W3 --rounds 7 --mode both --full".split(' ').map(str::to_owned);
        let options = Options::parse(line).unwrap().unwrap();
        assert!(options.wants("W3") && !options.wants("W2"));
        assert_eq!((options.rounds, options.size, options.modes.len()), (7, Size::Full, 2));
        assert!(Options::parse(["--fast".to_owned()]).is_err());
    }
}
