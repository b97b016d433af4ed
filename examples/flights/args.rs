//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: flights FILE.csv[.gz] [--db PATH] [--json]

  FILE     an airline log with a header line, plain or gzipped
  --db     where the events are kept; the tables go next to it, into PATH.tables
           (without it: a temporary file, removed at the end)
  --json   the summary as one JSON object on stdout, instead of tables";

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) file: PathBuf,
    pub(crate) db: Option<PathBuf>,
    pub(crate) json: bool,
}

/// What a command line can request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Run(Args),
    Help,
}

/// Parses the command line, without the program's name; the error says what is wrong with it.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let (mut file, mut db, mut json) = (None, None, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--help" | "-h") => return Ok(Request::Help),
            Some("--json") => json = true,
            Some("--db") => match args.next() {
                Some(path) if db.is_none() && !path.is_empty() => db = Some(PathBuf::from(path)),
                Some(path) if path.is_empty() => return Err("--db needs a path".to_owned()),
                Some(_) => return Err("--db is given twice".to_owned()),
                None => return Err("--db needs a path".to_owned()),
            },
            Some(option) if option.starts_with("--db=") => {
                return Err(format!("write --db PATH, with a space, instead of {option}"));
            }
            Some(option) if option.starts_with('-') => return Err(format!("unknown option {option}")),
            _ if file.is_none() => file = Some(PathBuf::from(arg)),
            _ => return Err(format!("one file at a time: {} is one too many", arg.display())),
        }
    }
    let file = file.ok_or("which file?")?;
    Ok(Request::Run(Args { file, db, json }))
}
