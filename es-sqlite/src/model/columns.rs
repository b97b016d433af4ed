//! What the columns of a row are in Rust.

use std::fmt::Debug;
use std::sync::Arc;

use tokio_rusqlite::rusqlite::types::{FromSql, ToSql, ToSqlOutput, Value, ValueRef};
use tokio_rusqlite::rusqlite::{self, Row, Statement};

/// The key of a row: an integer, a text, bytes, or a tuple of up to four parts that can be written to SQLite.
pub trait Key: Ord + Debug + Sealed {
    /// The number of columns.
    const COUNT: usize;

    #[doc(hidden)]
    fn bind_key(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()>;

    /// Whether the first columns of a row have this key, as the same type.
    #[doc(hidden)]
    fn is_key_of(&self, row: &Row<'_>) -> rusqlite::Result<bool>;
}

/// The values of a row: a number, a text, bytes, an [`Option`] of them, or a tuple of up to eight parts that can be written
/// to SQLite and read from it.
pub trait Columns: Sized + Sealed {
    /// The number of columns.
    const COUNT: usize;

    #[doc(hidden)]
    fn bind(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()>;

    #[doc(hidden)]
    fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self>;
}

#[doc(hidden)]
pub trait Sealed {}

fn bind_part(part: &impl ToSql, statement: &mut Statement<'_>, at: usize) -> rusqlite::Result<()> {
    let value = part.to_sql()?;
    let is_null = matches!(value, ToSqlOutput::Borrowed(ValueRef::Null) | ToSqlOutput::Owned(Value::Null));
    if is_null {
        let reason = "a part of the key of a row is NULL, and no row can be found by that";
        return Err(rusqlite::Error::ToSqlConversionFailure(reason.into()));
    }
    statement.raw_bind_parameter(at, value)
}

fn is_part(part: &impl ToSql, row: &Row<'_>, at: usize) -> rusqlite::Result<bool> {
    let stored = row.get_ref(at)?;
    Ok(match part.to_sql()? {
        ToSqlOutput::Borrowed(value) => value == stored,
        ToSqlOutput::Owned(value) => ValueRef::from(&value) == stored,
        // Only bytes of zero, and what belongs to features that this crate does not enable.
        _ => false,
    })
}

macro_rules! one_key {
    ($($type:ty),*) => {$(
        impl Key for $type {
            const COUNT: usize = 1;
            fn bind_key(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
                bind_part(self, statement, first)
            }
            fn is_key_of(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
                is_part(self, row, 0)
            }
        }
    )*};
}

macro_rules! one_value {
    ($($type:ty),*) => {$(
        impl Columns for $type {
            const COUNT: usize = 1;
            fn bind(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
                statement.raw_bind_parameter(first, self)
            }
            fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
                row.get(first)
            }
        }
        impl Columns for Option<$type> {
            const COUNT: usize = 1;
            fn bind(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
                statement.raw_bind_parameter(first, self)
            }
            fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
                row.get(first)
            }
        }
        impl Sealed for Option<$type> {}
    )*};
}

macro_rules! sealed {
    ($($type:ty),*) => {$(impl Sealed for $type {})*};
}

sealed!(i64, i32, i16, i8, u32, u16, u8, bool, f64, String, Vec<u8>, Arc<str>, &str, &[u8]);
one_key!(i64, i32, i16, i8, u32, u16, u8, bool, String, Vec<u8>, Arc<str>, &str, &[u8]);
one_value!(i64, i32, i16, i8, u32, u16, u8, bool, f64, String, Vec<u8>, Arc<str>);

macro_rules! tuple {
    ($($name:ident $at:tt),*; $count:literal) => {
        impl<$($name: ToSql + FromSql),*> Columns for ($($name,)*) where Self: Sealed {
            const COUNT: usize = $count;
            fn bind(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
                $(statement.raw_bind_parameter(first + $at, &self.$at)?;)*
                Ok(())
            }
            fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
                Ok(($(row.get(first + $at)?,)*))
            }
        }
        impl<$($name),*> Sealed for ($($name,)*) {}
    };
}

macro_rules! tuple_key {
    ($($name:ident $at:tt),*; $count:literal) => {
        impl<$($name: ToSql + Ord + Debug),*> Key for ($($name,)*) {
            const COUNT: usize = $count;
            fn bind_key(&self, statement: &mut Statement<'_>, first: usize) -> rusqlite::Result<()> {
                $(bind_part(&self.$at, statement, first + $at)?;)*
                Ok(())
            }
            fn is_key_of(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
                let parts = [$(is_part(&self.$at, row, $at)?),*];
                Ok(!parts.contains(&false))
            }
        }
    };
}

tuple!(A 0; 1);
tuple!(A 0, B 1; 2);
tuple!(A 0, B 1, C 2; 3);
tuple!(A 0, B 1, C 2, D 3; 4);
tuple!(A 0, B 1, C 2, D 3, E 4; 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5; 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6; 7);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7; 8);
tuple_key!(A 0; 1);
tuple_key!(A 0, B 1; 2);
tuple_key!(A 0, B 1, C 2; 3);
tuple_key!(A 0, B 1, C 2, D 3; 4);
