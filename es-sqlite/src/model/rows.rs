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

#[cfg(test)]
mod tests {
    use es_framework::{ModelError, ProjectionName, ReadModel as _};
    use tokio_rusqlite::rusqlite::{self, ErrorCode};

    use super::{Rows, Sums};
    use crate::model::{SqliteModel, SqliteTx};

    const TABLES: &str = "CREATE TABLE plain (a TEXT, b INTEGER, n INTEGER NOT NULL, t BLOB, PRIMARY KEY (a, b));
         CREATE TABLE kept (a TEXT, b INTEGER, n INTEGER NOT NULL, t BLOB, more TEXT DEFAULT 'more', PRIMARY KEY (a, b));
         CREATE TABLE folded (a TEXT PRIMARY KEY COLLATE NOCASE, n INTEGER NOT NULL);
         CREATE TABLE loose (a INTEGER, n INTEGER);
         CREATE TABLE writes (n);
         CREATE TRIGGER inserts AFTER INSERT ON kept BEGIN INSERT INTO writes VALUES (new.n); END;
         CREATE TRIGGER updates AFTER UPDATE ON kept BEGIN INSERT INTO writes VALUES (new.n); END";

    async fn model() -> SqliteModel {
        let model = SqliteModel::in_memory().await.unwrap();
        model.start(&ProjectionName::new("kept").unwrap()).await.unwrap();
        within(&model, |tx| tx.execute_batch(TABLES)).await.unwrap();
        model
    }

    /// Runs a projector's part of a transaction.
    async fn within<T: Send + 'static>(
        model: &SqliteModel,
        run: impl FnOnce(&mut SqliteTx<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, rusqlite::Error> {
        model.transact(|tx: &mut SqliteTx<'_>| run(tx).map_err(ModelError::failed)).await.map_err(|error| match error {
            ModelError::Failed { source } => *source.downcast().unwrap(),
            other => panic!("{other:?}"),
        })
    }

    async fn number(model: &SqliteModel, sql: &'static str) -> i64 {
        model.query(move |connection| connection.query_row(sql, [], |row| row.get(0))).await.unwrap()
    }

    type Kept = Rows<(String, i64), (i64, Option<Vec<u8>>)>;

    fn keyed() -> rusqlite::Result<Kept> {
        Rows::new("kept", &["a", "b"], &["n", "t"])
    }

    /// Batches of random changes through `Rows`, and the same by plain statements.
    #[tokio::test]
    async fn h1_rows_equal_plain_statements() {
        let model = model().await;
        let mut state = 20_261_127_u64;
        for batch in 0..40 {
            let mut program = Vec::new();
            for _ in 0..=batch * 10 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                program.push((state >> 33).cast_signed());
            }
            let gives_up = batch % 7 == 6;
            let done = within(&model, move |tx| {
                let mut rows = keyed()?;
                for number in program {
                    let (a, b) = (format!("a-{}", number / 8 % 12), number / 128 % 9);
                    let key = (a.clone(), b);
                    let text = (number % 3 == 0).then(|| number.to_string().into_bytes());
                    match number % 8 {
                        0 | 1 => {
                            tx.execute("DELETE FROM plain WHERE a = ?1 AND b = ?2", (&a, b))?;
                            rows.remove(key, tx)?;
                        }
                        2 | 3 => {
                            tx.execute("INSERT OR REPLACE INTO plain VALUES (?1, ?2, ?3, ?4)", (&a, b, number, &text))?;
                            rows.insert(key, (number, text), tx)?;
                        }
                        4 => {
                            let update = "UPDATE plain SET n = n + 1, t = NULL WHERE a = ?1 AND b = ?2";
                            let updated = tx.execute(update, (&a, b))?;
                            let row = rows.get_mut(key, tx)?;
                            assert_eq!(row.is_some(), updated == 1);
                            if let Some((n, t)) = row {
                                (*n, *t) = (*n + 1, None);
                            }
                        }
                        5 => {
                            let read = "SELECT count(*), max(n) FROM plain WHERE a = ?1 AND b = ?2";
                            let n: Option<i64> = tx.query_row(read, (&a, b), |row| row.get(1))?;
                            assert_eq!(rows.get(key, tx)?.map(|row| row.0), n);
                        }
                        _ => {
                            let upsert = "INSERT INTO plain VALUES (?1, ?2, ?3, NULL)
                                          ON CONFLICT DO UPDATE SET n = n + excluded.n";
                            tx.execute(upsert, (&a, b, number))?;
                            rows.or_default(key, tx)?.0 += number;
                        }
                    }
                }
                rows.write(tx)?;
                if gives_up { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) }
            });
            assert_eq!(done.await.is_err(), gives_up);
            let differ = "SELECT count(*) FROM (SELECT a, b, n, t FROM kept EXCEPT SELECT * FROM plain)
                          UNION ALL SELECT count(*) FROM (SELECT * FROM plain EXCEPT SELECT a, b, n, t FROM kept)";
            let differ = format!("SELECT sum(\"count(*)\") FROM ({differ})");
            let differ = model.query(move |tables| tables.query_row(&differ, [], |row| row.get::<_, i64>(0)));
            assert_eq!(differ.await.unwrap(), 0, "after batch {batch}");
        }
        assert!(number(&model, "SELECT count(*) FROM kept").await > 20, "there are rows");
        assert_eq!(number(&model, "SELECT count(*) FROM kept WHERE more IS NOT 'more'").await, 0);
    }

    /// However often a row changes, it is written once; what is only read is not written.
    #[tokio::test]
    async fn h1_a_row_is_written_once_a_batch() {
        let model = model().await;
        for batch in 1..=2 {
            within(&model, move |tx| {
                let mut rows = keyed()?;
                for n in 0..1_000 {
                    rows.or_default((format!("a-{}", n % 10), n % 20), tx)?.0 += 1;
                }
                assert!(rows.get(("nobody".to_owned(), 1), tx)?.is_none());
                rows.write(tx)
            })
            .await
            .unwrap();
            assert_eq!(number(&model, "SELECT count(*) FROM writes").await, 20 * batch);
        }
        assert_eq!(number(&model, "SELECT sum(n) FROM kept").await, 2_000);
    }

    #[tokio::test]
    async fn h1_sums_equal_plain_statements() {
        let model = model().await;
        for batch in [1, 7, 73, 500, 1_000] {
            within(&model, move |tx| {
                let mut sums = Sums::new("kept", &["a", "b"], "n")?;
                for n in 0..batch {
                    let (a, b) = (format!("a-{}", n % 17), n % 11);
                    let upsert = "INSERT INTO plain VALUES (?1, ?2, ?3, NULL)
                                  ON CONFLICT DO UPDATE SET n = n + excluded.n";
                    tx.execute(upsert, (&a, b, n - 50))?;
                    sums.add((a, b), n - 50)?;
                }
                sums.write(tx)
            })
            .await
            .unwrap();
            let same = "SELECT count(*) FROM kept JOIN plain USING (a, b, n)";
            let rows = number(&model, "SELECT count(*) FROM plain").await;
            assert_eq!((number(&model, same).await, number(&model, "SELECT count(*) FROM kept").await), (rows, rows));
        }
        let mut sums = Sums::new("kept", &["a", "b"], "n").unwrap();
        sums.add(("a", 1), i64::MAX).unwrap();
        assert!(matches!(sums.add(("a", 1), 1), Err(rusqlite::Error::IntegralValueOutOfRange(..))));
    }

    /// Keys that only the table takes for the same would lose a row: that is an error.
    #[tokio::test]
    async fn h1_keys_that_the_table_takes_for_others_are_errors() {
        let model = model().await;
        let write = |keys: &'static [&'static str]| {
            within(&model, move |tx| {
                let mut rows = Rows::<&str, i64>::new("folded", &["a"], &["n"])?;
                for key in keys {
                    *rows.or_default(key, tx)? += 1;
                }
                rows.write(tx)
            })
        };
        let error = write(&["one", "ONE"]).await.unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation));
        write(&["one", "two"]).await.unwrap();
        let error = write(&["One"]).await.unwrap_err();
        assert!(error.to_string().contains("has stored the key \"One\" as something else"), "{error}");
        assert_eq!(number(&model, "SELECT sum(n) FROM folded").await, 2);
        let error = within(&model, |tx| {
            let mut rows = Rows::<(Option<i64>,), i64>::new("folded", &["a"], &["n"])?;
            rows.insert((None,), 1, tx)
        });
        assert!(error.await.unwrap_err().to_string().contains("is NULL"));
    }

    #[tokio::test]
    async fn h1_what_rows_cannot_keep_is_refused() {
        let model = model().await;
        // Two rows of one key.
        let loose = |key| {
            within(&model, move |tx| {
                let mut rows = Rows::<i64, i64>::new("loose", &["a"], &["n"])?;
                rows.insert(key, 1, tx)?;
                rows.write(tx)
            })
        };
        let error = loose(1).await.unwrap_err();
        assert!(error.to_string().contains("ON CONFLICT clause does not match"), "{error}");
        let error = Rows::<(i64, i64), i64>::new("kept", &["a"], &["n"]).unwrap_err();
        assert_eq!(error, rusqlite::Error::InvalidParameterCount(2, 3));
        // The rules for statements are the same.
        let error = within(&model, |tx| {
            let mut sums = Sums::new("projection_records", &["key"], "value")?;
            sums.add("checkpoint", 1)?;
            sums.write(tx)
        });
        let error = error.await.unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::AuthorizationForStatementDenied), "{error}");
    }
}
