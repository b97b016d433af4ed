//! Small named values: the table `es_cell`.

use std::collections::HashMap;

use bytes::Bytes;
use es_framework::engine::CellFacts;
use es_framework::{Cell, CellError, CellKey, ListCells, MAX_NAME_BYTES, StoreError};
use tokio_postgres::Row;

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::{count, natural};
use crate::tables::row_sum::RowSum;
use crate::tables::rows::column;
use crate::tables::statements::Statements;

/// Why a cell was not set: the caller's reason, or the database's.
#[derive(Debug)]
pub(crate) enum SetError {
    Caller(CellError),
    Failed(Failure),
}

impl From<Failure> for SetError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(crate) async fn find(session: &Session, statements: &Statements, key: &CellKey) -> Result<Option<Cell>, Failure> {
    let Some((revision, Some(value))) = row(session, statements, key).await? else { return Ok(None) };
    Ok(Some(Cell::new(key.clone(), natural(revision, None)?, value)))
}

/// Lists the cells that exist, in the order of their keys.
pub(crate) async fn list(session: &Session, statements: &Statements, list: &ListCells) -> Result<Vec<Cell>, Failure> {
    let prefix = list.prefix.as_str();
    if prefix.contains('\0') {
        // No key has this character, and the server refuses text that has it.
        return Ok(Vec::new());
    }
    let after = list.after.as_ref().map_or("", CellKey::as_str);
    let rows = session.query(&statements.cells, &[&prefix, &after, &last(prefix), &count(list.limit)]).await?;
    let mut cells = Vec::with_capacity(rows.len());
    for row in &rows {
        let (key, (revision, value)) = with_key(row)?;
        let revision = natural(revision, None)?;
        cells.extend(value.map(|value| Cell::new(key, revision, value)));
    }
    Ok(cells)
}

/// What has to be known about cells to set them; those that were never set are left out. With `lock`, they stay as they
/// are until the transaction ends.
pub(crate) async fn facts(
    session: &Session,
    statements: &Statements,
    keys: &[&str],
    lock: bool,
) -> Result<HashMap<CellKey, CellFacts>, Failure> {
    let [read, locking] = &statements.cells_by_key;
    let mut facts = HashMap::new();
    for row in session.query(if lock { locking } else { read }, &[&keys]).await? {
        let (key, (revision, value)) = with_key(&row)?;
        let revision = natural(revision, None)?;
        facts.insert(key, if value.is_some() { CellFacts::existing(revision) } else { CellFacts::removed(revision) });
    }
    Ok(facts)
}

/// A text that no key with this prefix comes after, in the order of their bytes.
fn last(prefix: &str) -> String {
    let longest = MAX_NAME_BYTES / char::MAX.len_utf8() + 1;
    format!("{prefix}{}", char::MAX.to_string().repeat(longest))
}

/// Sets a cell. Each statement is atomic, and only one of them changes anything.
pub(crate) async fn set(
    session: &Session,
    statements: &Statements,
    key: &CellKey,
    expected: u64,
    value: Option<&Bytes>,
) -> Result<u64, SetError> {
    let value = value.map(|value| &value[..]);
    let name = key.as_str();
    loop {
        let before = if expected == 0 {
            let first = sum(key, 1, value).stored();
            if !session.query(&statements.cell_insert, &[&name, &value, &first]).await?.is_empty() {
                return Ok(1);
            }
            match row(session, statements, key).await? {
                // A removed cell keeps its revision, so that none is ever assigned twice.
                Some((revision, None)) => revision,
                found => match actual(found.as_ref())? {
                    // It was removed for good in between, which only a person can do.
                    0 => continue,
                    actual => return Err(changed(key, expected, actual)),
                },
            }
        } else if let Ok(before) = i64::try_from(expected) {
            before
        } else {
            return Err(changed(key, expected, actual(row(session, statements, key).await?.as_ref())?));
        };
        let Some(revision) = before.checked_add(1) else {
            return Err(Failure::from(errors::internal("a cell has no revisions left")).into());
        };
        let update = if expected == 0 { &statements.cell_revive } else { &statements.cell_update };
        let checksum = sum(key, revision, value).stored();
        if !session.query(update, &[&name, &before, &value, &checksum]).await?.is_empty() {
            return Ok(natural(revision, None).map_err(Failure::from)?);
        }
        let actual = actual(row(session, statements, key).await?.as_ref())?;
        if actual != expected {
            return Err(changed(key, expected, actual));
        }
        // It changed twice in between and is as expected now.
    }
}

fn changed(key: &CellKey, expected: u64, actual: u64) -> SetError {
    SetError::Caller(CellError::Changed { key: key.clone(), expected, actual })
}

type CellRow = (i64, Option<Vec<u8>>);

/// The revision that a caller would have to expect.
fn actual(found: Option<&CellRow>) -> Result<u64, Failure> {
    match found {
        Some((revision, Some(_))) => Ok(natural(*revision, None)?),
        _ => Ok(0),
    }
}

async fn row(session: &Session, statements: &Statements, key: &CellKey) -> Result<Option<CellRow>, Failure> {
    let rows = session.query(&statements.cell, &[&key.as_str()]).await?;
    rows.first().map(|row| Ok(verified(row, key)?)).transpose()
}

/// The columns revision, value and checksum of a cell.
fn verified(row: &Row, key: &CellKey) -> Result<CellRow, StoreError> {
    let (revision, value): (i64, Option<Vec<u8>>) = (column(row, 0, None)?, column(row, 1, None)?);
    if sum(key, revision, value.as_deref()).stored() != column::<i32>(row, 2, None)? {
        return Err(errors::damaged(None, format!("the checksum of cell {key} does not match")));
    }
    Ok((revision, value))
}

/// The same columns, and the key after them.
fn with_key(row: &Row) -> Result<(CellKey, CellRow), StoreError> {
    let key: &str = column(row, 3, None)?;
    let key = CellKey::new(key).map_err(|_| errors::damaged(None, format!("{key:?} is not a cell key")))?;
    let cell = verified(row, &key)?;
    Ok((key, cell))
}

pub(crate) fn sum(key: &CellKey, revision: i64, value: Option<&[u8]>) -> RowSum {
    RowSum::of("cell").text(key.as_str()).integer(revision).optional_blob(value)
}
