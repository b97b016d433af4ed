//! Small named values: the table `es_cell`.

use bytes::Bytes;
use es_framework::{Cell, CellError, CellKey, StoreError};

use crate::connection::errors::{self, Failure};
use crate::connection::session::Session;
use crate::connection::values::natural;
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
    let Some(row) = rows.first() else { return Ok(None) };
    let (revision, value): (i64, Option<Vec<u8>>) = (column(row, 0, None)?, column(row, 1, None)?);
    if sum(key, revision, value.as_deref()).stored() != column::<i32>(row, 2, None)? {
        let damaged: StoreError = errors::damaged(None, format!("the checksum of cell {key} does not match"));
        return Err(damaged.into());
    }
    Ok(Some((revision, value)))
}

fn sum(key: &CellKey, revision: i64, value: Option<&[u8]>) -> RowSum {
    RowSum::of("cell").text(key.as_str()).integer(revision).optional_blob(value)
}
