//! The file of an open database: its path, and whether it is still there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use es_framework::StoreError;

use crate::connection::errors;
use crate::error::OpenError;
use crate::opening::errors as refused;

/// How long a file that was found at its path is assumed to stay there: a check costs 1 to 2 µs, and a short read 20.
const PRESENT: Duration = Duration::from_millis(20);
/// The maximum number of links that are followed.
#[cfg(unix)]
const LINKS: u32 = 40;
/// The longest path that SQLite opens: 512 bytes, including the suffixes of the files next to it.
#[cfg(unix)]
const PATH_BYTES: usize = 512 - ENDING;
/// The longest file name on most file systems, without such a suffix.
const NAME_BYTES: usize = 255 - ENDING;
/// The length of the longest suffix, `-journal`.
const ENDING: usize = 8;

/// A database file that is open.
///
/// Connections are opened one by one, when they are needed, and SQLite opens by path. In between, the process may
/// change its current folder, a link may be redirected, or the file replaced. So the path is resolved once, by
/// [`resolve`], and each further connection checks that the same file is still there.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    identity: Identity,
}

impl DatabaseFile {
    /// Records which file is at a resolved path, right after a connection to it was opened.
    pub(crate) fn opened(path: PathBuf) -> Result<Self, StoreError> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file next to it, such as `-wal`.
    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        beside(&self.path, ending)
    }

    /// Checks that the file is still at its path. Costs 1 to 2 µs.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if identity(&self.path)? == self.identity {
            return Ok(());
        }
        Err(errors::changed(format!("another file is at {}", self.path.display())))
    }
}

/// Checks from time to time that a file is still at its path: writes to a file that was replaced are lost, and nobody
/// else sees them.
#[derive(Debug)]
pub(crate) struct Presence {
    file: DatabaseFile,
    seen: Option<Instant>,
}

impl Presence {
    pub(crate) fn of(file: DatabaseFile) -> Self {
        Self { file, seen: None }
    }

    pub(crate) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Checks the file, unless it was there a moment ago.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        if self.seen.is_some_and(|seen| seen.elapsed() < PRESENT) {
            return Ok(());
        }
        self.seen = None;
        self.file.check()?;
        self.seen = Some(Instant::now());
        Ok(())
    }
}

pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

/// What tells a file from another one at the same path; empty where the operating system has no such number.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = ();

fn identity(path: &Path) -> Result<Identity, StoreError> {
    match fs::metadata(path) {
        #[cfg(unix)]
        Ok(metadata) => {
            use std::os::unix::fs::MetadataExt as _;
            Ok((metadata.dev(), metadata.ino()))
        }
        #[cfg(not(unix))]
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(errors::changed(format!("there is no file at {} any more", path.display())))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(StoreError::PermissionDenied { source: error.into() })
        }
        Err(error) => Err(StoreError::Io { source: error.into() }),
    }
}

/// Resolves a path to the file it names right now, as an absolute path without links.
pub(crate) fn resolve(given: &Path) -> Result<PathBuf, OpenError> {
    // SQLite has names that are not files.
    if given.as_os_str().is_empty() || given.as_os_str() == ":memory:" {
        return Err(refused::not_a_store(given, "it does not name a file; for a store in memory use `in_memory()`"));
    }
    let path = followed(given).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => refused::missing(given),
        ErrorKind::PermissionDenied => refused::denied(given, "is in a folder that cannot be entered", error),
        ErrorKind::InvalidFilename => refused::too_long(given, error.to_string()),
        _ => StoreError::Io { source: error.into() }.into(),
    })?;
    check_length(&path)?;
    Ok(path)
}

/// Follows links even if the last one points to nothing yet.
#[cfg(unix)]
fn followed(given: &Path) -> std::io::Result<PathBuf> {
    let mut path = given.to_owned();
    for _ in 0..LINKS {
        let Some(name) = path.file_name() else { return fs::canonicalize(path) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = fs::canonicalize(folder)?;
        let found = folder.join(name);
        match fs::symlink_metadata(&found) {
            Ok(metadata) if metadata.is_symlink() => path = folder.join(fs::read_link(&found)?),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(found),
        }
    }
    // Fails as the operating system does, which gives up earlier than we do.
    fs::canonicalize(given)
}

/// On other systems `canonicalize` returns paths that many programs do not understand.
#[cfg(not(unix))]
fn followed(given: &Path) -> std::io::Result<PathBuf> {
    std::path::absolute(given)
}

fn check_length(path: &Path) -> Result<(), OpenError> {
    #[cfg(unix)]
    {
        let bytes = path.as_os_str().len();
        if bytes > PATH_BYTES {
            return Err(refused::too_long(path, format!("it has {bytes} bytes, and SQLite takes {PATH_BYTES}")));
        }
    }
    let bytes = path.file_name().map_or(0, std::ffi::OsStr::len);
    if bytes > NAME_BYTES {
        let reason = format!(
            "the file's name has {bytes} bytes; at most {NAME_BYTES} leave room for the files that SQLite creates"
        );
        return Err(refused::too_long(path, reason));
    }
    Ok(())
}

/// Rejects a file that has more than one name: SQLite keeps the newest commits in a file next to one of them.
pub(crate) fn check_names(path: &Path) -> Result<(), OpenError> {
    #[cfg(unix)]
    {
        let names = fs::metadata(path).map_or(1, |metadata| std::os::unix::fs::MetadataExt::nlink(&metadata));
        if names > 1 {
            return Err(OpenError::SeveralNames { path: path.to_owned(), names });
        }
    }
    #[cfg(not(unix))]
    let _unknown = path;
    Ok(())
}

/// Makes the files next to a database writable where the database itself is. SQLite gives them the permissions of the
/// database, so files left over from when it was write-protected still are.
pub(crate) fn share_permissions(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let write = |metadata: &fs::Metadata| metadata.permissions().mode() & 0o222;
        let Ok(database) = fs::metadata(path) else { return };
        for ending in ["-wal", "-shm"] {
            let other = beside(path, ending);
            if let Ok(metadata) = fs::metadata(&other)
                && write(&metadata) & write(&database) != write(&database)
                && let Err(error) = fs::set_permissions(&other, database.permissions())
            {
                tracing::debug!(%error, path = %other.display(), "could not make a file of the store writable");
            }
        }
    }
    #[cfg(not(unix))]
    let _unknown = path;
}

/// The reason why the operating system did not let SQLite open the database's file itself, if permissions are the
/// cause.
///
/// Checked only after SQLite has failed, and by trying, because access lists and read-only file systems do not show in
/// a file's mode. SQLite does not report the operating system's error.
pub(crate) fn why_denied(path: &Path, write: bool) -> Option<OpenError> {
    let error = refused(path, write)?;
    let reason = match refused(path, false) {
        Some(_) => "cannot be read",
        None => "cannot be written; to only look at it, open it with `read_only(true)`",
    };
    Some(refused::denied(path, reason, error))
}

/// Like [`why_denied`], for the files next to it, and for the folder in which they are created.
pub(crate) fn why_denied_beside(path: &Path, write: bool) -> Option<OpenError> {
    let denied = |ending| {
        let other = beside(path, ending);
        refused(&other, write).map(|error| refused::denied(&other, "belongs to the store and cannot be opened", error))
    };
    if let Some(error) = denied("-wal").or_else(|| denied("-journal")) {
        return Some(error);
    }
    let folder = path.parent()?;
    let probe = beside(path, &format!("-{:x}", std::process::id()));
    match fs::File::options().write(true).create_new(true).open(&probe) {
        Ok(_) => drop(fs::remove_file(&probe)),
        Err(error) if is_denied(&error) => {
            let reason = "cannot be written, and SQLite keeps files beside a store that is open";
            return Some(refused::denied(folder, reason, error));
        }
        Err(_) => {}
    }
    denied("-shm")
}

/// Tries to open a file. If that succeeds, which is not expected, the handle is never closed: closing it would drop
/// every lock that this process has on the file, including those of another open store.
fn refused(path: &Path, write: bool) -> Option<std::io::Error> {
    match fs::File::options().read(true).write(write).open(path) {
        Ok(file) => {
            std::mem::forget(file);
            None
        }
        Err(error) => Some(error).filter(is_denied),
    }
}

fn is_denied(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
