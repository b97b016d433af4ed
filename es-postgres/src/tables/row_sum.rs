//! The checksum of every row other than events.

/// CRC-32C over a table's name and a row's values, the same as in a file of es-sqlite; see `docs/file-format.md`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSum(u32);

impl RowSum {
    pub(crate) fn of(table: &str) -> Self {
        Self(0).text(table)
    }

    pub(crate) fn null(self) -> Self {
        self.bytes(&[0])
    }

    pub(crate) fn integer(self, value: i64) -> Self {
        self.bytes(&[1]).bytes(&value.to_le_bytes())
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.sized(2, value.as_bytes())
    }

    pub(crate) fn blob(self, value: &[u8]) -> Self {
        self.sized(3, value)
    }

    pub(crate) fn optional_text(self, value: Option<&str>) -> Self {
        value.map_or(self.null(), |value| self.text(value))
    }

    pub(crate) fn optional_blob(self, value: Option<&[u8]>) -> Self {
        value.map_or(self.null(), |value| self.blob(value))
    }

    /// The checksum as it is stored: signed, so that it takes four bytes.
    pub(crate) fn stored(self) -> i32 {
        self.0.cast_signed()
    }

    fn sized(self, tag: u8, value: &[u8]) -> Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.bytes(&[tag]).bytes(&length.to_le_bytes()).bytes(value)
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value is part of the format of both engines: if this test fails, stored rows can no longer be read.
    #[test]
    fn the_value_is_pinned() {
        let sum = RowSum::of("cell").text("lease/mailer").integer(-7).blob(b"value").null();
        assert_eq!(sum.stored(), PINNED);
    }

    #[test]
    fn a_value_counts_with_its_kind() {
        let base = RowSum::of("cell");
        let sums = [base.null(), base.integer(0), base.text(""), base.blob(b""), base.text("a"), base.blob(b"a")];
        for (i, a) in sums.iter().enumerate() {
            assert!(sums.iter().skip(i + 1).all(|b| b.stored() != a.stored()));
        }
    }

    const PINNED: i32 = -401_068_791;
}
