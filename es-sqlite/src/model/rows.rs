//! Tables whose rows a projector changes in memory, and writes once a batch.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tokio_rusqlite::rusqlite;

use super::columns::{Columns, Key};
use super::statements::Table;
use super::tx::SqliteTx;

/// The rows of one table that a batch of events changes, by their key. Each is read once, changed in memory, and written
/// once by [`Self::write`], in statements of many rows: for
/// [`Projector::project_batch`](es_framework::Projector::project_batch).
///
/// The key columns must be the table's primary key or a unique index, and never `NULL`. Columns that are neither keys nor
/// values keep their content, and are given their default in a new row. If the sums of a row are all that is needed,
/// [`Sums`] does not even read it.
///
/// ```
/// use es_framework::{Event, Projected, Projector, Recorded};
/// use es_sqlite::{Rows, SqliteModel, SqliteTx, rusqlite};
///
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: i64 }
/// # struct Balances;
/// impl Projector for Balances {
///     // …
/// #   type Event = Deposited;
/// #   type Model = SqliteModel;
/// #   type Error = rusqlite::Error;
/// #   const NAME: &'static str = "balances";
///     fn project(&self, event: &Recorded<Deposited>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
///         self.project_batch(&[event], tx).map(drop)
///     }
///
///     fn project_batch(&self, events: &[&Recorded<Deposited>], tx: &mut SqliteTx<'_>) -> rusqlite::Result<Projected> {
///         let mut balances = Rows::<&str, (i64, i64)>::new("balance", &["account"], &["cents", "highest"])?;
///         for event in events {
///             let (cents, highest) = balances.or_default(event.aggregate_id(), tx)?;
///             *cents += event.cents;
///             *highest = (*highest).max(*cents);
///         }
///         balances.write(tx)?;
///         Ok(Projected::All)
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "what was changed is lost unless it is written"]
pub struct Rows<K, V> {
    table: Table,
    rows: BTreeMap<K, Row<V>>,
}

#[derive(Debug)]
struct Row<V> {
    value: Option<V>,
    /// Whether the table has it.
    is_stored: bool,
    is_changed: bool,
}

impl<K: Key, V: Columns> Rows<K, V> {
    /// The rows of `table`, none of them read yet.
    ///
    /// # Errors
    ///
    /// [`InvalidParameterCount`](rusqlite::Error::InvalidParameterCount) unless there are as many names of columns as the
    /// key and the value have parts.
    pub fn new(table: &str, key: &[&str], value: &[&str]) -> rusqlite::Result<Self> {
        let table = Table::new(table, key, K::COUNT, value, V::COUNT)?;
        Ok(Self { table, rows: BTreeMap::new() })
    }

    /// The value of a row; [`None`] if there is no such row.
    ///
    /// # Errors
    ///
    /// SQLite's error; [`ToSqlConversionFailure`](rusqlite::Error::ToSqlConversionFailure) if a part of the key is `NULL`,
    /// or if the table has stored the key as something else: with another type, or in other letters under a collation
    /// that takes both for the same.
    pub fn get(&mut self, key: K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<Option<&V>> {
        Ok(self.row(key, tx)?.value.as_ref())
    }

    /// The value of a row, to be changed; [`None`] if there is no such row.
    ///
    /// # Errors
    ///
    /// As for [`Self::get`].
    pub fn get_mut(&mut self, key: K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<Option<&mut V>> {
        let row = self.row(key, tx)?;
        row.is_changed |= row.value.is_some();
        Ok(row.value.as_mut())
    }

    /// The value of a row, to be changed; the row is created if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Self::get`].
    pub fn or_default(&mut self, key: K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<&mut V>
    where
        V: Default,
    {
        let row = self.row(key, tx)?;
        row.is_changed = true;
        Ok(row.value.get_or_insert_with(V::default))
    }

    /// Sets the value of a row, which is created if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Self::get`].
    pub fn insert(&mut self, key: K, value: V, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let row = self.row(key, tx)?;
        (row.value, row.is_changed) = (Some(value), true);
        Ok(())
    }

    /// Removes a row, if there is one.
    ///
    /// # Errors
    ///
    /// As for [`Self::get`].
    pub fn remove(&mut self, key: K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let row = self.row(key, tx)?;
        (row.value, row.is_changed) = (None, true);
        Ok(())
    }

    /// Writes the rows that were changed: first those that were removed, then the others in the order of their keys.
    ///
    /// # Errors
    ///
    /// SQLite's error; some of the rows may have been written.
    pub fn write(self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let (mut removed, mut created, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for (key, row) in self.rows.iter().filter(|(_, row)| row.is_changed) {
            match (&row.value, row.is_stored) {
                (Some(value), true) => changed.push((key, value)),
                (Some(value), false) => created.push((key, value)),
                (None, true) => removed.push(key),
                (None, false) => {}
            }
        }
        for key in removed {
            self.table.remove(key, tx)?;
        }
        self.table.create(&created, tx)?;
        self.table.change(&changed, tx)
    }

    /// The row, read unless it was before.
    fn row(&mut self, key: K, tx: &mut SqliteTx<'_>) -> rusqlite::Result<&mut Row<V>> {
        match self.rows.entry(key) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let value = self.table.read(unknown.key(), tx)?;
                let is_stored = value.is_some();
                Ok(unknown.insert(Row { value, is_stored, is_changed: false }))
            }
        }
    }
}

/// Sums in one column of a table, by the key of the row: a batch of events adds to them in memory, and [`Self::write`] adds
/// what came together to the rows, in statements of many rows. No row is read.
///
/// The key columns must be the table's primary key or a unique index, and never `NULL`. A row that does not exist is
/// created with what was added.
///
/// ```
/// use es_framework::{Event, Projected, Projector, Recorded};
/// use es_sqlite::{SqliteModel, SqliteTx, Sums, rusqlite};
///
/// # #[derive(Debug, Clone, Event)] #[es(name = "deposited")] struct Deposited { cents: i64 }
/// # struct Balances;
/// impl Projector for Balances {
///     // …
/// #   type Event = Deposited;
/// #   type Model = SqliteModel;
/// #   type Error = rusqlite::Error;
/// #   const NAME: &'static str = "balances";
///     fn project(&self, event: &Recorded<Deposited>, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
///         self.project_batch(&[event], tx).map(drop)
///     }
///
///     fn project_batch(&self, events: &[&Recorded<Deposited>], tx: &mut SqliteTx<'_>) -> rusqlite::Result<Projected> {
///         let mut balances = Sums::new("balance", &["account"], "cents")?;
///         for event in events {
///             balances.add(event.aggregate_id(), event.cents)?;
///         }
///         balances.write(tx)?;
///         Ok(Projected::All)
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "what was added is lost unless it is written"]
pub struct Sums<K> {
    table: Table,
    sums: BTreeMap<K, i64>,
}

impl<K: Key> Sums<K> {
    /// Sums in the column `sum` of `table`, with nothing added yet.
    ///
    /// # Errors
    ///
    /// [`InvalidParameterCount`](rusqlite::Error::InvalidParameterCount) unless there are as many key columns as the key
    /// has parts.
    pub fn new(table: &str, key: &[&str], sum: &str) -> rusqlite::Result<Self> {
        Ok(Self { table: Table::new(table, key, K::COUNT, &[sum], 1)?, sums: BTreeMap::new() })
    }

    /// Adds to the sum of a row.
    ///
    /// # Errors
    ///
    /// [`IntegralValueOutOfRange`](rusqlite::Error::IntegralValueOutOfRange) if what was added so far is more than an
    /// `i64` holds.
    pub fn add(&mut self, key: K, number: i64) -> rusqlite::Result<()> {
        let sum = self.sums.entry(key).or_default();
        let column = K::COUNT;
        *sum = sum.checked_add(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))?;
        Ok(())
    }

    /// Adds the sums to the rows, in the order of their keys. A sum in a row that no `i64` holds becomes a floating-point
    /// number, as for every addition in SQLite.
    ///
    /// # Errors
    ///
    /// SQLite's error; some of the rows may have been written.
    pub fn write(self, tx: &mut SqliteTx<'_>) -> rusqlite::Result<()> {
        let sums: Vec<_> = self.sums.iter().collect();
        self.table.add(&sums, tx)
    }
}
