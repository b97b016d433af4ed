//! Statements on a table whose rows have a key: one row is read, many are written.

use std::fmt::Write as _;

use tokio_rusqlite::rusqlite::{self, Statement};

use super::columns::{Columns, Key};
use super::tx::SqliteTx;

/// How many rows one statement writes, largest first. Few sizes, so that the statements stay prepared.
const SIZES: [usize; 3] = [64, 8, 1];

/// A table, and which of its columns are meant.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    key: Vec<String>,
    value: Vec<String>,
    read: String,
}

impl Table {
    pub(super) fn new(
        name: &str,
        key: &[&str],
        parts_of_key: usize,
        value: &[&str],
        parts_of_value: usize,
    ) -> rusqlite::Result<Self> {
        if key.len() != parts_of_key || value.len() != parts_of_value {
            return Err(rusqlite::Error::InvalidParameterCount(key.len() + value.len(), parts_of_key + parts_of_value));
        }
        let all = |names: &[&str]| names.iter().copied().map(quoted).collect::<Vec<_>>();
        let (name, key, value) = (quoted(name), all(key), all(value));
        let columns = key.iter().chain(&value).map(String::as_str).collect::<Vec<_>>().join(", ");
        let read = format!("SELECT {columns} FROM {name} WHERE {}", found_by(&key));
        Ok(Self { name, key, value, read })
    }

    /// Reads the row with this key.
    pub(super) fn read<K: Key, V: Columns>(&self, key: &K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<Option<V>> {
        tx.run(&self.read, |statement| {
            key.bind_key(statement, 1)?;
            let mut rows = statement.raw_query();
            let Some(row) = rows.next()? else { return Ok(None) };
            if !key.is_key_of(row)? {
                let reason = format!("the table {} has stored the key {key:?} as something else", self.name);
                return Err(rusqlite::Error::ToSqlConversionFailure(reason.into()));
            }
            V::read(row, K::COUNT).map(Some)
        })
    }

    /// Removes the row with this key.
    pub(super) fn remove<K: Key>(&self, key: &K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let sql = format!("DELETE FROM {} WHERE {}", self.name, found_by(&self.key));
        tx.run(&sql, |statement| {
            key.bind_key(statement, 1)?;
            statement.raw_execute().map(drop)
        })
    }

    /// Writes rows that the table does not have. It is an error if it has one after all, under a key that only it takes
    /// for the same.
    pub(super) fn create<K: Key, V: Columns>(&self, rows: &[(&K, &V)], tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        if !rows.is_empty() {
            // Fails without a unique index, before there are two rows of one key.
            drop(tx.prepare(&self.insert("INSERT", 1, &self.replacing()))?);
        }
        self.write("INSERT OR ABORT", "", rows, tx)
    }

    /// Writes rows that the table has.
    pub(super) fn change<K: Key, V: Columns>(&self, rows: &[(&K, &V)], tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        self.write("INSERT", &self.replacing(), rows, tx)
    }

    /// Adds to the values of rows, and creates those that the table does not have.
    pub(super) fn add<K: Key>(&self, rows: &[(&K, &i64)], tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let adding = self.on_conflict(|column| format!("{column} = {column} + excluded.{column}"));
        self.write("INSERT", &adding, rows, tx)
    }

    fn write<K: Key, V: Columns>(
        &self,
        verb: &str,
        end: &str,
        mut rows: &[(&K, &V)],
        tx: &mut SqliteTx<'_>,
    ) -> rusqlite::Result<()> {
        for size in SIZES {
            let (whole, rest) = rows.split_at(rows.len() / size * size);
            if whole.is_empty() {
                continue;
            }
            let sql = self.insert(verb, size, end);
            for chunk in whole.chunks_exact(size) {
                tx.run(&sql, |statement| bind_and_run(chunk, statement))?;
            }
            rows = rest;
        }
        Ok(())
    }

    fn insert(&self, verb: &str, rows: usize, end: &str) -> String {
        let columns = self.key.iter().chain(&self.value).map(String::as_str).collect::<Vec<_>>();
        let row = format!("({})", vec!["?"; columns.len()].join(", "));
        let rows = vec![row.as_str(); rows].join(", ");
        format!("{verb} INTO {} ({}) VALUES {rows} {end}", self.name, columns.join(", "))
    }

    fn replacing(&self) -> String {
        self.on_conflict(|column| format!("{column} = excluded.{column}"))
    }

    fn on_conflict(&self, set: impl Fn(&String) -> String) -> String {
        let key = self.key.join(", ");
        let set = self.value.iter().map(set).collect::<Vec<_>>().join(", ");
        format!("ON CONFLICT ({key}) DO UPDATE SET {set}")
    }
}

fn bind_and_run<K: Key, V: Columns>(rows: &[(&K, &V)], statement: &mut Statement<'_>) -> rusqlite::Result<()> {
    let mut at = 1;
    for (key, value) in rows {
        key.bind_key(statement, at)?;
        value.bind(statement, at + K::COUNT)?;
        at += K::COUNT + V::COUNT;
    }
    statement.raw_execute().map(drop)
}

fn found_by(key: &[String]) -> String {
    let mut found_by = String::new();
    for (index, column) in key.iter().enumerate() {
        let _ = write!(found_by, "{}{column} = ?{}", if index == 0 { "" } else { " AND " }, index + 1);
    }
    found_by
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
