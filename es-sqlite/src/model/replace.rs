//! Replacing a projector's tables by those that were built anew, inside one transaction.

use std::collections::{HashMap, HashSet};

use es_framework::ModelError;
use tokio_rusqlite::rusqlite::types::ToSqlOutput;
use tokio_rusqlite::rusqlite::{self, Connection, params_from_iter};

use crate::model::records;

/// Copies everything that a projector has made in `built` into the transaction of `live`, in place of what has the same
/// names there, and drops the tables in `before` that it no longer makes. Returns the tables that it makes now.
///
/// Readers of `live` see the old tables until the transaction is committed, and the new ones after it. It costs about a
/// microsecond a row, and the `-wal` file grows by the size of the tables.
pub(super) fn replace(live: &Connection, built: &Connection, before: &[String]) -> Result<Vec<String>, ModelError> {
    let made = Made::of(built)?;
    let names: HashSet<&str> = made.objects.iter().map(|object| object.name.as_str()).collect();
    // A table that is emptied and filled again may be referred to meanwhile.
    run(live, "PRAGMA defer_foreign_keys = ON")?;
    clear(live, |name| names.contains(name) || before.iter().any(|old| old == name))?;
    // All of them before the first row: a row may refer to a table further down.
    for table in made.tables() {
        run(live, &table.sql)?;
    }
    for table in made.tables() {
        copy(live, built, table)?;
    }
    for kind in ["index", "view", "trigger"] {
        for object in made.objects.iter().filter(|object| object.kind == kind) {
            run(live, &object.sql)?;
        }
    }
    Ok(made.tables().map(|table| table.name.clone()).collect())
}

/// What a projector has made.
struct Made {
    objects: Vec<Object>,
}

struct Object {
    kind: String,
    name: String,
    sql: String,
}

impl Made {
    fn of(connection: &Connection) -> Result<Self, ModelError> {
        let kinds = table_kinds(connection)?;
        let mut find = connection.prepare(OBJECTS).map_err(ModelError::failed)?;
        let rows = find.query_map([records::TABLE, records::VIEW], |row| {
            Ok(Object { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? })
        });
        let objects = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(ModelError::failed)?;
        let kind_of = |object: &Object| kinds.get(&object.name).map_or("table", String::as_str);
        if let Some(odd) = objects.iter().find(|object| object.kind == "table" && kind_of(object) == "virtual") {
            return Err(ModelError::not_allowed(format!(
                "the virtual table `{}` cannot be copied into the read model: build it in place, or build the read model \
                 under another name",
                odd.name
            )));
        }
        Ok(Self { objects: objects.into_iter().filter(|object| kind_of(object) != "shadow").collect() })
    }

    fn tables(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.kind == "table")
    }
}

/// Everything but SQLite's own tables and those of the runner, in the order in which it was made.
const OBJECTS: &str = r"SELECT type, name, sql FROM main.sqlite_schema
     WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT IN (?1, ?2) ORDER BY rowid";

/// Tables are plain, virtual, or shadows of virtual ones.
fn table_kinds(connection: &Connection) -> Result<HashMap<String, String>, ModelError> {
    let mut list = connection
        .prepare("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
        .map_err(ModelError::failed)?;
    let kinds = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    kinds.and_then(Iterator::collect).map_err(ModelError::failed)
}

/// Drops what has one of these names. Tables are emptied first: dropping one that others refer to would fail.
fn clear(connection: &Connection, is_meant: impl Fn(&str) -> bool) -> Result<(), ModelError> {
    let mut found = Made::of(connection)?.objects;
    found.retain(|object| is_meant(&object.name) && object.kind != "index");
    let of_kind = |kind: &'static str| found.iter().filter(move |object| object.kind == kind);
    for kind in ["trigger", "view"] {
        for object in of_kind(kind) {
            run(connection, &format!("DROP {kind} IF EXISTS main.{}", quoted(&object.name)))?;
        }
    }
    for table in of_kind("table") {
        run(connection, &format!("DELETE FROM main.{}", quoted(&table.name)))?;
    }
    for table in of_kind("table") {
        // Not all triggers of a table are the projector's own.
        run(connection, &format!("DROP TABLE IF EXISTS main.{}", quoted(&table.name)))?;
    }
    Ok(())
}

fn copy(live: &Connection, built: &Connection, table: &Object) -> Result<(), ModelError> {
    let columns = columns(built, &table.name)?;
    let name = quoted(&table.name);
    let list = columns.join(", ");
    let places = vec!["?"; columns.len()].join(", ");
    let mut read = built.prepare(&format!("SELECT {list} FROM main.{name}")).map_err(ModelError::failed)?;
    let mut write =
        live.prepare(&format!("INSERT INTO main.{name} ({list}) VALUES ({places})")).map_err(ModelError::failed)?;
    let mut rows = read.query([]).map_err(ModelError::failed)?;
    while let Some(row) = rows.next().map_err(ModelError::failed)? {
        let values =
            (0..columns.len()).map(|i| row.get_ref(i).map(ToSqlOutput::Borrowed)).collect::<rusqlite::Result<Vec<_>>>();
        let values = values.map_err(ModelError::failed)?;
        write.execute(params_from_iter(values)).map_err(ModelError::failed)?;
    }
    copy_sequence(live, built, &table.name)
}

/// The quoted names of the columns that are stored, with the row's number first if it is a column of no name.
fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, ModelError> {
    let mut list = connection
        .prepare("SELECT name, pk, upper(type), hidden FROM pragma_table_xinfo(?1, 'main')")
        .map_err(ModelError::failed)?;
    let rows = list.query_map([table], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?))
    });
    let found = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(ModelError::failed)?;
    let (keys, whole): (usize, usize) = (
        found.iter().filter(|(_, key, ..)| *key > 0).count(),
        found.iter().filter(|(_, key, kind, _)| *key > 0 && kind == "INTEGER").count(),
    );
    let without_rowid: bool = connection
        .query_row("SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'", [table], |row| row.get(0))
        .map_err(ModelError::failed)?;
    // The others are computed.
    let stored = found.iter().filter(|(.., hidden)| *hidden == 0).map(|(name, ..)| quoted(name));
    let numbered = !without_rowid && (keys != 1 || whole != 1);
    // A table may have columns with these names; at most one of the three then still means the row's number.
    let free = |alias: &&str| !found.iter().any(|(name, ..)| name.eq_ignore_ascii_case(alias));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(free).filter(|_| numbered);
    Ok(rowid.map(str::to_owned).into_iter().chain(stored).collect())
}

/// What AUTOINCREMENT has counted.
fn copy_sequence(live: &Connection, built: &Connection, table: &str) -> Result<(), ModelError> {
    let counted: bool = built
        .query_row("SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_sequence'", [], |row| row.get(0))
        .map_err(ModelError::failed)?;
    if !counted {
        return Ok(());
    }
    let mut find = built.prepare("SELECT seq FROM main.sqlite_sequence WHERE name = ?1").map_err(ModelError::failed)?;
    let mut rows = find.query([table]).map_err(ModelError::failed)?;
    while let Some(row) = rows.next().map_err(ModelError::failed)? {
        let count: i64 = row.get(0).map_err(ModelError::failed)?;
        let set = live.execute("UPDATE main.sqlite_sequence SET seq = ?2 WHERE name = ?1", (table, count));
        if set.map_err(ModelError::failed)? == 0 {
            live.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", (table, count))
                .map_err(ModelError::failed)?;
        }
    }
    Ok(())
}

fn run(connection: &Connection, sql: &str) -> Result<(), ModelError> {
    connection.execute_batch(sql).map_err(ModelError::failed)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE projection_records (name, key, value)").unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    fn replaced(live: &mut Connection, built: &Connection, before: &[&str]) -> Vec<String> {
        let before: Vec<String> = before.iter().map(|name| (*name).to_owned()).collect();
        let transaction = live.transaction().unwrap();
        let made = replace(&transaction, built, &before).unwrap();
        transaction.commit().unwrap();
        made
    }

    fn text(connection: &Connection, sql: &str) -> String {
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn tables_rows_indexes_views_and_triggers_are_replaced_together() {
        let built = database(
            "CREATE TABLE \"odd \"\"name\" (k TEXT PRIMARY KEY, n INTEGER, twice INTEGER AS (n * 2) STORED) WITHOUT ROWID;
             CREATE TABLE plain (a, b);
             CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, t);
             CREATE INDEX by_b ON plain (b);
             CREATE VIEW total (n) AS SELECT sum(n) FROM \"odd \"\"name\";
             CREATE TRIGGER after_plain AFTER INSERT ON plain BEGIN UPDATE counted SET t = 'fired'; END;
             INSERT INTO \"odd \"\"name\" VALUES ('x', 1), ('y', 2);
             INSERT INTO counted (t) VALUES ('p'), ('q'), ('r');
             DELETE FROM counted WHERE id = 3;
             INSERT INTO plain (rowid, a, b) VALUES (7, x'00ff', NULL), (9, 1.5, 'text');
             UPDATE counted SET t = 'kept'",
        );
        let mut live = database(
            "CREATE TABLE plain (a, old);
             CREATE INDEX by_b ON plain (old);
             CREATE VIEW total (n) AS SELECT 0;
             CREATE TABLE gone (a);
             CREATE TABLE others (a);
             INSERT INTO plain VALUES (1, 2);
             INSERT INTO others VALUES (1)",
        );
        let made = replaced(&mut live, &built, &["plain", "gone"]);
        assert_eq!(made, ["odd \"name", "plain", "counted"]);
        for sql in [
            "SELECT group_concat(rowid || ':' || quote(a) || ':' || quote(b)) FROM plain",
            "SELECT group_concat(k || n || twice) FROM \"odd \"\"name\"",
            "SELECT group_concat(id || t) FROM counted",
            "SELECT group_concat(name || seq) FROM sqlite_sequence",
            "SELECT CAST(n AS TEXT) FROM total",
        ] {
            assert_eq!(text(&live, sql), text(&built, sql), "{sql}");
        }
        let names = "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name)";
        assert_eq!(text(&live, names), "after_plain,by_b,counted,odd \"name,others,plain,projection_records,total");
    }

    #[test]
    fn tables_that_refer_to_each_other_are_replaced() {
        let schema = "PRAGMA foreign_keys = ON;
             CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id));
             CREATE TABLE parent (id INTEGER PRIMARY KEY);";
        let built = database(&format!("{schema} INSERT INTO parent VALUES (2); INSERT INTO child VALUES (1, 2)"));
        let mut live = database(&format!("{schema} INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1)"));
        replaced(&mut live, &built, &["child", "parent"]);
        assert_eq!(text(&live, "SELECT group_concat(parent) FROM child"), "2");
    }

    #[test]
    fn a_virtual_table_is_refused_with_words() {
        let built = database("CREATE VIRTUAL TABLE words USING fts5 (t)");
        let live = database("CREATE TABLE words (t)");
        let error = replace(&live, &built, &[]).unwrap_err().to_string();
        assert!(error.contains("`words`"), "{error}");
        assert_eq!(text(&live, "SELECT CAST(count(*) AS TEXT) FROM words"), "0");
    }
}
