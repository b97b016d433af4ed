//! Values that the driver does not know, and numbers as SQL stores them.

use bytes::{BufMut, BytesMut};
use es_framework::{BoxError, Position, StoreError};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::connection::errors;

/// A `uuid` as its 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        Ok(Self(raw.try_into()?))
    }

    accepts!(UUID);
}

/// Converts a place to the framework's unsigned type.
pub(crate) fn natural(value: i64, at: Option<Position>) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| errors::damaged(at, format!("{value} is neither a position nor a version")))
}

/// A place as SQL stores it; anything beyond the highest possible one is clamped to it.
pub(crate) fn signed(place: u64) -> i64 {
    Position::new(place).as_i64()
}

/// A number of rows as SQL takes it.
pub(crate) fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
