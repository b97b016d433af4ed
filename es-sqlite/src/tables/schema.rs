//! The tables of the file format, and how an older format is migrated.

use std::borrow::Cow;
use std::collections::HashMap;

use es_framework::{StoreError, StoreId};
use tokio_rusqlite::rusqlite::{self, Connection};

use crate::connection::errors;
use crate::tables::meta;
use crate::tables::postings::{self, TermEnd};

/// `ESLG`, in the database's header.
pub(crate) const APPLICATION_ID: i32 = 0x4553_4C47;

/// The format of a new store.
const CREATED: u32 = 1;
/// The newest format this release knows. A store becomes one of this format with its first tagged event, and not
/// before: a store without tags can still be opened by releases that know none.
pub(crate) const FORMAT: u32 = 2;
/// What `write_requires` says in a store with tags.
const TAGS: &str = "tags";

/// Migrates one format to the next, inside a write transaction.
type Step = fn(&Connection) -> Result<(), StoreError>;

/// The steps, from nothing to [`CREATED`].
const STEPS: [Step; 1] = [from_nothing];

/// Which tables and columns a store has, according to its format. Every transaction reads the format anyway, so this
/// costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    /// Format 1: there has never been a tag.
    #[default]
    Plain,
    /// Format 2: events have a column for tags, which are interned and indexed.
    Tagged,
}

impl Layout {
    /// The layout of a format.
    ///
    /// # Errors
    ///
    /// [`StoreError::FormatChanged`] if this release does not know the format.
    pub(crate) fn of(format: u32) -> Result<Self, StoreError> {
        match format {
            CREATED => Ok(Self::Plain),
            FORMAT => Ok(Self::Tagged),
            found => Err(StoreError::FormatChanged { opened: FORMAT, found }),
        }
    }

    /// Reads the layout, which another process may have changed since the last transaction.
    ///
    /// # Errors
    ///
    /// As for [`Self::of`].
    pub(crate) fn read(connection: &Connection) -> Result<Self, StoreError> {
        Self::of(format(connection).map_err(errors::store)?)
    }
}

/// The format of the database.
pub(crate) fn format(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))
}

/// Whether a database has to be migrated before it can be used.
pub(crate) fn is_old(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(format(connection)? < CREATED)
}

/// Migrates the database to the format of a new store, inside the caller's write transaction.
pub(crate) fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let found = format(connection).map_err(errors::store)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    for step in STEPS.iter().skip(done) {
        step(connection)?;
    }
    if found < CREATED {
        connection.pragma_update(None, "user_version", CREATED).map_err(errors::store)?;
    }
    Ok(())
}

/// Adds what tags need, inside the transaction that writes the first of them. No event is rewritten, but all of them are
/// scanned once for their types. Returns the last posting of each.
pub(crate) fn add_tags(connection: &Connection) -> Result<HashMap<i64, TermEnd>, StoreError> {
    let view = LOG_VIEW.replacen("\nFROM es_event e", TAGS_IN_VIEW, 1);
    connection.execute_batch(FORMAT_2).and_then(|()| connection.execute_batch(&view)).map_err(errors::store)?;
    meta::add_write_requires(connection, TAGS)?;
    connection.pragma_update(None, "user_version", FORMAT).map_err(errors::store)?;
    postings::make(connection)
}

/// Checks the table definitions in the file: with a column of another kind, the same rows would be read as different
/// ones, or not be found.
pub(crate) fn check(connection: &Connection, layout: Layout) -> Result<(), StoreError> {
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name LIKE 'es\\_%' ESCAPE '\\'")
        .map_err(errors::store)?;
    let found = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(errors::store)?;
    for (name, made_by) in statements(layout) {
        match found.iter().find(|(found, _)| found == name) {
            Some((_, sql)) if sql.split_whitespace().eq(made_by.split_whitespace()) => {}
            // A later feature may drop an index, but not replace it with a different one.
            None if !made_by.starts_with("CREATE TABLE") => {}
            _ => return Err(errors::damaged(None, format!("the definition of {name} is damaged"))),
        }
    }
    Ok(())
}

/// The name of each table and index, and the statement that creates it.
fn statements(layout: Layout) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
    let tagged = if layout == Layout::Tagged { FORMAT_2 } else { "" };
    FORMAT_1.split(';').chain(tagged.split(';')).map(str::trim).filter_map(move |statement| {
        let name = statement.split_whitespace().find(|word| word.starts_with("es_"))?;
        if statement.starts_with("ALTER TABLE") {
            return None;
        }
        let altered = name == "es_event" && layout == Layout::Tagged;
        // What SQLite makes of a definition when it adds a column to it.
        let definition = match statement.strip_suffix(')') {
            Some(columns) if altered => format!("{columns}, tags)").into(),
            _ => statement.into(),
        };
        Some((name, definition))
    })
}

fn from_nothing(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(errors::store)?;
    connection.execute_batch(FORMAT_1).and_then(|()| connection.execute_batch(LOG_VIEW)).map_err(errors::store)?;
    meta::set_store_id(connection, StoreId::random())?;
    meta::set_integer(connection, meta::GENERATION, 0)
}

/// Rows of events are short and are inserted in order, so both indexes over them grow at their ends when one stream is
/// written; see `docs/file-format.md` for the meaning of every column.
const FORMAT_1: &str = "
CREATE TABLE es_meta (
    key TEXT PRIMARY KEY NOT NULL, value ANY, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE es_stream (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, category TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX es_stream_category ON es_stream (category, id);
CREATE TABLE es_event_type (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, schema_version INTEGER NOT NULL, codec TEXT NOT NULL, shape TEXT,
    checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX es_event_type_shaped ON es_event_type (name, schema_version, codec, shape) WHERE shape IS NOT NULL;
CREATE UNIQUE INDEX es_event_type_plain ON es_event_type (name, schema_version, codec) WHERE shape IS NULL;
CREATE TABLE es_event (
    position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, type INTEGER NOT NULL,
    time INTEGER NOT NULL, checksum INTEGER NOT NULL, id, metadata TEXT, payload BLOB
);
CREATE UNIQUE INDEX es_event_version ON es_event (stream, version);
CREATE UNIQUE INDEX es_event_id ON es_event (stream, id) WHERE id IS NOT NULL;
CREATE TABLE es_command (
    key TEXT PRIMARY KEY NOT NULL, fingerprint BLOB NOT NULL, streams TEXT NOT NULL, known INTEGER NOT NULL,
    position INTEGER NOT NULL, time INTEGER NOT NULL, clock_behind INTEGER NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE es_cell (
    key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB, checksum INTEGER NOT NULL
);
CREATE TABLE es_snapshot (
    stream TEXT NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, fingerprint BLOB NOT NULL, time INTEGER NOT NULL,
    state BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (stream, name)
);
";

/// The log with names instead of numbers, for people.
const LOG_VIEW: &str = "
CREATE VIEW log AS
SELECT e.position, s.name AS stream, e.version, t.name AS type, t.schema_version, t.codec,
    strftime('%Y-%m-%dT%H:%M:%S', (e.time - (e.time % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
        || printf('.%06dZ', (e.time % 1000000 + 1000000) % 1000000) AS time,
    CASE typeof(e.id) WHEN 'blob' THEN lower(
        substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-' || substr(hex(e.id), 13, 4) || '-' ||
        substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21)) ELSE e.id END AS id,
    CASE t.codec WHEN 'json' THEN CAST(e.payload AS TEXT) ELSE e.payload END AS payload,
    e.metadata
FROM es_event e JOIN es_stream s ON s.id = e.stream JOIN es_event_type t ON t.id = e.type;
";

/// Postings are ordered by term and position, so a commit dirties a page per tag that it uses, as it does per stream.
const FORMAT_2: &str = "
ALTER TABLE es_event ADD COLUMN tags;
CREATE TABLE es_tag (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, checksum INTEGER NOT NULL
);
CREATE TABLE es_posting (
    term INTEGER NOT NULL, position INTEGER NOT NULL, nth INTEGER NOT NULL, PRIMARY KEY (term, position)
) WITHOUT ROWID;
DROP VIEW IF EXISTS log;
";

/// The column that tags add to the view: a JSON array, in the order given.
const TAGS_IN_VIEW: &str = ",
    CASE WHEN e.tags IS NOT NULL THEN (
        SELECT json_group_array(name) FROM (
            SELECT g.name FROM json_each('[' || e.tags || ']') n JOIN es_tag g ON g.id = n.value ORDER BY n.key
        )
    ) END AS tags
FROM es_event e";

#[cfg(test)]
mod tests {
    use super::*;

    /// The check relies on how SQLite writes down a column that was added.
    #[test]
    fn the_definitions_are_those_of_the_layout() {
        let connection = crate::opening::open::memory(1 << 20).unwrap();
        check(&connection, Layout::Plain).unwrap();
        check(&connection, Layout::Tagged).unwrap_err();
        add_tags(&connection).unwrap();
        check(&connection, Layout::Tagged).unwrap();
        check(&connection, Layout::Plain).unwrap_err();
        assert_eq!(Layout::read(&connection).unwrap(), Layout::Tagged);
        meta::check_write_requires(&connection).unwrap();
    }
}
